"""The query plan of a statement, and whether it scans a large table."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from django.db import connection

_NAMES: Final = re.compile(
    r'\b(?:FROM|JOIN|UPDATE|INTO)\s+"?(\w+)"?(?:\s+(?:AS\s+)?(?!SET\b|WHERE\b|ON\b|LEFT\b|JOIN\b)"?(\w+)"?)?',
    re.IGNORECASE,
)
_WAITING: Final = ("tags_being_deleted", "uploads_to_discard", "images_never_pushed")
"""Partial indexes of rows that wait for the worker, which scans these indexes completely."""

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any] | None

_EXPLAINED: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def is_explained(sql: str) -> bool:
    """Whether a statement has a plan; BEGIN and SAVEPOINT have none."""
    return sql.lstrip().upper().startswith(_EXPLAINED)


def scans(sql: str, parameters: Parameters, *, big: Collection[str]) -> list[str]:
    """The large tables that the statement scans completely, according to its plans.

    PostgreSQL also plans a statement without its parameters if it is executed often. Both plans count for
    hand-written statements, because only these are prepared (registry_control.db.sql).
    """
    if connection.vendor == "sqlite":
        return _sqlite_scans(sql, parameters, big)
    found = _postgres_scans(f"EXPLAIN (FORMAT JSON) {sql}", parameters, big)
    if '"' not in sql:
        found += _postgres_scans(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {_numbered(sql)}", None, big)
    return found


def _numbered(sql: str) -> str:
    parts = sql.split("%s")
    marked = [f"{part}${number}" for number, part in enumerate(parts[:-1], 1)]
    return "".join([*marked, parts[-1]])


def _postgres_scans(sql: str, parameters: Parameters, big: Collection[str]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        (plan,) = cursor.fetchone()
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in nodes_of(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in big
    ]


def nodes_of(explained: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON, parsed or not
    """All nodes of a plan that PostgreSQL has explained as JSON."""
    return _nodes((json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"])


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _sqlite_scans(sql: str, parameters: Parameters, big: Collection[str]) -> list[str]:
    tables = {alias or table: table for table, alias in _NAMES.findall(sql)}
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
        steps = [detail for _, _, _, detail in cursor.fetchall()]
    return [
        step
        for step in steps
        if step.startswith("SCAN ") and tables.get(step.split()[1]) in big and not step.endswith(_WAITING)
    ]
