"""Hand-written SQL for the hot paths (pull and push), where Django's ORM costs many times the query (ADR 2).

Statements bypass Django's cursors but use its connection and transactions; on PostgreSQL they are prepared.
The functions below convert values like Django's fields: SQLite stores a UUID as hex text and a time without
zone, PostgreSQL stores both natively. Statements are written for PostgreSQL. For SQLite, where a writing
transaction locks the whole database, `FOR UPDATE`, `FOR SHARE` and their `KEY` variants are removed.
`statement_timestamp()` is the time of the database server, or of the machine with SQLite, whatever the clock
of a node says (ADR 66).
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.types.json import Jsonb

from registry_control.db.postgresql import base as postgresql

_T = TypeVar("_T")
Parameter: TypeAlias = Any  # str, int, bytes, None, or the result of a *_parameter function below

Rows: TypeAlias = list[tuple[Any, ...]]
Scopes: TypeAlias = Collection[str]
"""Of the change log (`registry_control.common.changes`)."""
DependsOn: TypeAlias = Callable[[Rows], Scopes | None]
"""Tells from the rows of a query which scopes they depend on; None if on more than scopes can tell."""
Statement: TypeAlias = tuple[str, Sequence[Parameter]]
QueryExecutor: TypeAlias = Callable[[str, Sequence[Parameter], DependsOn | None], Rows]

_executor: ContextVar[QueryExecutor | None] = ContextVar("query_executor", default=None)
_BATCH: Final = 1000  # rows of one INSERT
_LOCKING: Final = re.compile(r"\bFOR (NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)( OF \w+)?( SKIP LOCKED)?")
_LATER: Final = "statement_timestamp() + %s"


def use_query_executor(executor: QueryExecutor) -> None:
    """Route every `rows` and `row` call of this contextvars context through `executor`.

    For the event loop, which must not block on Django's connection. `executor` raises the driver's errors,
    like a cursor. `execute` and `insert_many` are not routed.
    """
    _executor.set(executor)
    # Creates the (unconnected) wrapper now, so that contexts copied from this one share it.
    connections[DEFAULT_DB_ALIAS]


def rows(sql: str, parameters: Sequence[Parameter], *, depends_on: DependsOn | None = None) -> Rows:
    """All rows of one query. Convert ids, times and JSON with the *_from_db and optional_* functions.

    With `depends_on`, an executor may cache the rows, and responses made from them, until a scope changes.
    """
    executor = _executor.get()
    if executor is None:
        return query_on_connection(sql, parameters)
    try:
        return executor(sql, parameters, depends_on)
    except Exception:
        with connections[DEFAULT_DB_ALIAS].wrap_database_errors:
            raise


def query_on_connection(sql: str, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
    """All rows of one query, on this thread's Django connection."""
    connection = _connection()
    if _is_instrumented(connection):
        with connection.cursor() as cursor:
            cursor.execute(_for_sqlite(sql) if _on_sqlite() else sql, list(parameters))
            return cursor.fetchall() if cursor.description else []
    with connection.wrap_database_errors:
        if isinstance(connection, postgresql.DatabaseWrapper):
            return connection.query(sql, parameters)
        result: list[tuple[Any, ...]]
        result = connection.connection.execute(_question_marks(sql), parameters).fetchall()
        return result


def _connection() -> BaseDatabaseWrapper:
    connection = connections[DEFAULT_DB_ALIAS]
    if not connection.in_atomic_block:  # BEGIN has checked, and a transaction cannot move to a new connection
        connection.close_if_health_check_failed()  # checks once per use case, like Django's cursors
    if connection.connection is None:
        connection.ensure_connection()
    return connection


def _is_instrumented(connection: BaseDatabaseWrapper) -> bool:
    """Whether queries are logged or wrapped (by tests, for example). Then Django's cursors run them."""
    return bool(connection.execute_wrappers) or connection.queries_logged


def row(
    sql: str, parameters: Sequence[Parameter], *, depends_on: DependsOn | None = None
) -> tuple[Any, ...] | None:
    """The first row of one query, or None; see `rows`."""
    return next(iter(rows(sql, parameters, depends_on=depends_on)), None)


