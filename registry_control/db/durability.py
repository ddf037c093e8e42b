"""Which commits wait for the disk: all, but those that nobody would miss."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

from registry_control.db.sql import execute
from registry_control.db.sqlite.base import DatabaseWrapper


@contextmanager
def unsynced_transaction() -> Iterator[None]:
    """Run a transaction whose commit does not wait for the disk.

    What it wrote outlives every process that is killed. A power failure may take it, as if it had never been,
    and never takes what was committed before: so it is only for what promises nothing, such as an upload
    session. Inside another transaction, the outer one decides.
    """
    if connection.in_atomic_block:
        with transaction.atomic(savepoint=False):
            yield
    elif isinstance(here := connections[DEFAULT_DB_ALIAS], DatabaseWrapper):
        here.sync_on_commit = False
        try:
            with transaction.atomic():
                yield
        finally:
            here.sync_on_commit = True
    else:
        with transaction.atomic():
            execute("SET LOCAL synchronous_commit = off", [])
            yield
