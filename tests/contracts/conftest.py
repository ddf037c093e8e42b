"""The drivers that the contract tests run on; add a new driver to DRIVERS."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from registry_data.storage.base import BlobStore
from registry_data.storage.factory import open_store

Make = Callable[[pytest.FixtureRequest, Path], str]

DRIVERS: Final[dict[str, Make]] = {
    "filesystem": lambda _, folder: f"file://{folder}/store",
    "minio": lambda request, _: request.getfixturevalue("minio").url(),
    "versitygw": lambda request, _: request.getfixturevalue("versitygw").url(),
}
_BUILT_IN: Final = "filesystem"  # needs no program of `make tools`


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name == _BUILT_IN else pytest.mark.clients, id=name)
        for name in DRIVERS
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store."""
    made = open_store(DRIVERS[request.param](request, tmp_path))
    made.check()
    return made