def rows_of_each(*statements: Statement) -> list[Rows]:
    """The rows of several statements of a transaction, which PostgreSQL gets in one round trip (ADR 27).

    They run in this order and all of them: a statement cannot depend on the rows of an earlier one.
    """
    connection = _connection()
    if not isinstance(connection, postgresql.DatabaseWrapper) or _is_instrumented(connection):
        return [query_on_connection(sql, parameters) for sql, parameters in statements]
    with connection.wrap_database_errors:
        return connection.query_all(statements)


def execute(sql: str, parameters: Sequence[Parameter]) -> None:
    """Run one statement whose outcome the caller does not need; otherwise use RETURNING with `rows`.

    Inside a transaction on PostgreSQL the statement is queued: its errors surface at a later statement or at
    the commit (ADR 27).
    """
    connection = _connection()
    if not isinstance(connection, postgresql.DatabaseWrapper) or _is_instrumented(connection):
        query_on_connection(sql, parameters)
        return
    with connection.wrap_database_errors:
        connection.execute(sql, parameters)


def insert_many(
    sql: str, parameters: Iterable[Sequence[Parameter]], *, conflict: str = "", values: str = ""
) -> None:
    """Insert rows in batches. `sql` ends with `VALUES`, `conflict` is the ON CONFLICT clause.

    `values` is the list of values of a row, if these are not placeholders only.
    """
    remaining = list(parameters)
    while remaining:
        batch, remaining = remaining[:_BATCH], remaining[_BATCH:]
        lists = ", ".join(values or placeholders(each) for each in batch)
        execute(f"{sql} {lists} {conflict}", [value for each in batch for value in each])


def placeholders(values: Sequence[Parameter]) -> str:
    """`(%s, %s, ...)` with one placeholder for each value; `values` must not be empty."""
    return f"({', '.join(['%s'] * len(values))})"


def batches(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """The values in parts of at most `size`, because a statement has a limited number of parameters."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


@lru_cache(maxsize=1)
def _on_sqlite() -> bool:
    """Whether the database is SQLite. Cached, because it is needed for every converted value."""
    return connections[DEFAULT_DB_ALIAS].vendor == "sqlite"


@lru_cache(maxsize=128)
def _question_marks(sql: str) -> str:
    """The statement with SQLite's placeholders. Statements contain `%` only in `%s`."""
    return _for_sqlite(sql).replace("%s", "?")


def _for_sqlite(sql: str) -> str:
    return _LOCKING.sub("", sql).replace(_LATER, "statement_timestamp(%s)")


def id_parameter(value: UUID) -> str | UUID:
    """A UUID as this database stores it."""
    return value.hex if _on_sqlite() else value


def time_parameter(value: datetime) -> str | datetime:
    """A time as this database stores it."""
    return str(value.astimezone(UTC).replace(tzinfo=None)) if _on_sqlite() else value


def interval_parameter(value: timedelta) -> float | timedelta:
    """A duration, for `statement_timestamp() + %s`."""
    return value.total_seconds() if _on_sqlite() else value


def json_parameter(value: Mapping[str, object]) -> str | Jsonb:
    """A JSON object as this database stores it."""
    return json.dumps(value) if _on_sqlite() else Jsonb(value)


def json_from_db(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON column that contains an object or a list."""
    return json.loads(value) if isinstance(value, str) else value


_parsed: Final = lru_cache(maxsize=10_000)(UUID)  # a pull parses eight, most of them repeatedly


def uuid_from_db(value: str | UUID) -> UUID:
    """A UUID from a column that is never null."""
    return _parsed(value) if isinstance(value, str) else value


def optional_uuid(value: str | UUID | None) -> UUID | None:
    """A UUID, or None, from a nullable column."""
    return None if value is None else uuid_from_db(value)


def time_from_db(value: str | datetime) -> datetime:
    """A time from a column that is never null."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def optional_time(value: str | datetime | None) -> datetime | None:
    """A time, or None, from a nullable column."""
    return None if value is None else time_from_db(value)
