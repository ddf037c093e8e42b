"""Pages of lists, as every client of the v1 API depends on them."""

from typing import Any, TypeVar

from django.db.models import Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)


def page_of(
    rows: QuerySet[ModelT], *, query: dict[str, Any], shown: QuerySet[ModelT] | None = None
) -> tuple[list[ModelT], int]:
    """The page that a checked `ListQuery` asks for, and how many rows there are on all pages.

    Past the end is an empty page: clients ask for one too many. The id breaks ties, so that no row
    is on two pages and none on none. `shown` is where to take the page's rows from by their ids, with all
    that is shown of them; `rows` need not have that then, and its conditions are looked at only once.
    """
    field, _, direction = str(query["order_by"]).rpartition("_")
    sign = "-" if direction == "desc" else ""
    start = (max(query["page"], 1) - 1) * query["page_size"]
    total = rows.count()
    if start >= total:  # also for numbers that no database has a type for
        return [], total
    order = (f"{sign}{field}", f"{sign}pk")
    # The inner query finds the page, so that what costs work for each row is not done for those before it.
    page = rows.order_by(*order).values("pk")[start : start + query["page_size"]]
    return list((rows if shown is None else shown).filter(pk__in=page).order_by(*order)), total
