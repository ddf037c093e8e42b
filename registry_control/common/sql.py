"""Hand-written SQL for the hot path, where Django's cursor costs more than the query.

Statements go to the driver's own cursor, on Django's connection and in its transactions; PostgreSQL plans
each once per connection. Values are converted as Django's own fields would: SQLite gives ids as hex text
and times without a zone, PostgreSQL gives both as they are.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

Parameter: TypeAlias = str | int | UUID


def rows(sql: str, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
    """All rows of one query. Parameters are text, numbers or whatever `id_parameter` returns."""
    result: list[tuple[Any, ...]] = _executed(sql, parameters).fetchall()
    return result


def row(sql: str, parameters: Sequence[Parameter]) -> tuple[Any, ...] | None:
    """The first row of one query, if any."""
    result: tuple[Any, ...] | None = _executed(sql, parameters).fetchone()
    return result


def _executed(sql: str, parameters: Sequence[Parameter]) -> Any:  # noqa: ANN401 - a cursor of either driver
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.execute_wrappers or connection.queries_logged:
        # Somebody watches the queries: let Django run it.
        cursor = connection.cursor()
        cursor.execute(sql, list(parameters))
        return cursor
    connection.ensure_connection()
    with connection.wrap_database_errors:
        return _by_driver(connection, sql, parameters)


def _by_driver(connection: BaseDatabaseWrapper, sql: str, parameters: Sequence[Parameter]) -> Any:  # noqa: ANN401
    if connection.vendor == "sqlite":
        return connection.connection.execute(_question_marks(sql), parameters)
    return psycopg.Cursor(connection.connection).execute(sql, parameters, prepare=True)


@lru_cache(maxsize=64)
def _question_marks(sql: str) -> str:
    """The same statement with SQLite's placeholders; ours hold no other per cent sign."""
    return sql.replace("%s", "?")


def id_parameter(value: UUID) -> str | UUID:
    """An id in the form in which this database stores it."""
    return value if connections[DEFAULT_DB_ALIAS].features.has_native_uuid_field else value.hex


def present_id(value: str | UUID) -> UUID:
    """An id from a column that is never null."""
    return UUID(value) if isinstance(value, str) else value


def as_id(value: str | UUID | None) -> UUID | None:
    """An id from a column that may be null."""
    return None if value is None else present_id(value)


def as_time(value: str | datetime | None) -> datetime | None:
    """A time as it came from a row."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)
