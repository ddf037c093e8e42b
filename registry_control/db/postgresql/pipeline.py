"""One connection to PostgreSQL in pipeline mode, for the queries of an event loop (ADR 24).

The loop sends queries without waiting for the results of earlier ones; the server answers in order. Queries
sent in one iteration of the loop go out together and form one transaction.
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

from registry_control.db.postgresql.prepared import (
    SUCCESS,
    Connection,
    PreparedStatements,
    Statement,
    bind,
    rows_of,
)
from registry_control.db.postgresql.prepared import Rows as Rows  # re-exported for callers

logger = logging.getLogger(__name__)

_RESULT_TIMEOUT: Final = 5.0  # seconds without a result after which the connection is considered lost
# The connection ended, the server is out of resources, or a preparation was rolled back: the same query can
# succeed on another connection.
_RETRYABLE: Final = (psycopg.OperationalError, psycopg.errors.InvalidSqlStatementName)
_RECONNECT_DELAY: Final = 1.0  # seconds


class ConnectionUnavailable(Exception):
    """There is no connection at the moment, or it was lost before the result came."""


@dataclass(slots=True)
class _Command:
    """A command sent to the server. It has no future if it only prepares a statement."""

    statement: Statement
    sent_at: float  # on the loop's clock
    future: asyncio.Future[Rows] | None
    result: pq.abc.PGresult | None = None


class Pipeline:
    """Queries and their results. Belongs to the event loop that calls `ask` first."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """`connect` may block: it runs in a thread."""
        self.generation = 0  # changes before `ask` can use another connection, perhaps to another server
        self._open_connection = connect
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._socket = -1
        self._is_writing = False
        self._is_flush_scheduled = False  # a query was sent in this iteration of the loop
        self._pending: deque[_Command] = deque()
        self._prepared = PreparedStatements()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, sql: str, parameters: Sequence[Any]) -> asyncio.Future[Rows]:
        """Send a query with `%s` for its parameters and no other per cent sign.

        The future's result is all rows. Its exception is psycopg's error for this query, or
        ConnectionUnavailable if the query can be repeated on another connection.

        Raises:
            ConnectionUnavailable: not connected yet; connecting has begun.
            psycopg.Error: a parameter has a type or value that PostgreSQL cannot represent.
        """
        loop = asyncio.get_running_loop()
        if self._connection is None:
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
            raise ConnectionUnavailable
        bound = bind(self._connection, sql, parameters)
        future: asyncio.Future[Rows] = loop.create_future()
        try:
            results = self._prepared.send(self._connection.pgconn, bound)
        except psycopg.Error as error:
            self._drop()
            raise ConnectionUnavailable from error
        if results > 1:
            self._pending.append(_Command(bound.statement, loop.time(), None))
        self._pending.append(_Command(bound.statement, loop.time(), future))
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """End the transaction of this iteration's queries and send them."""
        self._is_flush_scheduled = False
        if self._connection is None:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_RESULT_TIMEOUT, self._check_timeout)
        try:
            self._connection.pgconn.pipeline_sync()
            self._write(self._connection.pgconn)
        except psycopg.Error:
            self._drop()

    def _write(self, pgconn: pq.abc.PGconn) -> None:
        """Send buffered data: now, and the rest when the socket becomes writable."""
        loop = asyncio.get_running_loop()
        is_left = pgconn.flush() != 0
        if is_left and not self._is_writing:
            loop.add_writer(self._socket, self._on_writable, pgconn)
        elif self._is_writing and not is_left:
            loop.remove_writer(self._socket)
        self._is_writing = is_left

    def _on_writable(self, pgconn: pq.abc.PGconn) -> None:
        try:
            self._write(pgconn)
        except psycopg.Error:
            self._drop()

    def _on_readable(self, pgconn: pq.abc.PGconn) -> None:
        try:
            pgconn.consume_input()
            while self._pending and not pgconn.is_busy():
                self._receive(pgconn.get_result())
        except psycopg.Error:
            self._drop()
            return
        if not self._pending and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _receive(self, result: pq.abc.PGresult | None) -> None:
        """Assign a result to the oldest command.

        libpq returns None after the results of each command, and PIPELINE_SYNC after each transaction.
        """
        command = self._pending[0]
        if result is not None:
            if result.status != pq.ExecStatus.PIPELINE_SYNC:
                command.result = result
        elif command.result is not None:
            self._pending.popleft()
            self._resolve(command, command.result)

    def _resolve(self, command: _Command, result: pq.abc.PGresult) -> None:
        if result.status not in SUCCESS:
            self._prepared.forget(command.statement)
        if command.future is None or command.future.done():  # done: its request was cancelled
            return
        if result.status in SUCCESS:
            assert self._connection is not None  # noqa: S101 - the result came from it
            command.future.set_result(rows_of(result, self._connection))
        elif result.status == pq.ExecStatus.PIPELINE_ABORTED:  # an earlier query of its transaction failed
            command.future.set_exception(ConnectionUnavailable())
        else:
            error = psycopg.errors.error_from_result(result)
            command.future.set_exception(ConnectionUnavailable() if isinstance(error, _RETRYABLE) else error)

    def _check_timeout(self) -> None:
        self._timer = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        left = self._pending[0].sent_at + _RESULT_TIMEOUT - loop.time()
        if left <= 0:
            self._drop()
        else:
            self._timer = loop.call_later(left, self._check_timeout)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, self._socket = await loop.run_in_executor(None, self._open_pipeline)
        except (
            psycopg.Error,
            OSError,
        ):  # callers then use a thread's connection, which reports it
            await asyncio.sleep(_RECONNECT_DELAY)
        else:
            self._connection = connection
            loop.add_reader(self._socket, self._on_readable, connection.pgconn)
        finally:
            self._connecting = None

    def _open_pipeline(self) -> tuple[Connection, int]:
        """A new connection and a duplicate of its socket: libpq closes the original without notice."""
        connection = self._open_connection()
        try:
            connection.autocommit = True
            connection.pgconn.nonblocking = 1
            connection.pgconn.enter_pipeline_mode()
            return connection, os.dup(connection.pgconn.socket)
        except BaseException:
            connection.close()
            raise

    def _drop(self) -> None:
        """Close a failed connection; the next query opens another one."""
        logger.warning("the pipeline connection to PostgreSQL was lost; reconnecting")
        self.close()

    def close(self) -> None:
        """Close the connection. Pending queries fail with ConnectionUnavailable."""
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        os.close(self._socket)
        self._connection.close()
        self._connection, self._is_writing = None, False
        self.generation += 1
        self._prepared.forget_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, deque()
        for command in pending:
            if command.future is not None and not command.future.done():
                command.future.set_exception(ConnectionUnavailable())
