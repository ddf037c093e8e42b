"""Runs hand-written statements on one connection with as few round trips as possible (ADR 27).

A statement whose result the caller does not need is queued and sent together with the next statement whose
result is needed. Statements go to libpq directly: psycopg's cursors take longer over a statement than the
server does, and a push runs a dozen in one transaction.
"""

from collections.abc import Sequence
from select import POLLIN, POLLOUT, poll
from typing import Any, Final

import psycopg
from psycopg import pq

from registry_control.db.postgresql.prepared import (
    SUCCESS,
    BoundStatement,
    Connection,
    PreparedStatements,
    Rows,
    bind,
    rows_of,
)

_BEGIN: Final = BoundStatement(("BEGIN", ()), (), None)
_COMMIT: Final = BoundStatement(("COMMIT", ()), (), None)


class StatementQueue:
    """Statements of one connection that are queued or run. Not thread-safe, like the connection.

    Statements sent together fail together: after an error the transaction has to be rolled back.
    """

    def __init__(self) -> None:
        self._prepared = PreparedStatements()
        self._queued: list[BoundStatement] = []

    def defer(self, connection: Connection, sql: str, parameters: Sequence[Any]) -> None:
        """Queue a statement, to be sent before the next one of its transaction.

        Raises:
            psycopg.Error: a parameter has no representation. Errors of the server surface at a later call.
        """
        self._queued.append(bind(connection, sql, parameters))

    def run(self, connection: Connection, sql: str, parameters: Sequence[Any]) -> Rows:
        """Send the queue and then this statement, and return this statement's rows.

        Like a psycopg cursor, it begins a transaction unless the connection is in autocommit mode.

        Raises:
            psycopg.Error: the server rejects one of them, or the connection is lost.
        """
        last = bind(connection, sql, parameters)
        name = self._prepared.name(last.statement)
        begins = _begins(connection)
        if self._queued or begins or name is None:
            *_, result = self._send(connection, [*self._take_queue(), last], begins=begins)
        else:
            result = connection.pgconn.exec_prepared(name, last.values, last.formats, pq.Format.BINARY)
            self._check(connection.pgconn, result)
        return rows_of(result, connection)

    def run_all(self, connection: Connection, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Rows]:
        """Send the queue and then these statements together, and return the rows of each of them.

        Raises:
            psycopg.Error: as `run`.
        """
        bound = [bind(connection, sql, parameters) for sql, parameters in statements]
        results = self._send(connection, [*self._take_queue(), *bound], begins=_begins(connection))
        return [rows_of(result, connection) for result in results[-len(bound) :]]

    def flush(self, connection: Connection, *, commit: bool = False) -> None:
        """Send the queue; with `commit`, followed by COMMIT. An empty queue sends nothing.

        Raises:
            psycopg.Error: the server rejects a statement, or the connection is lost.
        """
        if self._queued:
            queued = self._take_queue()
            self._send(connection, [*queued, _COMMIT] if commit else queued, begins=_begins(connection))

    def clear(self) -> None:
        """Drop the queue, because its transaction is rolled back."""
        self._queued.clear()

    def _take_queue(self) -> list[BoundStatement]:
        queued, self._queued = self._queued, []
        return queued

    def _send(
        self, connection: Connection, statements: Sequence[BoundStatement], *, begins: bool
    ) -> list[pq.abc.PGresult]:
        """Send statements in one pipeline, wait for all results, and return those of the statements."""
        pgconn = connection.pgconn
        last: list[int] = []  # per statement: the position of its result, which follows that of a preparation
        pgconn.enter_pipeline_mode()
        try:
            for each in [_BEGIN, *statements] if begins else statements:
                last.append((last[-1] if last else -1) + self._prepared.send(pgconn, each))
            pgconn.pipeline_sync()
            results = _results(pgconn)
        finally:
            if pgconn.status == pq.ConnStatus.OK:
                pgconn.exit_pipeline_mode()
        for result in results:
            self._check(pgconn, result)
        return [results[position] for position in last[begins:]]

    def _check(self, pgconn: pq.abc.PGconn, result: pq.abc.PGresult) -> None:
        if result.status in SUCCESS:
            return
        # One of them may be stale on the server, or was not prepared because an earlier one failed.
        self._prepared.forget_all()
        if pgconn.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError(
                f"the connection to PostgreSQL was lost: {pgconn.get_error_message()}"
            )
        raise psycopg.errors.error_from_result(result)


def _begins(connection: Connection) -> bool:
    """Whether psycopg would begin a transaction with the next statement."""
    return not connection.autocommit and connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _results(pgconn: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    """All results up to the end of the pipeline. Waits in poll(2), which releases Python's global lock."""
    results: list[pq.abc.PGresult] = []
    server, unsent = poll(), pgconn.flush()
    while True:
        while unsent or pgconn.is_busy():
            server.register(pgconn.socket, POLLIN | POLLOUT if unsent else POLLIN)
            server.poll()
            pgconn.consume_input()
            unsent = pgconn.flush()
        result = pgconn.get_result()
        if result is not None:
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)
