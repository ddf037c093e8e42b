"""Use cases that only read run in the event loop: a hop to a thread and back costs several times a query.

Rows are kept like whole answers are (registry_data.freshness), so most reads of a registry at rest ask the
database for its state and for nothing else. What ends by the clock is told by a row and seen at each use.
"""

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from greenlet import getcurrent, greenlet

from registry_data.freshness import DatabaseVersion, Pipeline, Rows, VersionedCache

T = TypeVar("T")
QueryExecutor: TypeAlias = Callable[[str, Sequence[Any]], Rows]
UseQueryExecutor: TypeAlias = Callable[[QueryExecutor], None]
"""Has the queries of the context in which it is called answered as it is told."""

_CAPACITY: Final = 32 * 1024 * 1024  # bytes
_ROW: Final = 2048  # bytes, about
_MOST: Final = 20  # rows of one query that are kept
_LONGEST: Final = 1024  # characters of a text in them, or in what was asked


class ReadExecutor(Protocol):
    """A way to run what only reads here, in the thread of the event loop."""

    async def run(self, stamp: DatabaseVersion | None, call: Callable[[], T]) -> T:
        """Run a use case, with rows that were kept since the stamp's state, if there is a stamp.

        Raises:
            Away: the database cannot be asked in this way just now.
        """
        ...


class _KeptRows:
    """Rows of one state of the database, by statement and parameters; no contents, and no long texts."""

    def __init__(self) -> None:
        self._kept: VersionedCache[tuple[str, tuple[Any, ...]], Rows] = VersionedCache(_CAPACITY)

    def get(self, sql: str, parameters: Sequence[Any], stamp: DatabaseVersion | None) -> Rows | None:
        return self._kept.get((sql, tuple(parameters)), stamp)

    def put(self, sql: str, parameters: Sequence[Any], stamp: DatabaseVersion | None, rows: Rows) -> None:
        if stamp is None or len(rows) > _MOST:
            return
        if all(map(_is_small, parameters)) and all(_is_small(value) for row in rows for value in row):
            self._kept.put((sql, tuple(parameters)), stamp, rows, _ROW * (1 + len(rows)))


def _is_small(value: object) -> bool:
    return len(value) <= _LONGEST if isinstance(value, str) else not isinstance(value, bytes | dict)


class InlineReads:
    """Runs each from begin to end: for a database file on this machine, which never makes a reader wait."""

    def __init__(self, use_query_executor: UseQueryExecutor, query: QueryExecutor) -> None:
        """`query` asks the database itself."""
        self._let_answer = use_query_executor
        self._query = query
        self._rows = _KeptRows()
        self._context: Context | None = None  # in which Django keeps the connection of all reads
        self._stamp: DatabaseVersion | None = None

    async def run(self, stamp: DatabaseVersion | None, call: Callable[[], T]) -> T:
        """Run one."""
        if self._context is None:  # made here: Django tells contexts of event loops from those of threads
            self._context = Context()
            self._context.run(self._let_answer, self._ask)
        self._stamp = stamp
        return self._context.run(call)

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        rows = self._rows.get(sql, parameters, self._stamp)
        if rows is None:
            rows = self._query(sql, parameters)
            self._rows.put(sql, parameters, self._stamp, rows)
        return rows


class _Running(greenlet):
    """A use case on a stack of its own, which rests while the database is asked."""

    def __init__(self, call: Callable[[], object], stamp: DatabaseVersion | None) -> None:
        super().__init__(call)
        self.stamp = stamp


class GreenletReads:
    """Runs each until it would wait for the database, and meanwhile others; the core knows nothing of it."""

    def __init__(self, use_query_executor: UseQueryExecutor, pipeline: Pipeline) -> None:
        self._let_answer = use_query_executor
        self._pipeline = pipeline
        self._rows = _KeptRows()
        self._context: Context | None = None

    async def run(self, stamp: DatabaseVersion | None, call: Callable[[], T]) -> T:
        """Run one."""
        if self._context is None:  # made here: Django tells contexts of event loops from those of threads
            self._context = Context()
            self._context.run(self._let_answer, self._ask)
        running = _Running(call, stamp)
        running.gr_context = self._context.copy()
        wanted = running.switch()
        try:
            while not running.dead:
                try:
                    rows = await wanted
                except BaseException as error:  # noqa: BLE001 - it goes to whom it concerns, a cancellation too
                    wanted = running.throw(error)
                else:
                    wanted = running.switch(rows)
            result: T = wanted
            return result
        finally:
            del wanted  # an error would hold this frame by it, and so the connection (see Bridge)

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Let the present use case rest until the rows are there."""
        running = getcurrent()
        assert isinstance(running, _Running)  # noqa: S101
        assert running.parent is not None  # noqa: S101
        rows = self._rows.get(sql, parameters, running.stamp)
        if rows is None:
            rows = running.parent.switch(self._pipeline.ask(sql, parameters))
            self._rows.put(sql, parameters, running.stamp, rows)
        return rows
