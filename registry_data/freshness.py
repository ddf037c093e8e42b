"""Whether the database is still what it was when an answer was made (invariant 5).

A stamp stands for one state of the whole database: two equal stamps mean that nothing was committed in
between, by any process on any node. So an answer kept with its stamp is never older than the truth; asking
for a stamp costs a fraction of the queries that it saves.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NewType, Protocol, TypeAlias

import psycopg
from psycopg import pq

logger = logging.getLogger(__name__)

Stamp = NewType("Stamp", bytes)
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_PATIENCE: Final = 5.0  # seconds that an answer may take until the connection counts as lost
_PAUSE: Final = 1.0  # seconds between attempts to connect


class Stamps(Protocol):
    """Where stamps come from."""

    async def now(self) -> Stamp | None:
        """The stamp of this moment; None when it cannot be had, and nothing kept may be used."""
        ...

    def close(self) -> None:
        """Let the database go."""
        ...


class SqliteStamps:
    """`PRAGMA data_version` of a connection that never writes: every commit is another's, so it shows."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    async def now(self) -> Stamp | None:
        """Read the version: microseconds, from memory that all processes share."""
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:  # whoever goes on to the tables will say what is wrong
            return None
        return Stamp(b"%d" % version)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresStamps:
    """`pg_current_snapshot()`: equal snapshots see the same rows.

    Requests that come while a question is on its way share the next one: so a busy process asks once for
    many of them, and each still gets a snapshot that was taken after it came.
    """

    _NAME: Final = b"stamp"
    _QUESTION: Final = b"SELECT pg_current_snapshot()::text"

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect_now = connect
        self._connection: Connection | None = None
        self._socket = -1
        self._connecting: asyncio.Task[None] | None = None
        self._asking: list[asyncio.Future[Stamp | None]] = []
        self._waiting: list[asyncio.Future[Stamp | None]] = []
        self._alarm: asyncio.TimerHandle | None = None

    async def now(self) -> Stamp | None:
        """Ask, or wait for the next question that somebody asks for all."""
        loop = asyncio.get_running_loop()
        if self._connection is None:
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
            return None
        mine: asyncio.Future[Stamp | None] = loop.create_future()
        if not self._asking and not self._waiting:
            loop.call_soon(self._ask)  # not at once: requests that came together ask together
        self._waiting.append(mine)
        return await mine

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(None, self._prepared)
        except psycopg.Error:  # the queries that are asked instead will say what is wrong
            await asyncio.sleep(_PAUSE)
        else:
            self._connection = connection
            # A socket of our own: when the connection is lost, its own is closed behind the loop's back.
            self._socket = os.dup(connection.pgconn.socket)
            loop.add_reader(self._socket, self._readable, connection.pgconn)
        finally:
            self._connecting = None

    def _prepared(self) -> Connection:
        connection = self._connect_now()
        connection.autocommit = True
        connection.pgconn.prepare(self._NAME, self._QUESTION)
        connection.pgconn.nonblocking = 1
        return connection

    def _ask(self) -> None:
        self._asking, self._waiting = self._waiting, []
        if self._connection is None or not self._asking:  # lost since, or told so meanwhile
            self._tell(None)
            return
        self._alarm = asyncio.get_running_loop().call_later(_PATIENCE, self._lose)
        try:
            self._connection.pgconn.send_query_prepared(self._NAME, None)
            self._connection.pgconn.flush()
        except psycopg.Error:
            self._lose()

    def _readable(self, pgconn: pq.abc.PGconn) -> None:
        try:
            pgconn.consume_input()
            if pgconn.is_busy():
                return
            stamp = _answer(pgconn)
        except psycopg.Error:
            self._lose()
            return
        if stamp is None and self._asking:
            self._lose()
        elif stamp is not None:
            self._tell(stamp)
            if self._waiting:
                self._ask()

    def _tell(self, stamp: Stamp | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        asked, self._asking = self._asking, []
        for future in asked:
            if not future.done():
                future.set_result(stamp)

    def _lose(self) -> None:
        """Give the connection up; the next request begins a new one."""
        logger.warning("the connection that asks PostgreSQL for its state was lost; a new one is made")
        self.close()
        self._tell(None)
        self._asking, self._waiting = self._waiting, []
        self._tell(None)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            os.close(self._socket)
            self._connection.close()
            self._connection = None


def _answer(pgconn: pq.abc.PGconn) -> Stamp | None:
    """The value of the answer that has arrived whole, None if there is none."""
    stamp = None
    while (result := pgconn.get_result()) is not None:
        if result.status != pq.ExecStatus.TUPLES_OK:
            return None
        stamp = Stamp(result.get_value(0, 0) or b"")
    return stamp
