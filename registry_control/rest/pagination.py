"""Pages of lists, as every client of the v1 API depends on them."""

from typing import Any, TypeVar

from django.db.models import Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)


def page_of(
    rows: QuerySet[ModelT],
    *,
    query: dict[str, Any],
    shown: QuerySet[ModelT] | None = None,
    total: int | None = None,
) -> tuple[list[ModelT], int]:
    """The page that a checked `ListQuery` asks for, and how many rows there are on all pages.

    `total` is that number where it is known, so that nobody need count.

    Past the end is an empty page: clients ask for one too many. The id breaks ties, so that no row
    is on two pages and none on none. `shown` is where to take the page's rows from by their ids, with all
    that is shown of them; `rows` need not have that then, and its conditions are looked at only once.
    """
    field, _, direction = str(query["order_by"]).rpartition("_")
    start = (max(query["page"], 1) - 1) * query["page_size"]
    total = rows.count() if total is None else total
    if start >= total:  # also for numbers that no database has a type for
        return [], total
    stop = min(start + query["page_size"], total)
    order, backwards = (field, "pk"), (f"-{field}", "-pk")
    if direction == "desc":
        order, backwards = backwards, order
    # Rows before a page cost work: it is found from the end that is nearer. The inner query finds it, so that
    # what costs work for each row is done for none of them.
    if start > total - stop:
        page = rows.order_by(*backwards).values("pk")[total - stop : total - start]
    else:
        page = rows.order_by(*order).values("pk")[start:stop]
    return list((rows if shown is None else shown).filter(pk__in=page).order_by(*order)), total
