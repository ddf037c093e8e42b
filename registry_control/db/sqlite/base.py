"""Django's SQLite backend: transactions take turns (`turns`) and wait for the disk after that (`wal`)."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base, schema
from django.db.utils import OperationalError

from registry_control.db.schema import AtomicMigrationRecord
from registry_control.db.sqlite.wal_sync import WalSync
from registry_control.db.sqlite.write_lock import WriteLock


class SchemaEditor(AtomicMigrationRecord, schema.DatabaseSchemaEditor):
    """Makes tables."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection. Statements outside of transactions rely on SQLite's own waiting, as ever."""

    SchemaEditorClass = SchemaEditor

    def __init__(self, settings_dict: dict[str, Any], alias: str = "default") -> None:
        super().__init__(settings_dict, alias)
        self.sync_on_commit = True  # whether a commit does, before it returns
        self._turn: WriteLock | None = None

    # The stubs leave out what Django calls private.
    def _start_transaction_under_autocommit(self) -> None:
        turn = WriteLock(self._file)
        timeout = self.settings_dict["OPTIONS"]["timeout"]
        if not turn.take(timeout=timeout):
            raise OperationalError(f"database is locked: nobody let us write for {timeout} seconds")
        self._turn = turn
        try:
            with self.wrap_database_errors:
                self.connection.execute("PRAGMA synchronous=NORMAL")
                self.connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._end_turn()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        # Not after a failure: the transaction is still open then, and a rollback follows.
        if self._turn is not None:
            self._end_turn()
            if self.sync_on_commit:
                self._sync()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.give()
            self._turn = None
            if self.connection is not None:
                # Nobody tells us of commits of single statements: SQLite itself waits for those.
                self.connection.execute("PRAGMA synchronous=FULL")

    def _sync(self) -> None:
        try:
            _log(self._file).sync(self._checkpoint)
        except OSError as error:
            raise OperationalError(f"disk I/O error: {error}") from error

    def _checkpoint(self) -> bool:
        """Bring all of the log into the database file, durably; False while others read or write."""
        with self.wrap_database_errors:
            busy, frames, _ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy and frames >= 0  # -1: there is no log, so nothing keeps it either

    @property
    def _file(self) -> Path:
        # Asked for anew: tests give the database another name after this object is made.
        return _path(str(self.settings_dict["NAME"]))


@lru_cache(maxsize=8)
def _path(name: str) -> Path:
    return Path(name)


@lru_cache(maxsize=8)
def _log(database: Path) -> WalSync:
    return WalSync(database)


# A file that is open in both is told of an error once for both.
os.register_at_fork(after_in_child=_log.cache_clear)
