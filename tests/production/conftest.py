"""Nodes as an operator runs them: Python with requirements.txt alone, PostgreSQL, Redis and MinIO."""

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.services.minio import S3Server
from tests.services.postgres import Postgres, running_postgres
from tests.services.redis import Redis, running_redis
from tests.services.stack import ROOT, Stack


@dataclass(frozen=True)
class Installation:
    """The servers that the nodes of one installation share."""

    postgres: Postgres
    redis: Redis
    environment: dict[str, str]
    _redis_server: ExitStack = field(repr=False)

    def stop_redis(self) -> None:
        self._redis_server.close()


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment with the packages of requirements.txt and no others."""
    folder = tmp_path_factory.mktemp("venv")
    interpreter = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    requirements = str(ROOT / "requirements.txt")
    pip = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
    subprocess.run([*pip, "--require-hashes", "--requirement", requirements], check=True)
    return interpreter


@pytest.fixture
def installation(minio: S3Server, tmp_path: Path) -> Iterator[Installation]:
    """A PostgreSQL with an empty database, a separate Redis that a test may stop, and an empty bucket."""
    with ExitStack() as redis_server, running_postgres(tmp_path / "postgres") as postgres:
        redis = redis_server.enter_context(running_redis(tmp_path / "redis"))
        environment = {
            "REGISTRY_DATABASE_URL": postgres.create_database("registry"),
            "REGISTRY_REDIS_URL": redis.url(),
            "REGISTRY_STORAGE_URL": minio.url(),
            "REGISTRY_SECRET_KEY": secrets.token_urlsafe(48),
        }
        yield Installation(postgres, redis, environment, redis_server)


@pytest.fixture
def make_node(installation: Installation, python: Path, tmp_path: Path) -> Iterator[Callable[[], Stack]]:
    """Create nodes of the installation, each with its own folder and addresses; they are not started."""
    with ExitStack() as cleanup:

        def make() -> Stack:
            folder = tmp_path / f"node-{len(list(tmp_path.glob('node-*')))}"
            node = Stack(folder, environment=installation.environment, python=python)
            cleanup.callback(lambda: node.stop() if node.is_running else None)
            return node

        yield make
