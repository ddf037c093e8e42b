"""Corrects rows whose times lie in the future after the clock was set back (ADR 66)."""

from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet

from registry_control.common.clock_watch import TOLERANCE
from registry_control.db.functions import DatabaseNow

_BATCH: Final = 1000


def correct(rows: QuerySet[Any], field: str, *, longest: timedelta = timedelta(0), **columns: object) -> None:
    """Update rows whose time lies further in the future than anything with a right clock writes it.

    Args:
        rows: the rows to search.
        field: the column with the time.
        longest: how far ahead the column may be.
        columns: what to set instead of `field=DatabaseNow()`.
    """
    wrong = rows.filter(**{f"{field}__gt": DatabaseNow() + longest + TOLERANCE}).order_by(f"-{field}")
    while _correct_some(wrong, columns or {field: DatabaseNow()}) == _BATCH:
        pass


@transaction.atomic
def _correct_some(wrong: QuerySet[Any], columns: dict[str, object]) -> int:
    """Update a batch; a transaction that holds a row writes the right time itself."""
    found = wrong.select_for_update(skip_locked=True).values_list("pk", flat=True)[:_BATCH]
    updated: int = wrong.model._default_manager.filter(pk__in=list(found)).update(**columns)
    return updated
