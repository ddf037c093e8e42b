"""Django's PostgreSQL backend with prepared statements and fewer round trips (ADR 27, ADR 33)."""

from collections.abc import Sequence
from select import POLLIN, poll
from types import TracebackType
from typing import Any, Final

from django.db.backends.postgresql import base, schema
from django.db.utils import DatabaseErrorWrapper, OperationalError
from django.utils.functional import cached_property
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction

from registry_control.db.postgresql import timeouts
from registry_control.db.postgresql.prepared import Connection, Rows
from registry_control.db.postgresql.statements import StatementQueue
from registry_control.db.schema import AtomicMigrationRecord

# psycopg and Django class these as internal errors. They concern the session: a new one can succeed.
_SESSION_ERRORS: Final = (ReadOnlySqlTransaction, IdleInTransactionSessionTimeout)


class _ErrorWrapper(DatabaseErrorWrapper):
    """Translates psycopg's errors to Django's; errors of the session become OperationalError."""

    wrapper: "DatabaseWrapper"

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc_value, _SESSION_ERRORS):
            self.wrapper.must_reconnect = True
            raise OperationalError(*exc_value.args).with_traceback(traceback) from exc_value
        super().__exit__(exc_type, exc_value, traceback)


class SchemaEditor(AtomicMigrationRecord, schema.DatabaseSchemaEditor):
    """PostgreSQL's schema editor, which records a migration in the migration's own transaction."""


class DatabaseWrapper(base.DatabaseWrapper):
    """Connection to PostgreSQL."""

    SchemaEditorClass = SchemaEditor
    _statements = StatementQueue()
    must_reconnect = False  # whether the next health check replaces the connection

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Connect, with an empty queue and no prepared statements."""
        self._statements = StatementQueue()
        self.must_reconnect = False
        connection: Connection = super().get_new_connection(conn_params)
        return connection

    def init_connection_state(self) -> None:
        """Set the timeouts on a new connection."""
        super().init_connection_state()
        timeouts.apply(self.connection)

    def prepare_database(self) -> None:
        """Remove the timeouts before migrations: another node may be migrating, for any length of time."""
        super().prepare_database()
        self.ensure_connection()
        with self.wrap_database_errors:
            timeouts.disable(self.connection)

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """Context manager that translates the driver's errors to Django's."""
        return _ErrorWrapper(self)

    def query(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run a hand-written statement on the open connection and return its rows.

        Raises:
            psycopg.Error: the server rejects it or a queued statement, or the connection is lost.
        """
        return self._statements.run(self.connection, sql, parameters)

    def query_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Rows]:
        """Run several hand-written statements in one round trip, and return the rows of each.

        Raises:
            psycopg.Error: as `query`.
        """
        return self._statements.run_all(self.connection, statements)

    def execute(self, sql: str, parameters: Sequence[Any]) -> None:
        """Run a hand-written statement without rows. In a transaction it is only queued (ADR 27).

        Raises:
            psycopg.Error: as `query`; in a transaction only for a parameter without representation, and
                errors of the server surface at a later statement or at the commit.
        """
        if self.in_atomic_block:
            self._statements.defer(self.connection, sql, parameters)
        else:
            self._statements.run(self.connection, sql, parameters)

    def create_cursor(self, name: str | None = None) -> Any:  # noqa: ANN401 - Django returns several types
        """Make a cursor, after queued statements were sent: its statements come after them."""
        self._statements.flush(self.connection)
        return super().create_cursor(name)

    # django-stubs omits Django's private methods.
    def _commit(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                self._statements.flush(self.connection, commit=True)
        super()._commit()  # type: ignore[misc]

    def _rollback(self) -> None:
        self._statements.clear()
        super()._rollback()  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Whether the connection works, without a round trip in the usual case.

        An idle connection's socket becomes readable only when the server closed it or sent an error; poll(2)
        detects that. A read-only session of a failed-over server stays read-only, hence `must_reconnect`.
        """
        if self.must_reconnect:
            return False
        connection = self.connection
        if connection is not None and not connection.closed and not _is_readable(connection.fileno()):
            return True
        return super().is_usable()


def _is_readable(descriptor: int) -> bool:
    """Whether a read would return at once: with data, or because the peer closed the socket."""
    server = poll()
    server.register(descriptor, POLLIN)
    return bool(server.poll(0))
