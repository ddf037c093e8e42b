"""Hand-written SQL for the hot paths, pull and push, where Django costs many times the query.

Statements go to the driver's own cursor, on Django's connection and in its transactions; PostgreSQL plans
each once per connection. Values are converted as Django's own fields would: SQLite gives ids as hex text
and times without a zone, PostgreSQL gives both as they are. Every statement is written for PostgreSQL;
for SQLite, whose transactions have the whole database, `FOR UPDATE` and `FOR SHARE` are left out.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.types.json import Jsonb

from registry_control.db.postgresql import base as postgresql

Parameter: TypeAlias = Any  # text, numbers, bytes, None, and what the functions below return

QueryExecutor: TypeAlias = Callable[[str, Sequence[Parameter]], list[tuple[Any, ...]]]

_ask: ContextVar[QueryExecutor | None] = ContextVar("ask", default=None)
_AT_ONCE: Final = 1000  # rows
_LOCKING: Final = re.compile(r"\bFOR (UPDATE|SHARE)( OF \w+)?")


def use_query_executor(ask: QueryExecutor) -> None:
    """Have all queries of this context answered by `ask`, which raises the driver's errors, as a cursor does.

    For threads that must not wait for a database. What writes still needs a connection.
    """
    _ask.set(ask)
    # Made now, though not connected: contexts copied from this one share it instead of making their own.
    connections[DEFAULT_DB_ALIAS]


def rows(sql: str, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
    """All rows of one query. Ids, times and JSON go through the functions below."""
    ask = _ask.get()
    if ask is None:
        return query_on_connection(sql, parameters)
    try:
        return ask(sql, parameters)
    except Exception:
        with connections[DEFAULT_DB_ALIAS].wrap_database_errors:
            raise


def query_on_connection(sql: str, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
    """All rows of one query, from Django's own connection."""
    connection = _here()
    if _is_watched(connection):
        with connection.cursor() as cursor:
            cursor.execute(_without_locks(sql) if _on_sqlite() else sql, list(parameters))
            return cursor.fetchall() if cursor.description else []
    with connection.wrap_database_errors:
        if isinstance(connection, postgresql.DatabaseWrapper):
            return connection.query(sql, parameters)
        result: list[tuple[Any, ...]]
        result = connection.connection.execute(_question_marks(sql), parameters).fetchall()
        return result


def _here() -> BaseDatabaseWrapper:
    connection = connections[DEFAULT_DB_ALIAS]
    if not connection.in_atomic_block:  # its beginning saw to that, and nothing may be made anew within it
        connection.close_if_health_check_failed()  # once in each use case, as before Django's own queries
    if connection.connection is None:
        connection.ensure_connection()
    return connection


def _is_watched(connection: BaseDatabaseWrapper) -> bool:
    """Whether somebody looks at the queries: then Django runs them."""
    return bool(connection.execute_wrappers) or connection.queries_logged


def row(sql: str, parameters: Sequence[Parameter]) -> tuple[Any, ...] | None:
    """The first row of one query, if any."""
    return next(iter(rows(sql, parameters)), None)


def execute(sql: str, parameters: Sequence[Parameter]) -> None:
    """Run one statement; where how much it changed matters, it says so by RETURNING, to `rows`.

    Inside a transaction its errors may come with the next statement, or with the commit.
    """
    connection = _here()
    if not isinstance(connection, postgresql.DatabaseWrapper) or _is_watched(connection):
        query_on_connection(sql, parameters)
        return
    with connection.wrap_database_errors:
        connection.execute(sql, parameters)


def insert_many(sql: str, parameters: Iterable[Sequence[Parameter]], *, conflict: str = "") -> None:
    """Insert rows, `INSERT INTO table (columns) VALUES` with what is to happen to those that are there."""
    waiting = list(parameters)
    while waiting:
        now, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        values = ", ".join(placeholders(each) for each in now)
        execute(f"{sql} {values} {conflict}", [value for each in now for value in each])


def placeholders(values: Sequence[Parameter]) -> str:
    """The placeholders of as many values, in parentheses; there must be one."""
    return f"({', '.join(['%s'] * len(values))})"


@lru_cache(maxsize=1)
def _on_sqlite() -> bool:
    """Whether this process works on SQLite; asked for every value, so it is looked up once."""
    return connections[DEFAULT_DB_ALIAS].vendor == "sqlite"


@lru_cache(maxsize=128)
def _question_marks(sql: str) -> str:
    """The same statement with SQLite's placeholders; ours hold no other per cent sign."""
    return _without_locks(sql).replace("%s", "?")


def _without_locks(sql: str) -> str:
    return _LOCKING.sub("", sql)


def id_parameter(value: UUID) -> str | UUID:
    """An id in the form in which this database stores it."""
    return value.hex if _on_sqlite() else value


def time_parameter(value: datetime) -> str | datetime:
    """A time in the form in which this database stores it."""
    return str(value.astimezone(UTC).replace(tzinfo=None)) if _on_sqlite() else value


def json_parameter(value: Mapping[str, object]) -> str | Jsonb:
    """A JSON object in the form in which this database stores it."""
    return json.dumps(value) if _on_sqlite() else Jsonb(value)


_parsed: Final = lru_cache(maxsize=10_000)(UUID)  # a pull has eight, of which most come again and again


def uuid_from_db(value: str | UUID) -> UUID:
    """An id from a column that is never null."""
    return _parsed(value) if isinstance(value, str) else value


def optional_uuid(value: str | UUID | None) -> UUID | None:
    """An id from a column that may be null."""
    return None if value is None else uuid_from_db(value)


def time_from_db(value: str | datetime) -> datetime:
    """A time from a column that is never null."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def optional_time(value: str | datetime | None) -> datetime | None:
    """A time as it came from a row."""
    return None if value is None else time_from_db(value)
