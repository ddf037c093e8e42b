"""Runs read-only use cases on the event loop: inline on SQLite, as greenlets over the PostgreSQL pipeline.

Switching to a thread and back would cost several times the query. Rows whose query declares the scopes that
they depend on are cached until one of these changes (`registry_data.scoped_cache`), so most reads query only
the change log. Expiry times are columns of the rows and checked on each use.
"""

from collections.abc import Callable, Collection, Sequence
from contextvars import Context, copy_context
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from greenlet import getcurrent, greenlet

from registry_data.scoped_cache import ChangeTracker, Dependencies, Pipeline, Rows, ScopedCache

T = TypeVar("T")
DependsOn: TypeAlias = Callable[[Rows], Collection[str] | None]
"""Returns the scopes that the rows of a query depend on; None if scopes cannot describe that."""
QueryExecutor: TypeAlias = Callable[[str, Sequence[Any], DependsOn | None], Rows]
UseQueryExecutor: TypeAlias = Callable[[QueryExecutor], None]
"""Routes the queries of the calling contextvars context through an executor."""

_CAPACITY: Final = 32 * 1024 * 1024  # bytes
_ROW: Final = 2048  # bytes, approximate size in memory
_MOST_ROWS: Final = 20  # of a cached query
_LONGEST: Final = 1024  # characters of a string in a cached row or a parameter
_CONTENT: Final = (bytes, dict)  # types of values that are not cached


class ReadExecutor(Protocol):
    """Runs read-only use cases in the thread of the event loop."""

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        """Run a use case and add the scopes that it depends on; with None, no cached rows are used.

        Raises:
            ConnectionUnavailable: the pipeline has no connection; the use case can run in a thread instead.
        """
        ...


class _RowCache:
    """Caches rows by statement and parameters, except rows with content or long strings."""

    def __init__(self, tracker: ChangeTracker) -> None:
        self._cache: ScopedCache[tuple[str, tuple[Any, ...]], tuple[Rows, Collection[str]]]
        self._cache = ScopedCache(tracker, _CAPACITY)

    def get(self, sql: str, parameters: Sequence[Any], dependencies: Dependencies | None) -> Rows | None:
        """Return cached rows and add their scopes to `dependencies`; None if nothing is cached."""
        if dependencies is None or dependencies.version is None:
            return None
        entry = self._cache.get((sql, tuple(parameters)))
        if entry is None:
            return None
        dependencies.add(entry[1])
        return entry[0]

    def put(
        self,
        sql: str,
        parameters: Sequence[Any],
        rows: Rows,
        *,
        depends_on: DependsOn | None,
        dependencies: Dependencies | None,
    ) -> None:
        """Add the scopes of rows that were just read to `dependencies`; cache them if they have scopes."""
        if dependencies is None:
            return
        scopes = None if depends_on is None else depends_on(rows)
        dependencies.add(scopes)
        if scopes is None or dependencies.version is None or len(rows) > _MOST_ROWS:
            return
        if _are_small(parameters) and all(map(_are_small, rows)):
            size = _ROW * (1 + len(rows))
            key = (sql, tuple(parameters))
            self._cache.put(key, (rows, scopes), since=dependencies.version, scopes=scopes, size=size)


def _are_small(values: Sequence[Any]) -> bool:
    for value in values:
        if isinstance(value, str):
            if len(value) > _LONGEST:
                return False
        elif isinstance(value, _CONTENT):
            return False
    return True


class _Contexts:
    """Creates the contextvars context of a use case: the variables of the request, and the query executor."""

    def __init__(self, use_query_executor: UseQueryExecutor, executor: QueryExecutor) -> None:
        self._use_query_executor = use_query_executor
        self._executor = executor
        self._base: Context | None = None  # contains Django's connection objects

    def make(self) -> Context:
        """Create the context of one use case of the current request."""
        if (
            self._base is None
        ):  # created on the event loop: Django distinguishes its contexts from those of threads
            self._base = Context()
            self._base.run(self._use_query_executor, self._executor)
        context = self._base.copy()
        for variable, value in copy_context().items():
            if variable not in self._base:
                context.run(variable.set, value)
        return context


class InlineReads:
    """Runs use cases without suspending them: readers of SQLite in WAL mode do not wait for writers."""

    def __init__(
        self,
        use_query_executor: UseQueryExecutor,
        query: Callable[[str, Sequence[Any]], Rows],
        tracker: ChangeTracker,
    ) -> None:
        """`query` sends a query on Django's connection."""
        self._query = query
        self._rows = _RowCache(tracker)
        self._contexts = _Contexts(use_query_executor, self._execute)
        self._dependencies: Dependencies | None = None  # of the running use case

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        """Run a use case."""
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
    """A use case on a separate stack, suspended while it waits for rows."""

    def __init__(self, call: Callable[[], object], dependencies: Dependencies | None) -> None:
        super().__init__(call)
        self.dependencies = dependencies


class GreenletReads:
    """Suspends a use case, which is synchronous code, while it waits for PostgreSQL, and runs others."""

    def __init__(
        self, use_query_executor: UseQueryExecutor, pipeline: Pipeline, tracker: ChangeTracker
    ) -> None:
        self._pipeline = pipeline
        self._rows = _RowCache(tracker)
        self._contexts = _Contexts(use_query_executor, self._execute)

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        """Run a use case."""
        use_case = _UseCase(call, dependencies)
        use_case.gr_context = self._contexts.make()
        pending_rows = use_case.switch()
        try:
            while not use_case.dead:
                try:
                    rows = await pending_rows
                except BaseException as error:  # noqa: BLE001 - raised in the use case, cancellation included
                    pending_rows = use_case.throw(error)
                else:
                    pending_rows = use_case.switch(rows)
            result: T = pending_rows
            return result
        finally:
            del pending_rows  # breaks the reference cycle of an exception (see Bridge._run_in)

    def _execute(self, sql: str, parameters: Sequence[Any], depends_on: DependsOn | None) -> Rows:
        """Return cached rows, or suspend the current use case until the rows arrive."""
        use_case = getcurrent()
        assert isinstance(use_case, _UseCase)  # noqa: S101
        assert use_case.parent is not None  # noqa: S101
        dependencies = use_case.dependencies
        rows = None if depends_on is None else self._rows.get(sql, parameters, dependencies)
        if rows is None:
            rows = use_case.parent.switch(self._pipeline.ask(sql, parameters))
            self._rows.put(sql, parameters, rows, depends_on=depends_on, dependencies=dependencies)
        return rows
