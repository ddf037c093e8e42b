"""The drivers that have to keep the contract; a new one joins by one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_data.storage.base import BlobStore
from registry_data.storage.filesystem import FilesystemStore

DRIVERS: dict[str, Callable[[Path], BlobStore]] = {"filesystem": FilesystemStore}


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store."""
    made = DRIVERS[request.param](tmp_path / "store")
    made.check()
    return made
