"""A lock in the database: one of several nodes that start concurrently prepares it, the others wait."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.db import connection

_KEY: Final = 0x53746F77616765  # "Stowage" in ASCII, different from the locks of other applications

# The lock is released with its transaction, so it works through a connection pooler too. Waiting for it and
# holding it may take as long as a migration, so there are no timeouts; keepalives detect that the node has
# disappeared.
_KEEPALIVES: Final = """
SET LOCAL tcp_keepalives_idle = 10;
SET LOCAL tcp_keepalives_interval = 5;
SET LOCAL tcp_keepalives_count = 3
"""


@contextmanager
def startup_lock(report: Callable[[str], None]) -> Iterator[None]:
    """Acquire the lock; `report` receives a line if another process holds it.

    Raises:
        django.db.Error, OSError: the database cannot be used.
    """
    lock = _postgresql if connection.vendor == "postgresql" else _sqlite
    with lock(lambda: report("another node is preparing the database; waiting for it")):
        yield


@contextmanager
def _postgresql(on_wait: Callable[[], None]) -> Iterator[None]:
    from registry_control.db.postgresql.timeouts import DISABLE_IN_TRANSACTION

    own = connection.copy()
    try:
        own.set_autocommit(False)
        with own.cursor() as cursor:
            cursor.execute(DISABLE_IN_TRANSACTION)
            cursor.execute(_KEEPALIVES)
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_KEY])
            if not cursor.fetchone()[0]:
                on_wait()
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_KEY])
        yield
    finally:
        own.close()


@contextmanager
def _sqlite(on_wait: Callable[[], None]) -> Iterator[None]:
    database = Path(connection.settings_dict["NAME"])
    descriptor = os.open(database.with_name(f"{database.name}-start"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
