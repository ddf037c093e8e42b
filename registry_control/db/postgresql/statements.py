"""Prepared statements as libpq takes them, and as few waits for the server as there are answers to wait for.

psycopg's cursors take longer over a statement than the server does, and a transaction of a push has a dozen.
Statements whose answer nobody needs are sent together with the next one whose answer somebody does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from select import POLLIN, POLLOUT, poll
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Rows: TypeAlias = list[tuple[Any, ...]]
Statement: TypeAlias = tuple[str, tuple[int, ...]]
"""Its text, with `%s` for parameters and no other per cent sign, and the types of the parameters."""

GOOD: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


def numbered(sql: str) -> bytes:
    """The same statement with PostgreSQL's own placeholders."""
    first, *others = sql.split("%s")
    return (first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))).encode()


def rows_of(result: pq.abc.PGresult, connection: Connection) -> Rows:
    """What a result in binary form holds."""
    adapting = Transformer(connection)
    adapting.set_pgresult(result)
    return adapting.load_rows(0, result.ntuples, tuple)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A statement with its parameters, as the server takes it."""

    statement: Statement
    values: Sequence[Any]
    formats: Sequence[pq.Format] | None


# Lists come in all lengths, and each length is another statement, which the server would keep: so long ones
# are not prepared.
_MOST_PARAMETERS: Final = 64


class Statements:
    """The statements of one connection: those it has prepared, and those that wait to be sent.

    Like the connection, for one thread at a time. What is sent together stands or falls together: after an
    error the transaction is over.
    """

    def __init__(self) -> None:
        self._names: dict[Statement, bytes] = {}
        self._named = 0
        self._waiting: list[_Bound] = []

    def defer(self, connection: Connection, sql: str, parameters: Sequence[Any]) -> None:
        """Have a statement run before the next one of its transaction.

        Raises:
            psycopg.Error: a parameter that no statement can have. What the server says comes later.
        """
        self._waiting.append(_bound(connection, sql, parameters))

    def run(self, connection: Connection, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run what waits and then this statement, in a transaction unless the connection commits by itself.

        Raises:
            psycopg.Error: as a cursor does.
        """
        last = _bound(connection, sql, parameters)
        pgconn = connection.pgconn
        begins = _begins(connection)
        if self._waiting or begins or last.statement not in self._names:
            result = self._together(connection, [*self._taken(), last], begins=begins)
        else:
            result = pgconn.exec_prepared(
                self._names[last.statement], last.values, last.formats, pq.Format.BINARY
            )
            self._check(pgconn, result)
        return rows_of(result, connection)

    def flush(self, connection: Connection, *, commit: bool = False) -> None:
        """Run what waits, if anything does; and commit then.

        Raises:
            psycopg.Error: as a cursor does.
        """
        if self._waiting:
            waiting = self._taken()
            self._together(connection, [*waiting, _COMMIT] if commit else waiting, begins=_begins(connection))

    def forget(self) -> None:
        """Drop what waits: its transaction is rolled back."""
        self._waiting.clear()

    def _taken(self) -> list[_Bound]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _together(
        self, connection: Connection, statements: Sequence[_Bound], *, begins: bool
    ) -> pq.abc.PGresult:
        """Send statements at once, wait for all of them, and return the last one's result."""
        pgconn = connection.pgconn
        bound = [_BEGIN, *statements] if begins else statements
        pgconn.enter_pipeline_mode()
        try:
            for each in bound:
                self._send(pgconn, each)
            pgconn.pipeline_sync()
            results = _results(pgconn)
        finally:
            if pgconn.status == pq.ConnStatus.OK:
                pgconn.exit_pipeline_mode()
        for result in results:
            self._check(pgconn, result)
        return results[-1]

    def _send(self, pgconn: pq.abc.PGconn, bound: _Bound) -> None:
        """Send one, prepared before if it has never been."""
        if len(bound.values) > _MOST_PARAMETERS:
            sql, types = bound.statement
            pgconn.send_query_params(numbered(sql), bound.values, types, bound.formats, pq.Format.BINARY)
            return
        name = self._names.get(bound.statement)
        if name is None:
            self._named += 1
            name = self._names[bound.statement] = b"hot_%d" % self._named
            pgconn.send_prepare(name, numbered(bound.statement[0]), bound.statement[1])
        pgconn.send_query_prepared(name, bound.values, bound.formats, pq.Format.BINARY)

    def _check(self, pgconn: pq.abc.PGconn, result: pq.abc.PGresult) -> None:
        if result.status in GOOD:
            return
        self._names.clear()  # one of them may be what is wrong, or was not prepared after all
        if pgconn.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError(f"the connection was lost: {pgconn.get_error_message()}")
        raise psycopg.errors.error_from_result(result)


_BEGIN: Final = _Bound(("BEGIN", ()), (), None)
_COMMIT: Final = _Bound(("COMMIT", ()), (), None)


def _begins(connection: Connection) -> bool:
    """Whether the next statement begins a transaction, as psycopg would."""
    return not connection.autocommit and connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _bound(connection: Connection, sql: str, parameters: Sequence[Any]) -> _Bound:
    adapting = Transformer(connection)
    values = adapting.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
    return _Bound((sql, tuple(adapting.types or ())), values, adapting.formats)


def _results(pgconn: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    """All results up to the end of the pipeline, waiting without the interpreter's lock."""
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
