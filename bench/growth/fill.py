"""Fills a database that no process uses yet: references are not checked while it runs.

The storage has no bytes of the blobs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.apps import apps
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.models import Count, Field, Max, Model, OuterRef, Subquery
from django.db.models.expressions import DatabaseDefault
from django.db.models.functions import Coalesce
from django.utils import timezone

from bench.growth import tables
from bench.growth.rows import Growth
from bench.growth.tables import Form, Row, Size, Table, Tenant
from registry_control.access.selectors import principal_by_access_key

_CACHE: Final = "PRAGMA cache_size = -500000"  # KiB, because random ids go to pages all over the file

# Statistics that autovacuum would collect after a while; SQLite plans without statistics.
_AFTERWARDS: Final = {"postgresql": "VACUUM ANALYZE", "sqlite": "PRAGMA wal_checkpoint(TRUNCATE)"}


def fill(access_key: str, size: Size) -> None:
    """Add the content that the application with this key would have pushed, in one transaction.

    Raises:
        BadCredentials: the key does not exist.
    """
    form = Form(
        id=lambda value: value if connection.features.has_native_uuid_field else value.hex,
        time=connection.ops.adapt_datetimefield_value,
    )
    taken = {table: _greatest_id(table) for table in tables.NUMBERED}
    growth = Growth(_tenant(access_key), form, taken, until=timezone.now())
    with _unchecked(), transaction.atomic():
        for batch in growth.batches(size):
            for table, rows in batch.items():
                _write(table, rows)
        _count_images()
        _set_sequences()
    with connection.cursor() as cursor:
        cursor.execute(_AFTERWARDS[connection.vendor])


def _tenant(access_key: str) -> Tenant:
    pusher = principal_by_access_key(access_key)
    if pusher.id is None or pusher.organization_id is None or pusher.default_project_id is None:
        raise LookupError("the key must belong to an application with a default project")
    return Tenant(pusher.organization_id, pusher.default_project_id, pusher.id, pusher.name)


def _model(table: Table) -> type[Model]:
    return apps.get_model(table.model)


def _greatest_id(table: Table) -> int:
    found: int | None = _model(table)._default_manager.aggregate(greatest=Max("pk"))["greatest"]
    return found or 0


@contextmanager
def _unchecked() -> Iterator[None]:
    """Rows are inserted in an order that violates references for a while; a test checks them at the end."""
    checks, no_checks = {
        "postgresql": ("SET session_replication_role = DEFAULT", "SET session_replication_role = replica"),
        "sqlite": ("PRAGMA foreign_keys = ON", f"PRAGMA foreign_keys = OFF; {_CACHE}"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        for statement in no_checks.split("; "):
            cursor.execute(statement)
        try:
            yield
        finally:
            cursor.execute(checks)


def _write(table: Table, rows: list[Row]) -> None:
    columns, rest = _columns(table)
    names = ", ".join(f'"{name}"' for name in columns)
    into = f'"{_model(table)._meta.db_table}" ({names})'
    if connection.vendor == "sqlite":
        marks = ", ".join("?" * len(columns))
        connection.connection.executemany(
            f"INSERT INTO {into} VALUES ({marks})", (row + rest for row in rows)
        )
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row + rest)


def _columns(table: Table) -> tuple[tuple[str, ...], Row]:
    """All columns of the table, those of `Table.columns` first, and the default values of the others."""
    others = [field for field in _model(table)._meta.concrete_fields if field.column not in table.columns]
    defaults = tuple(_default(field) for field in others)
    return (*table.columns, *(str(field.column) for field in others)), defaults


def _default(field: "Field[Any, Any]") -> object:
    value = field.get_default()
    if isinstance(value, DatabaseDefault):  # the stubs of Django do not know its attribute
        value = value.expression.value  # type: ignore[attr-defined]
    return "{}" if value == {} else field.get_db_prep_save(value, connection)


def _count_images() -> None:
    images, namespaces = (_model(table)._default_manager for table in (tables.IMAGE, tables.NAMESPACE))
    of_namespace = images.filter(namespace=OuterRef("pk")).values("namespace")
    rows = Subquery(of_namespace.annotate(rows=Count("pk")).values("rows"))
    namespaces.update(image_rows=Coalesce(rows, 0))


def _set_sequences() -> None:
    statements = connection.ops.sequence_reset_sql(no_style(), [_model(table) for table in tables.NUMBERED])
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
