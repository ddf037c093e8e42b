"""Runs operations in steps, so that others run in between, and kills them or fails their storage at any step.

An operation stops before and after each transaction and each call of the storage. It is a greenlet, so that
all operations of a test run in one thread, share its database connection and stop where the test says: one
seed is one order of events. Between two steps an operation holds no lock of the database, because it does not
stop inside of a transaction.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import psycopg
import pytest
from django.db import connection, transaction
from greenlet import getcurrent, greenlet

from registry_control.common import clock, clock_watch
from registry_control.db.sqlite import base as sqlite
from registry_data.storage.base import (
    BlobStore,
    DeletesMany,
    Key,
    StorageError,
    Unavailable,
    UploadId,
    UploadWriter,
)

_STORAGE: Final = "storage"
_DATABASE: Final = "database"


class Killed(BaseException):
    """The process of an operation was killed at this line."""


@dataclass
class Operation:
    """A call that runs in steps: `advance` it until it `is_over`, or `kill` it after the first step."""

    call: Callable[[], Any]
    result: Any = None
    error: BaseException | None = None
    is_dead: bool = False
    is_uninterrupted: bool = False
    committed_at: datetime | None = None
    """When its last transaction was committed."""

    on_commit: Callable[[], None] = lambda: None
    _stopped_at: str = ""
    _greenlet: greenlet = field(init=False)

    def __post_init__(self) -> None:
        self._greenlet = _Step(self)

    @property
    def is_over(self) -> bool:
        """Whether the call has returned or raised, or was killed."""
        return self._greenlet.dead

    @property
    def calls_storage(self) -> bool:
        """Whether it has stopped before or after a call of the storage."""
        return not self.is_over and self._stopped_at == _STORAGE

    def advance(self, steps: int = 1) -> None:
        """Run to the next point, several times, at most to the end."""
        for _ in range(steps):
            if not self.is_over:
                self._greenlet.switch()

    def finish(self, *, failing: Iterable[bool] = ()) -> None:
        """Run to the end; `failing` tells at which of the next points in the storage it fails."""
        failures = iter(failing)
        while not self.is_over:
            if self.calls_storage and next(failures, False):
                self.fail_storage()
            else:
                self._greenlet.switch()

    def kill(self) -> None:
        """End it here, as kill -9 does: no handler of the code under test changes anything any more."""
        self.is_dead = True
        with connection.execute_wrapper(_refuse):
            while not self.is_over:  # a handler may suppress the exception
                self._greenlet.throw(Killed)

    def fail_storage(self) -> None:
        """Let the call of the storage fail: before it was done, or after, as if its response were lost."""
        self._greenlet.throw(Unavailable("injected by the test"))

    def run(self) -> None:
        try:
            self.result = self.call()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def stop(self, where: str) -> None:
        """Called by the operation's own code at each point."""
        if self.is_dead:
            raise Killed
        if self.is_uninterrupted:
            return
        self._stopped_at = where
        assert self._greenlet.parent is not None
        self._greenlet.parent.switch()


class _Step(greenlet):
    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation: Final = operation

    def run(self) -> None:
        self.operation.run()


def _refuse(*_: object) -> None:
    raise Killed


def _current() -> Operation | None:
    here = getcurrent()
    return here.operation if isinstance(here, _Step) else None


def stop_here(where: str) -> None:
    """A point at which the operation of this greenlet stops; outside of one it does nothing."""
    operation = _current()
    if operation is not None:
        operation.stop(where)


@contextmanager
def stops_at_transactions() -> Iterator[None]:
    """Let operations stop before each transaction and after its commit."""
    enter, leave = transaction.Atomic.__enter__, transaction.Atomic.__exit__

    def stop_and_enter(self: transaction.Atomic) -> None:
        if not connection.in_atomic_block:
            stop_here(_DATABASE)
        enter(self)

    def leave_and_stop(self: transaction.Atomic, kind: Any, error: Any, traceback: Any) -> None:
        leave(self, kind, error, traceback)
        operation = _current()
        if operation is not None and kind is None and not connection.in_atomic_block:
            operation.committed_at = clock.now()
            operation.on_commit()
            operation.stop(_DATABASE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction.Atomic, "__enter__", stop_and_enter)
        patch.setattr(transaction.Atomic, "__exit__", leave_and_stop)
        yield


_STEPPED: Final = frozenset(
    {
        "create_upload",
        "publish",
        "published_as",
        "discard",
        "size",
        "read",
        "read_past_cache",
        "delete",
        "list_objects",
        "remove_object",
    }
)


