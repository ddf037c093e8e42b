"""A Redis server for these tests, independent of TEST_DATABASE."""

from collections.abc import Iterator

import pytest

from tests.services.redis import Redis, running_redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server
