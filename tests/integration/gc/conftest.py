"""An operator of the installation, an image, a recycle bin, and a store on a disk."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from django.test import override_settings

from registry_control.identity.models import Organization
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import FULL_ACCESS, OPERATOR, TestKey, make_key
from tests.integration.gc.recycling import PERIOD
from tests.integration.gc.retaining import new_image

pytest.register_assert_rewrite("tests.integration.gc.machine")


@pytest.fixture
def operator() -> TestKey:
    key = make_key(FULL_ACCESS, OPERATOR)
    Organization.objects.filter(pk=key.organization.pk).update(operates_installation=True)
    return key


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    made = FilesystemStore(tmp_path / "blobs")
    made.check()
    return made


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    """An image to which nothing was pushed."""
    return new_image(owner, namespace)


@pytest.fixture
def recycle_bin() -> Iterator[None]:
    with override_settings(RECYCLE_BIN=PERIOD):
        yield
