"""A store on a disk, and an image in it."""

from pathlib import Path

import pytest

from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, push_image

LAYER = b"a layer that will be damaged"


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    made = FilesystemStore(tmp_path / "blobs")
    made.check()
    return made


@pytest.fixture
def pushed(owner: TestKey, namespace: Namespace, store: FilesystemStore) -> Pushed:
    return push_image(owner, namespace, layers=[LAYER, b"another layer"], store=store)
