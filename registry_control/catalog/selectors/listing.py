"""Queries for the images, tags and manifests that a principal may see in the management API.

The API finds them only through this module. An image is visible from its first manifest on, and until the
worker has deleted its row or it is in the recycle bin, where it has no `pushed_at`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import F, QuerySet, Sum

from registry_control.access.policy import Principal
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.common.errors import NotFound
from registry_control.common.models import Status, not_deleting_sql
from registry_control.db.sql import id_parameter, rows, uuid_from_db
from registry_control.namespaces import selectors as namespaces
from registry_control.namespaces.models import Namespace

_OF_IMAGE: Final = "namespace__project"
TAGS_SHOWN: Final = 100  # of each image in a list
_MAX_ROW_ID: Final = 2**63 - 1

# One subquery for each image, joined by UNION ALL: SQLite has no LATERAL, and a window function would read
# all tags of the images.
_NEWEST_TAGS: Final = f"""
SELECT newest.image_id, newest.name FROM (
    SELECT image_id, name FROM catalog_tag WHERE image_id = %s AND {not_deleting_sql()}
    ORDER BY created_at DESC, id DESC LIMIT 100
) newest
"""
_NEWEST_TAGS_ON: Final = f"""
SELECT newest.manifest_id, newest.name FROM (
    SELECT manifest_id, name FROM catalog_tag WHERE manifest_id = %s AND {not_deleting_sql()}
    ORDER BY created_at DESC, id DESC LIMIT 100
) newest
"""


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Exact values that images must have; None for any value."""

    name: str | None = None
    namespace_id: UUID | None = None
    project_id: UUID | None = None
    organization_id: UUID | None = None

    def namespaces(self, principal: Principal) -> QuerySet[Namespace]:
        """The namespaces that the principal may see and that match the filter."""
        wanted = {
            "pk": self.namespace_id,
            "project": self.project_id,
            "project__organization": self.organization_id,
        }
        given = {field: value for field, value in wanted.items() if value is not None}
        return namespaces.visible_to(principal).filter(**given)

    def is_all_of(self, principal: Principal) -> bool:
        """Whether the filter and the principal's rights include all namespaces of its organization.

        Without a namespace in the recycle bin, whose images keep their status.
        """
        narrower = (self.namespace_id, self.project_id) != (None, None)
        own = self.organization_id in (None, principal.organization_id)
        whole = namespaces.sees_all(principal) and own and not narrower
        return whole and not namespaces.any_recycled(principal.organization_id)


def images_visible_to(principal: Principal, wanted: ImageFilter) -> QuerySet[Image]:
    """The images that match a filter, of all namespaces that the principal may see.

    Each case filters by the first column of the index that suits it: SQLite has no statistics to choose one.
    """
    found = Image.objects.filter(pushed_at__isnull=False)
    own: dict[str, Any] = {"organization_id": principal.organization_id}
    if wanted.name is not None:
        found = found.filter(**own, name=wanted.name)
    elif wanted.namespace_id is not None:
        found = found.filter(namespace=wanted.namespace_id)
    elif wanted.is_all_of(principal):
        return found.filter(**own)
    return found.filter(namespace__in=wanted.namespaces(principal).values("pk"))


def count_images(principal: Principal, wanted: ImageFilter) -> int:
    """The number of images that `images_visible_to` finds, from the namespaces' counts where possible."""
    if wanted.name is not None:
        return images_visible_to(principal, wanted).count()
    seen = wanted.namespaces(principal)
    rows: int | None = seen.aggregate(total=Sum("image_rows"))["total"]
    own: dict[str, Any] = {"organization_id": principal.organization_id}
    hidden = Image.objects.filter(**own, pushed_at__isnull=True, namespace__in=seen.values("pk"))
    never_pushed = hidden.filter(origin_id__isnull=True)
    return (rows or 0) - never_pushed.count()


def get_visible_image(principal: Principal, image_id: UUID, *, lock: bool = False) -> Image:
    """One image, also while it is being deleted; `lock` locks its row.

    Raises:
        NotFound: there is no such image, or the principal may not know of it.
    """
    found = Image.objects.select_related(_OF_IMAGE).filter(pk=image_id, pushed_at__isnull=False)
    if lock:
        found = found.select_for_update(of=("self",))
    image = found.first()
    if image is None or not _may_see(principal, image):
        raise NotFound("image", image_id)
    return image


