"""Hand-written SQL for the hot path, where building a query costs more than running it.

Values are converted as Django's own fields would: SQLite gives ids as hex text and times without a
zone, PostgreSQL gives both as they are.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from django.db import connection

Parameter: TypeAlias = str | int | UUID


def rows(sql: str, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
    """All rows of one query. Parameters are text, numbers or whatever `id_parameter` returns."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(parameters))
        result: list[tuple[Any, ...]] = cursor.fetchall()
        return result


def row(sql: str, parameters: Sequence[Parameter]) -> tuple[Any, ...] | None:
    """The first row of one query, if any."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(parameters))
        result: tuple[Any, ...] | None = cursor.fetchone()
        return result


def id_parameter(value: UUID) -> str | UUID:
    """An id in the form in which this database stores it."""
    return value if connection.features.has_native_uuid_field else value.hex


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
