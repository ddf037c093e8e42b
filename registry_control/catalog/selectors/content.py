"""What an image has: bytes of manifests, pages of tags and referrers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet, Value
from django.db.models.functions import Concat

from registry_control.access.policy import Principal
from registry_control.catalog.models import Image, Manifest, MissingChild
from registry_control.common.models import Status
from registry_control.db.fields import ByteOrderedField
from registry_control.db.sql import id_parameter, json_from_db, row, rows
from registry_control.namespaces.selectors import visible_to

_TAG: Final = """
SELECT id, manifest_id FROM catalog_tag WHERE image_id = %s AND name = %s AND NOT (status = 'deleting')
"""
_PAYLOAD: Final = "SELECT payload FROM catalog_manifest WHERE id = %s"
_REFERRER: Final = "FROM catalog_manifest WHERE image_id = %s AND subject_digest = %s AND id > %s"
_SIZES: Final = f"SELECT id, size {_REFERRER}"
_REFERRERS: Final = (
    f"SELECT id, digest, media_type, size, artifact_type, annotations {_REFERRER} AND id <= %s"
)
_OF_TYPE: Final = " AND artifact_type = %s"
_IN_ORDER: Final = " ORDER BY id"
_LIMIT: Final = " LIMIT %s"
_TAG_NAMES: Final = """
SELECT name FROM catalog_tag
WHERE image_id = %s AND NOT (status = 'deleting') AND name > %s ORDER BY name LIMIT %s
"""

# Not the order of the names alone: `a-b/` comes before `a/`.
_PATH: Final = Concat("name", Value("/"), output_field=ByteOrderedField())
_NAMESPACES_AT_ONCE: Final = 400
PAGE_SIZE: Final = 4 * 1024 * 1024  # bytes (checklist 127)


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest with a subject, as the referrers list shows it (checklist 125)."""

    id: int
    digest: str
    media_type: str
    size: int  # bytes
    artifact_type: str
    annotations: dict[str, str]


def payload(manifest_id: int) -> bytes | None:
    """A manifest's bytes as they were pushed; None when it has just been deleted."""
    found = row(_PAYLOAD, [manifest_id])
    return None if found is None else bytes(found[0])


def tag_row(image_id: UUID, name: str) -> tuple[Any, int] | None:
    """The id of a tag (as the database has it) and of its manifest."""
    found = row(_TAG, [id_parameter(image_id), name])
    return None if found is None else (found[0], found[1])


def digest_of(image_id: UUID, reference: str) -> str | None:
    """The digest that a tag or digest stands for in an image; None for nothing."""
    if ":" in reference:
        return reference if Manifest.objects.filter(image=image_id, digest=reference).exists() else None
    found = tag_row(image_id, reference)
    return None if found is None else Manifest.objects.values_list("digest", flat=True).get(pk=found[1])


def tag_names(image_id: UUID, *, after: str, limit: int) -> list[str]:
    """Names of tags in byte order, strictly after a name that need not exist (checklist 117-119)."""
    return [name for (name,) in rows(_TAG_NAMES, [id_parameter(image_id), after, limit])]


def repository_names(principal: Principal, *, after: str, limit: int) -> list[str]:
    """Full names of the images that a principal has a role on, in byte order, strictly after one (121).

    The namespaces are known by name; their images are asked for some namespaces at a time, more each time,
    so that a page costs what is on it and not what there is.
    """
    begin = after[: after.find("/") + 1] or after
    there = visible_to(principal).exclude(status=Status.DELETING).annotate(path=_PATH).order_by("path")
    names: list[str] = []
    left = _paths(there.filter(path__gte=begin))
    at_once = 1  # the first may be one of which `after` has passed some images
    while left and len(names) < limit:
        now, left = left[:at_once], left[at_once:]
        last = after.removeprefix(begin) if now[0][0] == begin else ""
        names += _names_in([pk for _, pk in now], after=last, limit=limit - len(names))
        at_once *= 4
        left = left or _paths(there.filter(path__gt=now[-1][0]))
    return names


def _paths(namespaces: QuerySet[Any]) -> list[tuple[str, UUID]]:
    """The first of them: what the names of their images begin with, and their ids."""
    return list(namespaces.values_list("path", "pk")[:_NAMESPACES_AT_ONCE])


def _names_in(namespaces: list[UUID], *, after: str, limit: int) -> list[str]:
    """Full names of the images pushed to some namespaces, in byte order; `after` is without namespace."""
    pushed = Image.objects.filter(namespace__in=namespaces, name__gt=after, pushed_at__isnull=False)
    prefix = Concat("namespace__name", Value("/"), output_field=ByteOrderedField())
    found = pushed.exclude(status=Status.DELETING).order_by(prefix, "name")
    return [f"{namespace}/{name}" for namespace, name in found.values_list("namespace__name", "name")[:limit]]


def missing_children(image_id: UUID, index_digest: str) -> list[tuple[str, str]]:
    """Digest and platform of each manifest that an index names and the image does not have."""
    found = MissingChild.objects.filter(parent__image=image_id, parent__digest=index_digest)
    return list(found.order_by("digest").values_list("digest", "platform"))


def referrers(
    image_id: UUID, subject: str, *, artifact_type: str | None, after: int, limit: int
) -> tuple[list[Referrer], bool]:
    """Manifests of the image whose subject it is, in the order in which they came (checklist 127-128).

    At most `limit`, and no more than PAGE_SIZE of them together, but for a single one; and whether there are
    others behind them. Their annotations, which are shown, are a part of their bytes.
    """
    only, of_type = ("", []) if artifact_type is None else (_OF_TYPE, [artifact_type])
    of_subject = [id_parameter(image_id), subject, after]
    sizes = rows(_SIZES + only + _IN_ORDER + _LIMIT, [*of_subject, *of_type, limit + 1])
    page = _page(sizes[:limit])
    if not page:
        return [], bool(sizes)
    found = rows(_REFERRERS + only + _IN_ORDER, [*of_subject, page[-1], *of_type])
    listed = [Referrer(*(*described, json_from_db(annotations))) for *described, annotations in found]
    return listed, len(page) < len(sizes)


def _page(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The ids of the first ones that go into one answer."""
    page: list[int] = []
    together = 0
    for id_, size in sizes:
        together += size
        if page and together > PAGE_SIZE:
            break
        page.append(id_)
    return page
