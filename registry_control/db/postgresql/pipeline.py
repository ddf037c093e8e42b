"""One connection to PostgreSQL on which the event loop asks many things without waiting in between.

The server answers in the order of the questions. What is asked in one turn of the loop is sent together and
is one transaction; statements are prepared when they first come.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

from registry_control.db.postgresql.statements import GOOD, Connection, Statement, numbered, rows_of
from registry_control.db.postgresql.statements import Rows as Rows  # for those who ask

logger = logging.getLogger(__name__)

_PATIENCE: Final = 5.0  # seconds that an answer may take until the connection counts as lost
# The connection ends, the server has no room, or a statement of an earlier turn was never made: the same
# question may be answered on another connection.
_OF_THE_SERVER: Final = (psycopg.OperationalError, psycopg.errors.InvalidSqlStatementName)
_PAUSE: Final = 1.0  # seconds between attempts to connect


class ConnectionUnavailable(Exception):
    """There is no connection just now, or it was lost before the answer came."""


@dataclass(slots=True)
class _Command:
    """One thing that the server is asked to do; its answer is for nobody when it prepares a statement."""

    statement: Statement
    asked_at: float  # on the loop's clock
    answer: asyncio.Future[Rows] | None
    result: pq.abc.PGresult | None = None


class Pipeline:
    """Questions and their answers. Belongs to the event loop that first asks."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect_now = connect
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._socket = -1
        self._is_writing = False
        self._is_in_turn = False  # something was asked in this turn of the loop
        self._open: deque[_Command] = deque()
        self._names: dict[Statement, bytes] = {}
        self._named = 0
        self._alarm: asyncio.TimerHandle | None = None

    def ask(self, sql: str, parameters: Sequence[Any]) -> asyncio.Future[Rows]:
        """Send a statement with `%s` for its parameters, and no other per cent sign.

        The future brings all rows; or psycopg's error, or `Away` when that had another cause.

        Raises:
            Away: not connected; that has begun, if it had not yet.
            psycopg.Error: a parameter that no statement can have.
        """
        loop = asyncio.get_running_loop()
        if self._connection is None:
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
            raise ConnectionUnavailable
        adapting = Transformer(self._connection)
        values = adapting.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
        statement = (sql, tuple(adapting.types or ()))
        answer: asyncio.Future[Rows] = loop.create_future()
        try:
            name = self._names.get(statement) or self._prepare(self._connection.pgconn, statement)
            self._connection.pgconn.send_query_prepared(name, values, adapting.formats, pq.Format.BINARY)
        except psycopg.Error as error:
            self._lose()
            raise ConnectionUnavailable from error
        self._open.append(_Command(statement, loop.time(), answer))
        if not self._is_in_turn:
            self._is_in_turn = True
            loop.call_soon(self._end_turn)
        return answer

    def _prepare(self, pgconn: pq.abc.PGconn, statement: Statement) -> bytes:
        self._named += 1
        name = self._names[statement] = b"statement_%d" % self._named
        pgconn.send_prepare(name, numbered(statement[0]), statement[1])
        self._open.append(_Command(statement, asyncio.get_running_loop().time(), None))
        return name

    def _end_turn(self) -> None:
        self._is_in_turn = False
        if self._connection is None:
            return
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(_PATIENCE, self._look_at_the_clock)
        try:
            self._connection.pgconn.pipeline_sync()
            self._write(self._connection.pgconn)
        except psycopg.Error:
            self._lose()

    def _write(self, pgconn: pq.abc.PGconn) -> None:
        """Send what is left to send, now or when the server takes more."""
        loop = asyncio.get_running_loop()
        left = pgconn.flush() != 0
        if left and not self._is_writing:
            loop.add_writer(self._socket, self._writable, pgconn)
        elif self._is_writing and not left:
            loop.remove_writer(self._socket)
        self._is_writing = left

    def _writable(self, pgconn: pq.abc.PGconn) -> None:
        try:
            self._write(pgconn)
        except psycopg.Error:
            self._lose()

    def _readable(self, pgconn: pq.abc.PGconn) -> None:
        try:
            pgconn.consume_input()
            while self._open and not pgconn.is_busy():
                self._take(pgconn.get_result())
        except psycopg.Error:
            self._lose()
            return
        if not self._open and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _take(self, result: pq.abc.PGresult | None) -> None:
        """Note what the oldest command gave. None follows it; the end of a turn comes between two."""
        command = self._open[0]
        if result is not None:
            if result.status != pq.ExecStatus.PIPELINE_SYNC:
                command.result = result
        elif command.result is not None:
            self._open.popleft()
            self._answer(command, command.result)

    def _answer(self, command: _Command, result: pq.abc.PGresult) -> None:
        if result.status not in GOOD:
            self._names.pop(command.statement, None)  # it may be what is wrong: it is prepared anew
        if command.answer is None or command.answer.done():  # nobody waits for it, or any more
            return
        if result.status in GOOD:
            assert self._connection is not None  # noqa: S101 - it is what gave the result
            command.answer.set_result(rows_of(result, self._connection))
        elif result.status == pq.ExecStatus.PIPELINE_ABORTED:  # another one of its turn failed
            command.answer.set_exception(ConnectionUnavailable())
        else:
            error = psycopg.errors.error_from_result(result)
            command.answer.set_exception(
                ConnectionUnavailable() if isinstance(error, _OF_THE_SERVER) else error
            )

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        if not self._open:
            return
        loop = asyncio.get_running_loop()
        left = self._open[0].asked_at + _PATIENCE - loop.time()
        if left <= 0:
            self._lose()
        else:
            self._alarm = loop.call_later(left, self._look_at_the_clock)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, self._socket = await loop.run_in_executor(None, self._prepared)
        except (psycopg.Error, OSError):  # who asks elsewhere instead will be told what is wrong
            await asyncio.sleep(_PAUSE)
        else:
            self._connection = connection
            loop.add_reader(self._socket, self._readable, connection.pgconn)
        finally:
            self._connecting = None

    def _prepared(self) -> tuple[Connection, int]:
        """A new connection, and a socket of our own: its own is closed behind the loop's back."""
        connection = self._connect_now()
        try:
            connection.autocommit = True
            connection.pgconn.nonblocking = 1
            connection.pgconn.enter_pipeline_mode()
            return connection, os.dup(connection.pgconn.socket)
        except BaseException:
            connection.close()
            raise

    def _lose(self) -> None:
        """Give the connection up; the next question begins a new one."""
        logger.warning("the connection on which PostgreSQL is asked was lost; a new one is made")
        self.close()

    def close(self) -> None:
        """Close the connection; whoever waits for an answer is told so."""
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        os.close(self._socket)
        self._connection.close()
        self._connection, self._is_writing = None, False
        self._names.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        unanswered, self._open = self._open, deque()
        for command in unanswered:
            if command.answer is not None and not command.answer.done():
                command.answer.set_exception(ConnectionUnavailable())
