"""The contents of images: payloads of manifests, pages of tags, repositories and referrers."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import QuerySet, Value
from django.db.models.functions import Concat

from registry_control.access.policy import Principal
from registry_control.catalog.models import Image, Manifest, MissingChild
from registry_control.common.changes import image_scope, organization_scope, repositories_scope
from registry_control.common.models import NOT_DELETING, not_deleting_sql
from registry_control.db.fields import ByteOrderedField
from registry_control.db.sql import DependsOn, Rows, id_parameter, row, rows
from registry_control.namespaces.selectors import visible_to

_TAG: Final = f"""
SELECT id, manifest_id FROM catalog_tag WHERE image_id = %s AND name = %s AND {not_deleting_sql()}
"""
_PAYLOAD: Final = "SELECT payload FROM catalog_manifest WHERE id = %s"
_OF_SUBJECT: Final = "FROM catalog_referrer WHERE image_id = %s AND subject_digest = %s AND manifest_id > %s"
_OF_TYPE: Final = " AND artifact_type = %s"
_SIZES: Final = f"SELECT manifest_id, size {_OF_SUBJECT}"
_DESCRIPTORS: Final = f"SELECT descriptor {_OF_SUBJECT}"
_FIRST: Final = " ORDER BY manifest_id LIMIT %s"
_UP_TO: Final = " AND manifest_id <= %s ORDER BY manifest_id"
_TAG_NAMES: Final = f"""
SELECT name FROM catalog_tag
WHERE image_id = %s AND {not_deleting_sql()} AND name > %s ORDER BY name LIMIT %s
"""

# Not the order of the names alone: `a-b/` comes before `a/`.
_PATH: Final = Concat("name", Value("/"), output_field=ByteOrderedField())
_NAMESPACES_AT_ONCE: Final = 400
PAGE_SIZE: Final = 1024 * 1024  # bytes of a response's descriptors (OCI 127)


class TagRow(NamedTuple):
    """A tag that is not being deleted."""

    id: UUID | str  # as the database returns it
    manifest_id: int


class _NamespacePath(NamedTuple):
    """A namespace with the prefix of the full names of its images."""

    path: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Referrers:
    """The referrers of one subject in an image, optionally of one artifact type only."""

    image_id: UUID
    subject: str
    artifact_type: str | None

    def select(self, columns: str, end: str, *, after: int, stop: int) -> list[tuple[Any, ...]]:
        """Run one of the queries of this module; `end` orders the rows and bounds them by `stop`."""
        parameters = [id_parameter(self.image_id), self.subject, after]
        if self.artifact_type is None:
            return rows(columns + end, [*parameters, stop], depends_on=_of_image(self.image_id))
        parameters.append(self.artifact_type)
        return rows(columns + _OF_TYPE + end, [*parameters, stop], depends_on=_of_image(self.image_id))


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """The part of a referrers list that one response contains: after manifest `after`, up to `last`."""

    referrers: Referrers
    after: int
    last: int
    size: int  # bytes of the descriptors
    has_more: bool


def payload(manifest_id: int) -> bytes | None:
    """The bytes of a manifest as they were pushed; None if it has just been deleted."""
    found = row(_PAYLOAD, [manifest_id], depends_on=_never_changes)
    if found is None:
        return None
    (stored,) = found
    return bytes(stored)


def _never_changes(found: Rows) -> tuple[str, ...] | None:
    """The bytes of a manifest never change; that it does not exist cannot be cached by scope."""
    return () if found else None


def _of_image(image_id: UUID) -> DependsOn:
    scopes = (image_scope(image_id),)
    return lambda _: scopes


def tag_row(image_id: UUID, name: str) -> TagRow | None:
    """A tag of an image by its name; None if there is none."""
    found = row(_TAG, [id_parameter(image_id), name])
    return None if found is None else TagRow(*found)


def digest_of(image_id: UUID, reference: str) -> str | None:
    """The digest of the manifest with a tag or digest in an image; None if there is none."""
    if ":" in reference:
        return reference if Manifest.objects.filter(image=image_id, digest=reference).exists() else None
    found = tag_row(image_id, reference)
    if found is None:
        return None
    return Manifest.objects.values_list("digest", flat=True).get(pk=found.manifest_id)


def tag_names(image_id: UUID, *, after: str, limit: int) -> list[str]:
    """List tags in byte order, after a name that need not exist (OCI 117-119)."""
    found = rows(_TAG_NAMES, [id_parameter(image_id), after, limit], depends_on=_of_image(image_id))
    return [name for (name,) in found]


def repository_names(principal: Principal, *, after: str, limit: int) -> list[str]:
    """List the images on which a principal has a role, by full name in byte order, after a name (OCI 121).

    The images are queried for one namespace, then for four more, and so on, so that the cost of a page
    depends on its length and not on the number of images.
    """
    begin = after[: after.find("/") + 1] or after
    there = visible_to(principal).filter(NOT_DELETING).annotate(path=_PATH).order_by("path")
    names: list[str] = []
    left = _paths(there.filter(path__gte=begin))
    at_once = 1  # the page may begin in the middle of the first namespace
    while left and len(names) < limit:
        now, left = left[:at_once], left[at_once:]
        last = after.removeprefix(begin) if now[0].path == begin else ""
        names += _names_in([namespace.id for namespace in now], after=last, limit=limit - len(names))
        at_once *= 4
        left = left or _paths(there.filter(path__gt=now[-1].path))
    return names


def scopes_of_repository_names(principal: Principal) -> tuple[str, ...] | None:
    """What `repository_names` depends on; None for a principal without an organization."""
    organization_id = principal.organization_id
    if organization_id is None:
        return None
    return organization_scope(organization_id), repositories_scope(organization_id)


def _paths(namespaces: QuerySet[Any]) -> list[_NamespacePath]:
    """The first namespaces of a query."""
    found = namespaces.values_list("path", "pk")[:_NAMESPACES_AT_ONCE]
    return [_NamespacePath(path, pk) for path, pk in found]


def _names_in(namespaces: list[UUID], *, after: str, limit: int) -> list[str]:
    """Full names of the pushed images of some namespaces, in byte order; `after` is an image name."""
    pushed = Image.objects.filter(namespace__in=namespaces, name__gt=after, pushed_at__isnull=False)
    prefix = Concat("namespace__name", Value("/"), output_field=ByteOrderedField())
    found = pushed.filter(NOT_DELETING).order_by(prefix, "name")
    return [f"{namespace}/{name}" for namespace, name in found.values_list("namespace__name", "name")[:limit]]


def missing_children(image_id: UUID, index_digest: str) -> list[tuple[str, str]]:
    """Digest and platform of each missing child of an index."""
    found = MissingChild.objects.filter(parent__image=image_id, parent__digest=index_digest)
    return list(found.order_by("digest").values_list("digest", "platform"))


def referrers_page(referrers: Referrers, *, after: int, limit: int) -> ReferrersPage | None:
    """Choose the next page of a list, in the order of the pushes (OCI 127-128); None when it is empty.

    A page has at most `limit` entries and PAGE_SIZE bytes, or a single entry. Only ids and sizes are read
    here, so the cost does not depend on how long the descriptors are.
    """
    sizes = referrers.select(_SIZES, _FIRST, after=after, stop=limit + 1)
    last = total = 0
    for count, (manifest_id, size) in enumerate(sizes):
        if count == limit or (count and total + size > PAGE_SIZE):
            return ReferrersPage(referrers, after, last, total, has_more=True) if count else None
        last, total = manifest_id, total + size
    return ReferrersPage(referrers, after, last, total, has_more=False) if sizes else None


def referrer_descriptors(page: ReferrersPage) -> list[bytes]:
    """The descriptors of a page as JSON, in the order of the pushes."""
    found = page.referrers.select(_DESCRIPTORS, _UP_TO, after=page.after, stop=page.last)
    return [bytes(descriptor) for (descriptor,) in found]
