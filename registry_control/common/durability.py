"""Which commits wait for the disk: all, but those that nobody would miss."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def unsynced_transaction() -> Iterator[None]:
    """Run a transaction whose commit does not wait for the disk.

    What it wrote outlives every process that is killed. A power failure may take it, as if it had never been,
    and never takes what was committed before: so it is only for what promises nothing, such as an upload
    session. Inside another transaction, the outer one decides.
    """
    if connection.in_atomic_block:
        with transaction.atomic():
            yield
    elif connection.vendor == "sqlite":
        _run("PRAGMA synchronous=NORMAL")
        try:
            with transaction.atomic():
                yield
        finally:
            _run("PRAGMA synchronous=FULL")
    else:
        with transaction.atomic():
            _run("SET LOCAL synchronous_commit = off")
            yield


def _run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
