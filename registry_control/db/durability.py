"""Transactions whose COMMIT need not wait for the disk (ADR 17)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

from registry_control.db.sql import Parameter, Rows, execute, rows
from registry_control.db.sqlite.base import DatabaseWrapper

_UNSYNCED: Final = ", set_config('synchronous_commit', 'off', TRUE)"


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


def unsynced_rows(sql: str, parameters: Sequence[Parameter]) -> Rows:
    """Run one statement in an `unsynced_transaction` of its own; `sql` ends with the columns of RETURNING.

    On PostgreSQL that is one round trip without BEGIN and COMMIT: the statement, where it writes a row, sets
    `synchronous_commit` for its transaction. The rows have one more column then.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        return rows(f"{sql}{_UNSYNCED}", parameters)
    with unsynced_transaction():
        return rows(sql, parameters)
