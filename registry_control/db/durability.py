"""Transactions whose COMMIT need not wait for the disk (ADR 17)."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

from registry_control.db.sql import execute
from registry_control.db.sqlite.base import DatabaseWrapper


@contextmanager
def unsynced_transaction() -> Iterator[None]:
    """Run a transaction whose COMMIT does not wait for the disk.

    Its changes survive a kill of the process. A power failure may undo them, as a whole, but never an earlier
    commit. So it is only for changes that a client can repeat, such as an upload session. Inside another
    transaction it has no effect: the outer one decides.
    """
    if connection.in_atomic_block:
        with transaction.atomic(savepoint=False):
            yield
    elif isinstance(current := connections[DEFAULT_DB_ALIAS], DatabaseWrapper):
        current.sync_on_commit = False
        try:
            with transaction.atomic():
                yield
        finally:
            current.sync_on_commit = True
    else:
        with transaction.atomic():
            execute("SET LOCAL synchronous_commit = off", [])
            yield
