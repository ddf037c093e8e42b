"""Gives one pytest run its database, before Django reads its settings.

TEST_DATABASE=sqlite (the default) or postgresql, which also brings Redis. A plugin named in `addopts`
and not a conftest, because pytest-django loads the settings before any conftest.
"""

import itertools
import os
import secrets
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.services.postgres import Postgres, running_postgres
from tests.services.redis import Redis, running_redis


@dataclass(frozen=True, slots=True)
class Backing:
    """What this run's tests and products stand on."""

    folder: Path
    postgres: Postgres | None = None
    redis: Redis | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def environment(self) -> dict[str, str]:
        """Settings for the product's code inside this very process."""
        variables = {
            "REGISTRY_STATE_DIR": str(self.folder / "state"),
            "REGISTRY_SECRET_KEY": secrets.token_urlsafe(48),
            "REGISTRY_DATABASE_URL": f"sqlite:///{self.folder}/registry.sqlite3",
        }
        if self.postgres:
            variables["REGISTRY_DATABASE_URL"] = self.postgres.url("registry")
        if self.redis:
            variables["REGISTRY_REDIS_URL"] = self.redis.url()
        return variables

    def fresh_environment(self) -> dict[str, str]:
        """Settings for one more product, a process of its own that shares nothing with the others.

        Empty for SQLite: the product's own default is a database in its own folder.
        """
        variables = {}
        number = next(self._numbers)
        if self.postgres:
            variables["REGISTRY_DATABASE_URL"] = self.postgres.create_database(f"stack_{number}")
        if self.redis:
            # 0 belongs to this process.
            variables["REGISTRY_REDIS_URL"] = self.redis.url(number)
        return variables


BACKING: Final = pytest.StashKey[Backing]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    cleanup = ExitStack()
    # Runs in every case: after the last test, after Ctrl-C, and when a conftest cannot be imported.
    early_config.add_cleanup(cleanup.close)
    backing = _start(cleanup, _wanted(early_config))
    early_config.stash[BACKING] = backing
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        del os.environ[name]  # The settings of whoever runs the tests have no say in them.
    os.environ.update(backing.environment())
    yield


def _wanted(config: pytest.Config) -> str:
    database = os.environ.get("TEST_DATABASE", "sqlite")
    if database not in ("sqlite", "postgresql"):
        raise pytest.UsageError(f"TEST_DATABASE is {database!r}, but must be sqlite or postgresql")
    options = config.known_args_namespace
    only_lists = options.collectonly or options.help
    return "sqlite" if only_lists else database


def _start(cleanup: ExitStack, database: str) -> Backing:
    # Where a killed server's last writes may come late, an empty folder that stays is no failure.
    folder = Path(
        cleanup.enter_context(
            tempfile.TemporaryDirectory(prefix="stowage-tests-", ignore_cleanup_errors=True)
        )
    )
    if database == "sqlite":
        return Backing(folder)
    return Backing(
        folder,
        postgres=cleanup.enter_context(running_postgres(folder / "postgres")),
        redis=cleanup.enter_context(running_redis(folder / "redis")),
    )
