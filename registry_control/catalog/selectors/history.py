"""The history of tags: which manifests they named, and who set them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from registry_control.access.policy import Action, Principal
from registry_control.catalog.models import Tag, TagHistory
from registry_control.catalog.selectors.listing import get_visible_tag
from registry_control.common.errors import PermissionsDenied
from registry_control.namespaces.selectors import may

_RESOURCE: Final = "registry_tag_history"


@dataclass(frozen=True, slots=True)
class Named:
    """A manifest that a tag named from a time until another; `until` is None for the present one."""

    digest: str
    since: datetime
    until: datetime | None
    by: str


def get_tag(principal: Principal, tag_id: UUID) -> Tag:
    """One tag with its `digest`, of a namespace that the principal administers.

    Raises:
        NotFound: there is no such tag, or the principal may not know of it.
        PermissionsDenied: the principal may see the tag and not administer its namespace.
    """
    tag = get_visible_tag(principal, tag_id)
    if not may(principal, Action.ADMINISTER, tag.image.namespace):
        raise PermissionsDenied("read", _RESOURCE)
    return tag


def length_of(tag: Tag) -> int:
    """The number of manifests that a tag has named, with the present one."""
    return TagHistory.objects.filter(tag_id=tag.pk).count() + 1


def part_of(tag: Any, *, newest_first: bool, start: int, stop: int, total: int) -> list[Named]:  # noqa: ANN401 - with the annotation `digest`
    """A part of the history of a tag with its `digest`; `total` is the length of the whole."""
    past = TagHistory.objects.filter(tag_id=tag.pk)
    present = Named(tag.digest, tag.updated_at, None, tag.set_by)
    if newest_first:
        before = _named(past.order_by("-since", "-pk")[max(start - 1, 0) : max(stop - 1, 0)])
        return [*([present] if start == 0 else []), *before]
    before = _named(past.order_by("since", "pk")[start:stop])
    return [*before, *([present] if start < total <= stop else [])]


def _named(rows: Iterable[TagHistory]) -> list[Named]:
    return [Named(each.digest, each.since, each.until, each.set_by) for each in rows]
