"""What only these tests need."""

from collections.abc import Iterator

import pytest

from tests.services.plugin import Backing
from tests.services.redis import Redis, running_redis


@pytest.fixture(scope="module")
def redis(backing: Backing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis, also in a run that has none for everything else."""
    if backing.redis is not None:
        yield backing.redis
        return
    with running_redis(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server
