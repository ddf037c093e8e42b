"""Whether the database is still what it was when an answer was made (invariant 5).

A stamp stands for one state of the whole database: two equal stamps mean that nothing was committed in
between, by any process on any node. So an answer kept with its stamp is never older than the truth; asking
for a stamp costs a fraction of the queries that it saves.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Final, Generic, NewType, Protocol, TypeVar

from registry_control.db.postgresql.pipeline import ConnectionUnavailable as ConnectionUnavailable
from registry_control.db.postgresql.pipeline import Pipeline as Pipeline
from registry_control.db.postgresql.pipeline import Rows as Rows

DatabaseVersion = NewType("DatabaseVersion", str)
K = TypeVar("K")
V = TypeVar("V")


class VersionSource(Protocol):
    """Where stamps come from."""

    async def now(self) -> DatabaseVersion | None:
        """The stamp of this moment; None when it cannot be had, and nothing kept may be used."""
        ...

    def close(self) -> None:
        """Let the database go."""
        ...


class VersionedCache(Generic[K, V]):
    """What is true in one state of the database. What was true in the one before goes all at once."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is in bytes, and so are the sizes that values are said to have."""
        self._capacity = self._left = capacity
        self._stamp: DatabaseVersion | None = None
        self._kept: dict[K, V] = {}

    def get(self, key: K, stamp: DatabaseVersion | None) -> V | None:
        """What was kept in the state that has just been found."""
        if stamp is None or stamp != self._stamp:
            self._clear(stamp)
            return None
        return self._kept.get(key)

    def put(self, key: K, stamp: DatabaseVersion | None, value: V, size: int) -> None:
        """Keep what was found out after the stamp was taken, unless that state has passed."""
        if stamp is None or stamp != self._stamp:
            return
        if self._left < size:
            self._clear(stamp)
        if key not in self._kept:
            self._left -= size
        self._kept[key] = value

    def _clear(self, stamp: DatabaseVersion | None) -> None:
        self._kept.clear()
        self._left = self._capacity
        self._stamp = stamp


class SqliteVersionSource:
    """`PRAGMA data_version` of a connection that never writes: every commit is another's, so it shows.

    Requests that wait in one turn of the event loop share a stamp: it is taken after all of them came.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._is_known = False
        self._stamp: DatabaseVersion | None = None

    async def now(self) -> DatabaseVersion | None:
        """Read the version, from memory that all processes share: still a quarter of a kept answer's cost."""
        if not self._is_known:
            # Before the version is read: whoever comes after this call waits behind it, and so reads anew.
            asyncio.get_running_loop().call_soon(self._forget)
            self._is_known, self._stamp = True, self._read()
        return self._stamp

    def _forget(self) -> None:
        self._is_known = False

    def _read(self) -> DatabaseVersion | None:
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:  # whoever goes on to the tables will say what is wrong
            return None
        return DatabaseVersion(str(version))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresVersionSource:
    """`pg_current_snapshot()`: equal snapshots see the same rows.

    Requests that come while a question is on its way share the next one: so a busy process asks once for
    many of them, and each still gets a snapshot that was taken after it came.
    """

    _QUESTION: Final = "SELECT pg_current_snapshot()::text"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._asking: list[asyncio.Future[DatabaseVersion | None]] = []
        self._waiting: list[asyncio.Future[DatabaseVersion | None]] = []

    async def now(self) -> DatabaseVersion | None:
        """Ask, or wait for the next question that somebody asks for all."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[DatabaseVersion | None] = loop.create_future()
        if not self._asking and not self._waiting:
            loop.call_soon(self._ask)  # not at once: requests that came together ask together
        self._waiting.append(mine)
        return await mine

    def _ask(self) -> None:
        self._asking, self._waiting = self._waiting, []
        try:
            answer = self._pipeline.ask(self._QUESTION, ())
        except ConnectionUnavailable:
            self._tell(None)
        else:
            answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[Rows]) -> None:
        self._tell(None if answer.exception() is not None else DatabaseVersion(answer.result()[0][0]))
        if self._waiting:
            self._ask()

    def _tell(self, stamp: DatabaseVersion | None) -> None:
        asked, self._asking = self._asking, []
        for future in asked:
            if not future.done():
                future.set_result(stamp)

    def close(self) -> None:
        """Close the connection."""
        self._pipeline.close()
