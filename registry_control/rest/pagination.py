"""Pages of lists."""

from typing import Any, TypeVar

from django.db.models import Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)


def bounds(query: dict[str, Any], *, total: int) -> tuple[int, int]:
    """The first row of the page that a validated `ListQuery` requests, and the one after its last.

    Both are at most `total`, so that no number is beyond the range of the database's integers; they are equal
    for a page beyond the end.
    """
    start = min((max(query["page"], 1) - 1) * query["page_size"], total)
    return start, min(start + query["page_size"], total)


def page_of(
    rows: QuerySet[ModelT],
    *,
    query: dict[str, Any],
    shown: QuerySet[ModelT] | None = None,
    total: int | None = None,
) -> tuple[list[ModelT], int]:
    """The page that a validated `ListQuery` requests, and the total number of rows.

    A page beyond the end is empty: clients request pages until one is empty. Rows with equal values are
    ordered by id, so that each row is on exactly one page.

    Args:
        rows: the filtered rows.
        query: the validated values of a `ListQuery`.
        shown: the queryset from which the rows of the page are selected by id, for example with annotations
            that would be expensive for all of `rows`.
        total: the number of rows if the caller knows it, which saves the COUNT query.
    """
    field, _, direction = str(query["order_by"]).rpartition("_")
    total = rows.count() if total is None else total
    start, stop = bounds(query, total=total)
    if start == stop:
        return [], total
    order, backwards = (field, "pk"), (f"-{field}", "-pk")
    if direction == "desc":
        order, backwards = backwards, order
    # The cost of OFFSET grows with the number of skipped rows, so the page is located from the nearer end.
    # The inner query selects only ids, so that skipped rows need no annotations.
    if start > total - stop:
        page = rows.order_by(*backwards).values("pk")[total - stop : total - start]
    else:
        page = rows.order_by(*order).values("pk")[start:stop]
    return list((rows if shown is None else shown).filter(pk__in=page).order_by(*order)), total
