"""An operator of the installation, an owner in another organization, and a store on a disk."""

from pathlib import Path

import pytest

from registry_control.identity.models import Organization
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import FULL_ACCESS, OPERATOR, TestKey, make_key


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
