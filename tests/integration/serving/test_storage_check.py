"""A node whose storage is not that of the database does not become ready."""

from pathlib import Path

import pytest

from registry_control.namespaces.models import Namespace
from registry_control.serving.dependencies import StorageCheck
from registry_control.serving.readiness import CheckFailed
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, push_image

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_node_with_another_storage_is_not_ready_until_it_has_the_content(
    owner: TestKey, namespace: Namespace, tmp_path: Path
) -> None:
    # given a registry with some content, and a node that starts before its disk is mounted
    disk = tmp_path / "disk"
    right = FilesystemStore(disk)
    StorageCheck(right)()  # without content, any storage is right
    push_image(owner, namespace, layers=[b"layer %d" % number for number in range(25)], store=right)
    check = StorageCheck(FilesystemStore(tmp_path / "mount point"))
    for _ in range(2):
        with pytest.raises(CheckFailed, match="storage: most content seems to be missing"):
            check()

    # when the disk is mounted, then it becomes ready
    (tmp_path / "mount point").rename(tmp_path / "below")
    disk.rename(tmp_path / "mount point")
    check()
