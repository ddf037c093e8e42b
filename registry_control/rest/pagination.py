"""Pages of lists, as every client of the v1 API depends on them."""

from typing import Any, TypeVar

from django.db.models import Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)


def page_of(rows: QuerySet[ModelT], *, query: dict[str, Any]) -> tuple[list[ModelT], int]:
    """The page that a checked `ListQuery` asks for, and how many rows there are on all pages.

    Past the end is an empty page: clients ask for one too many. The id breaks ties, so that no row
    is on two pages and none on none.
    """
    field, _, direction = str(query["order_by"]).rpartition("_")
    sign = "-" if direction == "desc" else ""
    start = (max(query["page"], 1) - 1) * query["page_size"]
    total = rows.count()
    if start >= total:  # also for numbers that no database has a type for
        return [], total
    ordered = rows.order_by(f"{sign}{field}", f"{sign}pk")
    # The inner query finds the page, so that what costs work for each row is not done for those before it.
    page = ordered.values("pk")[start : start + query["page_size"]]
    return list(ordered.filter(pk__in=page)), total
