"""The history of tags: which manifests they named, and who set them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from registry_control.catalog.models import TagHistory


@dataclass(frozen=True, slots=True)
class Named:
    """A manifest that a tag named from a time until another; `until` is None for the present one."""

    digest: str
    since: datetime
    until: datetime | None
    by: str


def page_of_history(tag: Any, *, newest_first: bool, start: int, stop: int) -> tuple[Sequence[Named], int]:  # noqa: ANN401 - with the annotation `digest`
    """A part of the history of a tag with its `digest`, and the length of the whole."""
    past = TagHistory.objects.filter(tag_id=tag.pk)
    count = past.count()
    present = Named(tag.digest, tag.updated_at, None, tag.set_by)
    if newest_first:
        before = _named(past.order_by("-since", "-pk")[max(start - 1, 0) : max(stop - 1, 0)])
        return [*([present] if start == 0 else []), *before], count + 1
    before = _named(past.order_by("since", "pk")[start:stop])
    return [*before, *([present] if start <= count < stop else [])], count + 1


def _named(rows: Iterable[TagHistory]) -> list[Named]:
    return [Named(each.digest, each.since, each.until, each.set_by) for each in rows]
