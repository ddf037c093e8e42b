"""Runs read-only use cases on the event loop: inline on SQLite, as greenlets over the PostgreSQL pipeline.

A hop to a thread and back would cost several times the query. Rows whose query declares what they depend on
are cached until that changes (`registry_data.scoped_cache`), so most reads ask the database for changes and
for nothing else. What expires by the clock is told by a row and checked at each use.
"""

from collections.abc import Callable, Collection, Sequence
from contextvars import Context, copy_context
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from greenlet import getcurrent, greenlet

from registry_data.scoped_cache import ChangeTracker, Dependencies, Pipeline, Rows, ScopedCache

T = TypeVar("T")
DependsOn: TypeAlias = Callable[[Rows], Collection[str] | None]
"""Tells from the rows of a query which scopes they depend on; None if on more than scopes can tell."""
QueryExecutor: TypeAlias = Callable[[str, Sequence[Any], DependsOn | None], Rows]
UseQueryExecutor: TypeAlias = Callable[[QueryExecutor], None]
"""Routes the queries of the context in which it is called through an executor."""

_CAPACITY: Final = 32 * 1024 * 1024  # bytes
_ROW: Final = 2048  # bytes, about
_MOST_ROWS: Final = 20  # of one query that are cached
_LONGEST: Final = 1024  # characters of a text in them, or in a parameter


class ReadExecutor(Protocol):
    """Runs use cases that only read, in the thread of the event loop."""

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        """Run a use case and collect what it depends on; without `dependencies`, with no cached rows.

        Raises:
            ConnectionUnavailable: the database cannot be asked in this way at present.
        """
        ...


class _RowCache:
    """Rows by statement and parameters; none with contents or long texts."""

    def __init__(self, tracker: ChangeTracker) -> None:
        self._cache: ScopedCache[tuple[str, tuple[Any, ...]], tuple[Rows, Collection[str]]]
        self._cache = ScopedCache(tracker, _CAPACITY)

    def get(self, sql: str, parameters: Sequence[Any], dependencies: Dependencies | None) -> Rows | None:
        """Cached rows, which then are among what the use case depends on."""
        if dependencies is None or dependencies.version is None:
            return None
        found = self._cache.get((sql, tuple(parameters)))
        if found is None:
            return None
        dependencies.add(found[1])
        return found[0]

    def put(
        self,
        sql: str,
        parameters: Sequence[Any],
        rows: Rows,
        *,
        depends_on: DependsOn | None,
        dependencies: Dependencies | None,
    ) -> None:
        """Note what rows depend on that were just read, and cache them if that can be told."""
        if dependencies is None:
            return
        scopes = None if depends_on is None else depends_on(rows)
        dependencies.add(scopes)
        if scopes is None or dependencies.version is None or len(rows) > _MOST_ROWS:
            return
        if all(map(_is_small, parameters)) and all(_is_small(value) for row in rows for value in row):
            size = _ROW * (1 + len(rows))
            key = (sql, tuple(parameters))
            self._cache.put(key, (rows, scopes), since=dependencies.version, scopes=scopes, size=size)


def _is_small(value: object) -> bool:
    return len(value) <= _LONGEST if isinstance(value, str) else not isinstance(value, bytes | dict)


class _Contexts:
    """Makes the contextvars contexts of use cases: the request's variables, and queries routed."""

    def __init__(self, use_query_executor: UseQueryExecutor, executor: QueryExecutor) -> None:
        self._use_query_executor = use_query_executor
        self._executor = executor
        self._base: Context | None = None  # in which Django keeps its connection objects

    def make(self) -> Context:
        """A context for one use case of the present request."""
        if self._base is None:  # made here: Django tells contexts of event loops from those of threads
            self._base = Context()
            self._base.run(self._use_query_executor, self._executor)
        context = self._base.copy()
        for variable, value in copy_context().items():
            if variable not in self._base:
                context.run(variable.set, value)
        return context


class InlineReads:
    """Runs each from begin to end: for a database file on this machine, where a reader never waits."""

    def __init__(
        self,
        use_query_executor: UseQueryExecutor,
        query: Callable[[str, Sequence[Any]], Rows],
        tracker: ChangeTracker,
    ) -> None:
        """`query` asks the database itself."""
        self._query = query
        self._rows = _RowCache(tracker)
        self._contexts = _Contexts(use_query_executor, self._execute)
        self._dependencies: Dependencies | None = None  # of the use case that runs

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        """Run one."""
        self._dependencies = dependencies
        return self._contexts.make().run(call)

    def _execute(self, sql: str, parameters: Sequence[Any], depends_on: DependsOn | None) -> Rows:
        dependencies = self._dependencies
        rows = None if depends_on is None else self._rows.get(sql, parameters, dependencies)
        if rows is None:
            rows = self._query(sql, parameters)
            self._rows.put(sql, parameters, rows, depends_on=depends_on, dependencies=dependencies)
        return rows


class _UseCase(greenlet):
    """A use case on its own stack, which is suspended while the database is asked."""

    def __init__(self, call: Callable[[], object], dependencies: Dependencies | None) -> None:
        super().__init__(call)
        self.dependencies = dependencies


class GreenletReads:
    """Runs each until it would wait for the database, and meanwhile others; their code stays synchronous."""

    def __init__(
        self, use_query_executor: UseQueryExecutor, pipeline: Pipeline, tracker: ChangeTracker
    ) -> None:
        self._pipeline = pipeline
        self._rows = _RowCache(tracker)
        self._contexts = _Contexts(use_query_executor, self._execute)

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        """Run one."""
        use_case = _UseCase(call, dependencies)
        use_case.gr_context = self._contexts.make()
        wanted = use_case.switch()
        try:
            while not use_case.dead:
                try:
                    rows = await wanted
                except BaseException as error:  # noqa: BLE001 - it goes into the use case, a cancellation too
                    wanted = use_case.throw(error)
                else:
                    wanted = use_case.switch(rows)
            result: T = wanted
            return result
        finally:
            del wanted  # an error would keep this frame alive by it, and so the connection (see Bridge)

    def _execute(self, sql: str, parameters: Sequence[Any], depends_on: DependsOn | None) -> Rows:
        """Suspend the present use case until the rows have come."""
        use_case = getcurrent()
        assert isinstance(use_case, _UseCase)  # noqa: S101
        assert use_case.parent is not None  # noqa: S101
        dependencies = use_case.dependencies
        rows = None if depends_on is None else self._rows.get(sql, parameters, dependencies)
        if rows is None:
            rows = use_case.parent.switch(self._pipeline.ask(sql, parameters))
            self._rows.put(sql, parameters, rows, depends_on=depends_on, dependencies=dependencies)
        return rows
