"""Django's PostgreSQL backend, which waits for the server as seldom as it can."""

from collections.abc import Sequence
from select import POLLIN, poll
from types import TracebackType
from typing import Any, Final

from django.db.backends.postgresql import base, schema
from django.db.utils import DatabaseErrorWrapper, OperationalError
from django.utils.functional import cached_property
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction

from registry_control.db.postgresql import timeouts
from registry_control.db.postgresql.statements import Connection, Rows, Statements
from registry_control.db.schema import AtomicMigrationRecord

# Internal errors to psycopg and to Django, but no fault of ours: a later session can do what this one cannot.
_OF_THE_SESSION: Final = (ReadOnlySqlTransaction, IdleInTransactionSessionTimeout)


class _Errors(DatabaseErrorWrapper):
    """Makes Django's errors of psycopg's."""

    wrapper: "DatabaseWrapper"

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc_value, _OF_THE_SESSION):
            self.wrapper.is_spent = True
            raise OperationalError(*exc_value.args).with_traceback(traceback) from exc_value
        super().__exit__(exc_type, exc_value, traceback)


class SchemaEditor(AtomicMigrationRecord, schema.DatabaseSchemaEditor):
    """Makes tables."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection."""

    SchemaEditorClass = SchemaEditor
    _statements = Statements()
    is_spent = False  # whether the next use case needs another one

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Connect; nothing is prepared there yet."""
        self._statements = Statements()
        self.is_spent = False
        connection: Connection = super().get_new_connection(conn_params)
        return connection

    def init_connection_state(self) -> None:
        """See that nobody waits for ever on the new connection, or for it."""
        super().init_connection_state()
        timeouts.limit(self.connection)

    def prepare_database(self) -> None:
        """Before migrations: let them wait for others, who may be migrating too, for as long as it takes."""
        super().prepare_database()
        self.ensure_connection()
        with self.wrap_database_errors:
            timeouts.free(self.connection)

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """What turns the driver's errors into Django's."""
        return _Errors(self)

    def query(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one of the hand-written statements on the connection, which stands; all of its rows.

        Raises:
            psycopg.Error: as a cursor does.
        """
        return self._statements.run(self.connection, sql, parameters)

    def execute(self, sql: str, parameters: Sequence[Any]) -> None:
        """Run one whose rows nobody needs: in a transaction not before the next one, or its commit.

        Raises:
            psycopg.Error: as a cursor does, but it may be the next statement that does.
        """
        if self.in_atomic_block:
            self._statements.defer(self.connection, sql, parameters)
        else:
            self._statements.run(self.connection, sql, parameters)

    def create_cursor(self, name: str | None = None) -> Any:  # noqa: ANN401 - Django's own kinds
        """Make a cursor; what it does comes after what was done before."""
        self._statements.flush(self.connection)
        return super().create_cursor(name)

    # The stubs leave out what Django calls private.
    def _commit(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                self._statements.flush(self.connection, commit=True)
        super()._commit()  # type: ignore[misc]

    def _rollback(self) -> None:
        self._statements.forget()
        super()._rollback()  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Whether the connection still stands.

        A server that ends one says so on it, or its kernel does, and says nothing else while it rests. So
        only where something has come must it be asked, which took every use case a turn to it and back.
        A session that may not write goes on saying so after its server takes changes again.
        """
        if self.is_spent:
            return False
        here = self.connection
        if here is not None and not here.closed and not _has_come(here.fileno()):
            return True
        return super().is_usable()


def _has_come(descriptor: int) -> bool:
    """Whether there is something to read, the end included."""
    waiting = poll()
    waiting.register(descriptor, POLLIN)
    return bool(waiting.poll(0))
