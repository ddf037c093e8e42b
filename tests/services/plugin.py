"""Starts the servers of a pytest process and sets the environment before Django reads its settings.

TEST_DATABASE=sqlite (the default) or postgresql, which also starts Redis. The plugin is named in `addopts`,
because pytest-django loads the settings before any conftest is imported.

With pytest-xdist each worker process has a folder and servers of its own, so that workers share nothing; the
process that only distributes tests starts no server.
"""

import fcntl
import gc
import hashlib
import itertools
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from tests.services.child import ServiceError
from tests.services.postgres import Postgres, running_postgres
from tests.services.redis import Redis, running_redis

_ROOT: Final = Path(__file__).parents[2]
_TEMPLATE: Final = "template"
_KEPT: Final = _ROOT / ".venv" / "migrated"
_KEPT_FILES: Final = 20


@dataclass(frozen=True)
class Backing:
    """The servers and the folder of one pytest process."""

    folder: Path
    postgres: Postgres | None = None
    redis: Redis | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def environment(self) -> dict[str, str]:
        """Settings for the product's code inside this process."""
        variables = {
            "REGISTRY_STATE_DIR": str(self.folder / "state"),
            "REGISTRY_SECRET_KEY": secrets.token_urlsafe(48),
            "REGISTRY_DATABASE_URL": f"sqlite:///{self.folder}/registry.sqlite3",
            "REGISTRY_RECYCLE_BIN": "0",  # tests of the recycle bin switch it on
        }
        if self.postgres:
            variables["REGISTRY_DATABASE_URL"] = self.postgres.url("registry")
        if self.redis:
            variables["REGISTRY_REDIS_URL"] = self.redis.url()
        return variables

    def fresh_environment(self) -> dict[str, str]:
        """Settings for a product with an empty database, in processes of its own.

        No REGISTRY_DATABASE_URL for SQLite: the product's default is a database in its state folder.
        """
        variables = {}
        number = next(self._numbers)
        if self.postgres:
            variables["REGISTRY_DATABASE_URL"] = self.postgres.create_database(f"stack_{number}")
        return variables | self._redis_environment(number)

    def migrated_environment(self, state_dir: Path) -> dict[str, str]:
        """Settings for a product with a migrated database and no rows of its own.

        A copy of the template takes a fraction of the time of the migrations. For SQLite it is written to
        `state_dir`, which must not hold a database yet.
        """
        variables = {}
        number = next(self._numbers)
        if self.postgres:
            name = f"stack_{number}"
            variables["REGISTRY_DATABASE_URL"] = self.postgres.create_database(name, template=self._template)
        else:
            state_dir.mkdir(mode=0o700, parents=True)
            self.copy_database(state_dir / "registry.sqlite3")
        return variables | self._redis_environment(number)

    def copy_database(self, target: Path) -> None:
        """Write a migrated SQLite database to `target`."""
        shutil.copyfile(self._template, target)
        target.chmod(0o600)

    def create_migrated_database(self, name: str) -> None:
        """Create a migrated database on the PostgreSQL server of this process."""
        assert self.postgres
        self.postgres.create_database(name, template=self._template)

    def _redis_environment(self, number: int) -> dict[str, str]:
        # Database 0 belongs to this process.
        return {"REGISTRY_REDIS_URL": self.redis.url(number)} if self.redis else {}

    @cached_property
    def _template(self) -> str:
        """A migrated database of this process: a file (SQLite) or a name (PostgreSQL)."""
        folder = self.folder / _TEMPLATE
        folder.mkdir()
        if self.postgres:
            self._migrate(folder, self.postgres.create_database(_TEMPLATE))
            return _TEMPLATE
        file = folder / "registry.sqlite3"
        with _kept_database() as kept:
            if not kept.exists():
                self._migrate(folder, f"sqlite:///{file}")
                shutil.copyfile(file, draft := kept.with_suffix(".draft"))
                draft.rename(kept)
            shutil.copyfile(kept, file)
        return str(file)

    def _migrate(self, folder: Path, url: str) -> None:
        environment = self.environment() | {"REGISTRY_STATE_DIR": str(folder), "REGISTRY_DATABASE_URL": url}
        done = subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            cwd=_ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServiceError(f"manage.py migrate ended with {done.returncode}\n{done.stdout}{done.stderr}")


@contextmanager
def _kept_database() -> Iterator[Path]:
    """A file for the migrated SQLite database of exactly this code, locked; it may not exist yet.

    The migrations take seconds of CPU, and each process of each run would need them.
    """
    state = hashlib.sha256((_ROOT / "requirements.txt").read_bytes())
    for source in sorted((_ROOT / "registry_control").rglob("*.py")):
        state.update(f"{source.relative_to(_ROOT)}\n".encode() + source.read_bytes())
    _KEPT.mkdir(parents=True, exist_ok=True)
    with (_KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for old in sorted(_KEPT.glob("*.sqlite3"), key=lambda file: file.stat().st_mtime)[:-_KEPT_FILES]:
            old.unlink()
        yield _KEPT / f"{state.hexdigest()}.sqlite3"


# Tests create many objects that stay (modules, models, templates), and each full collection visits them all:
# with the usual threshold of 700 that takes nearly half of the processor time.
gc.set_threshold(100_000)

# The tests start hundreds of processes. Without cached bytecode each compiles all sources again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

BACKING: Final = pytest.StashKey[Backing]()
_CLEANUP: Final = pytest.StashKey[ExitStack]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    cleanup = ExitStack()
    # Runs in every case: after the last test, after Ctrl-C, and when a conftest cannot be imported.
    early_config.add_cleanup(cleanup.close)
    early_config.stash[_CLEANUP] = cleanup
    backing = _start(cleanup, _needed_database(early_config))
    early_config.stash[BACKING] = backing
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        del os.environ[name]  # The settings of the user who runs the tests must not change them.
    os.environ.update(backing.environment())
    yield


def pytest_collection_finish() -> None:
    """Exclude modules and collected tests from garbage collections."""
    gc.freeze()


@pytest.hookimpl(trylast=True)  # after the fixtures of the session are torn down
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the servers before a worker reports its end: xdist interrupts what takes long after that."""
    session.config.stash[_CLEANUP].close()


def requested_database() -> str:
    """The value of TEST_DATABASE.

    Raises:
        pytest.UsageError: it is neither sqlite nor postgresql.
    """
    database = os.environ.get("TEST_DATABASE", "sqlite")
    if database not in ("sqlite", "postgresql"):
        raise pytest.UsageError(f"TEST_DATABASE is {database!r}, but must be sqlite or postgresql")
    return database


def _needed_database(config: pytest.Config) -> str:
    database = requested_database()
    return database if _runs_tests(config) else "sqlite"


def _runs_tests(config: pytest.Config) -> bool:
    """Whether this process runs tests: it does not if it lists them or distributes them to workers."""
    options = config.known_args_namespace
    distributes = bool(options.numprocesses) and "PYTEST_XDIST_WORKER" not in os.environ
    return not (options.collectonly or options.help or distributes)


def _start(cleanup: ExitStack, database: str) -> Backing:
    # A killed server may still write while its folder is removed: an empty folder that stays is no failure.
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