class SteppedStore:
    """A storage driver with a point before and after each call that changes something or looks for it."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _STEPPED:
            return method

        def call(*positional: Any, **named: Any) -> Any:
            stop_here(_STORAGE)
            result = method(*positional, **named)
            stop_here(_STORAGE)
            return result

        return call

    def open_upload(self, upload: UploadId, *, at: int | None) -> UploadWriter:
        stop_here(_STORAGE)
        writer = _SteppedWriter(self._store.open_upload(upload, at=at))
        try:
            stop_here(_STORAGE)
        except BaseException:
            writer.close()  # what the end of a process does, too
            raise
        return writer


class SteppedBulkStore(SteppedStore):
    """A driver that deletes many keys in one request."""

    def delete_many(self, keys: Sequence[Key]) -> Mapping[Key, StorageError]:
        assert isinstance(self._store, DeletesMany)
        try:
            stop_here(_STORAGE)
            errors = self._store.delete_many(keys)
            stop_here(_STORAGE)
        except Unavailable as error:  # this method raises none
            return dict.fromkeys(keys, error)
        return errors


class _SteppedWriter:
    """A writer that a killed operation only closes: the end of a process releases the upload, too."""

    def __init__(self, writer: UploadWriter) -> None:
        self._writer = writer

    @property
    def offset(self) -> int:
        return self._writer.offset

    @property
    def is_published(self) -> bool:
        return self._writer.is_published

    def write(self, piece: bytes) -> None:
        stop_here(_STORAGE)
        self._writer.write(piece)

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        operation = _current()
        if operation is not None and operation.is_dead:
            self._writer.close()
        else:
            self._writer.abandon()


def stepped(store: BlobStore) -> BlobStore:
    """A store with points around each call."""
    return cast("BlobStore", (SteppedBulkStore if isinstance(store, DeletesMany) else SteppedStore)(store))


class Clock:
    """The clock of the product and of its database, which only the test moves."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)
        self.tell_database: Callable[[datetime], None] = lambda _: None

    def now(self, _: object = None) -> datetime:
        return self.moment

    def advance(self, by: timedelta) -> None:
        self.moment += by
        self.tell_database(self.moment)


class _Uninterrupted:
    """Stands in for a lock of threads: an operation does not stop while it holds it."""

    def __enter__(self) -> None:
        if (operation := _current()) is not None:
            operation.is_uninterrupted = True

    def __exit__(self, *_: object) -> None:
        if (operation := _current()) is not None:
            operation.is_uninterrupted = False


@contextmanager
def without_waits_for_the_disk() -> Iterator[None]:
    """Let nothing be synced: operations are killed, and the machine keeps its power."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda _: None)
        yield


@contextmanager
def clock_of_the_test() -> Iterator[Clock]:
    """Replace the system's clock below `registry_control.common.clock`, and that of the database."""
    made = Clock()
    with pytest.MonkeyPatch.context() as patch, _clock_of_the_database(made):
        patch.setattr(clock, "datetime", made)
        patch.setattr(sqlite, "datetime", made)
        patch.setattr(clock_watch, "_ticks", lambda: made.moment.timestamp())
        patch.setattr(clock_watch, "_memory", clock_watch.Memory())
        patch.setattr(clock_watch, "_lock", _Uninterrupted())
        yield made


@contextmanager
def _clock_of_the_database(made: Clock) -> Iterator[None]:
    """Let a function of the test answer in the place of PostgreSQL's own, on every connection."""
    if connection.vendor != "postgresql":
        yield
        return
    database = connection.settings_dict["NAME"]
    # A connection of its own, outside of the transactions of the test.
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as aside:
        aside.execute("DROP SCHEMA IF EXISTS test_clock CASCADE")
        aside.execute("CREATE SCHEMA test_clock")
        aside.execute("CREATE TABLE test_clock.reading (moment timestamptz)")
        aside.execute("INSERT INTO test_clock.reading VALUES (%s)", [made.moment])
        aside.execute(
            "CREATE FUNCTION test_clock.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE"
            " AS 'SELECT moment FROM test_clock.reading'"
        )
        aside.execute(f'ALTER DATABASE "{database}" SET search_path = test_clock, public, pg_catalog')

        def tell(moment: datetime) -> None:
            aside.execute("UPDATE test_clock.reading SET moment = %s", [moment])

        made.tell_database = tell
        connection.close()  # the next one has the path
        try:
            yield
        finally:
            aside.execute(f'ALTER DATABASE "{database}" RESET search_path')
            connection.close()
            aside.execute("DROP SCHEMA test_clock CASCADE")
