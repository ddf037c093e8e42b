"""Django's SQLite backend with a fair write lock (ADR 18) and group commit (ADR 26)."""

import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base, schema
from django.db.utils import OperationalError

from registry_control.db.schema import AtomicMigrationRecord
from registry_control.db.sqlite.wal_sync import WalSync
from registry_control.db.sqlite.write_lock import WriteLock


class SchemaEditor(AtomicMigrationRecord, schema.DatabaseSchemaEditor):
    """SQLite's schema editor, which records a migration in the migration's own transaction."""


class DatabaseWrapper(base.DatabaseWrapper):
    """Connection to a SQLite file.

    Statements outside of transactions use neither lock nor group commit: for them SQLite's busy timeout and
    `synchronous=FULL` apply.
    """

    SchemaEditorClass = SchemaEditor

    def __init__(self, settings_dict: dict[str, Any], alias: str = "default") -> None:
        super().__init__(settings_dict, alias)
        self.sync_on_commit = True  # whether COMMIT returns only after the WAL is on the disk
        self._write_lock: WriteLock | None = None  # acquired while a transaction is open

    def get_new_connection(self, conn_params: dict[str, Any]) -> sqlite3.Connection:
        """Connect, and define the function that PostgreSQL has for the current time (ADR 66)."""
        connection: sqlite3.Connection = super().get_new_connection(conn_params)
        connection.create_function("statement_timestamp", -1, _statement_timestamp)
        return connection

    # django-stubs omits Django's private methods.
    def _start_transaction_under_autocommit(self) -> None:
        lock = WriteLock(self._file)
        timeout = self.settings_dict["OPTIONS"]["timeout"]
        if not lock.acquire(timeout=timeout):
            raise OperationalError(
                f"database is locked: another transaction has been writing for {timeout} seconds"
            )
        self._write_lock = lock
        try:
            with self.wrap_database_errors:
                self.connection.execute("PRAGMA synchronous=NORMAL")
                self.connection.execute("BEGIN IMMEDIATE")
            _translated(_wal(self._file).open)
        except BaseException:
            if self.connection.in_transaction:
                self.connection.rollback()
            self._release_write_lock()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        # Not after a failed commit: its transaction is still open, and Django rolls it back next.
        if self._write_lock is not None:
            self._release_write_lock()
            if self.sync_on_commit:
                _translated(lambda: _wal(self._file).sync(self._checkpoint))

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._release_write_lock()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._release_write_lock()

    def _release_write_lock(self) -> None:
        if self._write_lock is not None:
            self._write_lock.release()
            self._write_lock = None
            if self.connection is not None:
                # Django does not report commits of single statements, so SQLite itself must sync those.
                self.connection.execute("PRAGMA synchronous=FULL")

    def _checkpoint(self) -> bool:
        """Copy the whole WAL into the database file and sync it. False while others read or write."""
        with self.wrap_database_errors:
            busy, frames, _ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy and frames >= 0  # -1: the database is not in WAL mode

    @property
    def _file(self) -> Path:
        # Not stored in __init__: tests rename the database after the connection object was made.
        return _path(str(self.settings_dict["NAME"]))


def _statement_timestamp(later: float = 0.0) -> str:
    """The time of this machine, or so many seconds later, in the form in which Django stores it."""
    return str(datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=later))


def _translated(action: Callable[[], None]) -> None:
    """Run `action`; an OSError becomes Django's OperationalError."""
    try:
        action()
    except OSError as error:
        raise OperationalError(f"disk I/O error: {error}") from error


@lru_cache(maxsize=8)
def _path(name: str) -> Path:
    return Path(name)


@lru_cache(maxsize=8)
def _wal(database: Path) -> WalSync:
    return WalSync(database)


# Linux reports a write-back error once per open file description, which a fork would share with its parent.
os.register_at_fork(after_in_child=_wal.cache_clear)
