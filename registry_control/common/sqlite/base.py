"""Django's SQLite backend, whose transactions take turns (see `turns`)."""

from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from registry_control.common.sqlite.turns import Turn


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection. Statements outside of transactions rely on SQLite's own waiting, as ever."""

    def __init__(self, settings_dict: dict[str, Any], alias: str = "default") -> None:
        super().__init__(settings_dict, alias)
        self._turn: Turn | None = None

    # The stubs leave out what Django calls private.
    def _start_transaction_under_autocommit(self) -> None:
        # Tests give the database another name after this object is made.
        turn = Turn(Path(self.settings_dict["NAME"]))
        timeout = self.settings_dict["OPTIONS"]["timeout"]
        if not turn.take(timeout=timeout):
            raise OperationalError(f"database is locked: nobody let us write for {timeout} seconds")
        self._turn = turn
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._give_turn()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        # Not after a failure: the transaction is still open then, and a rollback follows.
        self._give_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._give_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._give_turn()

    def _give_turn(self) -> None:
        if self._turn is not None:
            self._turn.give()
            self._turn = None