def _may_see(principal: Principal, image: Image) -> bool:
    """Whether the principal may know of an image, which is not in the recycle bin, nor is its namespace."""
    is_recycled = Status.RECYCLED in (image.status, image.namespace.status)
    return not is_recycled and namespaces.may_see(principal, image.namespace)


def tags_of(image: Image, *, name: str | None) -> tuple[QuerySet[Tag], int | None]:
    """The tags of an image, including those being deleted, and their number if no count is needed for it."""
    found = Tag.objects.filter(image=image)
    return (found, image.tag_rows) if name is None else (found.filter(name=name), None)


def get_visible_tag(principal: Principal, tag_id: UUID, *, lock: bool = False) -> Tag:
    """One tag with its `digest`; `lock` locks its row, after the caller has locked that of the image.

    Raises:
        NotFound: there is no such tag, or the principal may not know of it.
    """
    found = with_digest(Tag.objects.select_related(f"image__{_OF_IMAGE}").filter(pk=tag_id))
    if lock:
        found = found.select_for_update(of=("self",))
    tag = found.first()
    if tag is None or not _may_see(principal, tag.image):
        raise NotFound("tag", tag_id)
    return tag


def newest_tags_of(image_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The names of the newest `TAGS_SHOWN` tags of each image, in byte order, in one query."""
    newest: dict[UUID, list[str]] = {}
    if image_ids:
        sql = " UNION ALL ".join([_NEWEST_TAGS] * len(image_ids))
        for image_id, name in sorted(rows(sql, [id_parameter(image_id) for image_id in image_ids])):
            newest.setdefault(uuid_from_db(image_id), []).append(name)
    return newest


def manifests_of(image: Image, *, digest: str | None, is_reachable: bool | None) -> QuerySet[Manifest]:
    """The manifests of an image without their payloads, narrowed by exact filters."""
    wanted = {"digest": digest, "is_reachable": is_reachable}
    given = {field: value for field, value in wanted.items() if value is not None}
    return Manifest.objects.defer("payload").filter(image=image, **given)


def get_visible_manifest(principal: Principal, manifest_id: UUID, *, lock: bool = False) -> Manifest:
    """One manifest; `lock` locks the row of its image first, then its own.

    Raises:
        NotFound: there is none, or the principal may not know of it.
    """
    number = manifest_id.int
    if number > _MAX_ROW_ID:
        raise NotFound("manifest", manifest_id)
    locked = None
    if lock:
        of_image = Manifest.objects.filter(pk=number).values("image")
        locked = (
            Image.objects.select_for_update().filter(pk__in=of_image).values_list("pk", flat=True).first()
        )
    found = Manifest.objects.defer("payload").select_related(f"image__{_OF_IMAGE}").filter(pk=number)
    if lock:
        found = found.select_for_update(of=("self",))
    manifest = found.first()
    # A restore may have moved it to an image whose row is not locked: it was a deleted manifest a moment ago.
    has_moved = manifest is not None and lock and manifest.image_id != locked
    if manifest is None or has_moved or not _may_see(principal, manifest.image):
        raise NotFound("manifest", manifest_id)
    return manifest


def newest_tags_on(manifest_ids: Sequence[int]) -> dict[int, list[str]]:
    """The names of the newest `TAGS_SHOWN` tags of each manifest, in byte order, in one query."""
    newest: dict[int, list[str]] = {}
    if manifest_ids:
        sql = " UNION ALL ".join([_NEWEST_TAGS_ON] * len(manifest_ids))
        for manifest_id, name in sorted(rows(sql, manifest_ids)):
            newest.setdefault(manifest_id, []).append(name)
    return newest


def with_digest(tags: QuerySet[Tag]) -> QuerySet[Tag]:
    """Add the `digest` of each tag's manifest."""
    # Not with select_related, which would load the payload of the manifest.
    return tags.annotate(digest=F("manifest__digest"))
