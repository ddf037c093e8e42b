"""Images and tags that a principal may see in the management API; there is no other way to one there.

An image is shown from its first manifest on, and until its last row is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import F, QuerySet, Sum

from registry_control.access.policy import Principal
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.common.errors import NotFound
from registry_control.common.models import not_deleting_sql
from registry_control.db.sql import id_parameter, rows, uuid_from_db
from registry_control.namespaces import selectors as namespaces
from registry_control.namespaces.models import Namespace

_OF_IMAGE: Final = "namespace__project"
TAGS_SHOWN: Final = 100  # of each image in a list
_MAX_NUMBER: Final = 2**63 - 1  # of a row

# One for each image, put together by UNION ALL: SQLite knows no LATERAL, and a window over all tags of these
# images would read as many as there are.
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
    """Which images are wanted, by exact values; None for all."""

    name: str | None = None
    namespace_id: UUID | None = None
    project_id: UUID | None = None
    organization_id: UUID | None = None

    def namespaces(self, principal: Principal) -> QuerySet[Namespace]:
        """Those that the principal may see and whose images are wanted."""
        wanted = {
            "pk": self.namespace_id,
            "project": self.project_id,
            "project__organization": self.organization_id,
        }
        given = {field: value for field, value in wanted.items() if value is not None}
        return namespaces.visible_to(principal).filter(**given)

    def is_all_of(self, principal: Principal) -> bool:
        """Whether no namespace is left out that the principal's organization has."""
        narrower = (self.namespace_id, self.project_id) != (None, None)
        own = self.organization_id in (None, principal.organization_id)
        return namespaces.sees_all(principal) and own and not narrower


def images_visible_to(principal: Principal, wanted: ImageFilter) -> QuerySet[Image]:
    """Every image of every namespace that the principal may see, narrowed by a filter.

    Each case names what its index begins with, since SQLite knows nothing of how much there is.
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
    """How many images `images_visible_to` finds, without passing them all."""
    if wanted.name is not None:
        return images_visible_to(principal, wanted).count()
    seen = wanted.namespaces(principal)
    rows: int | None = seen.aggregate(total=Sum("image_rows"))["total"]
    own: dict[str, Any] = {"organization_id": principal.organization_id}
    never_pushed = Image.objects.filter(**own, pushed_at__isnull=True, namespace__in=seen.values("pk"))
    return (rows or 0) - never_pushed.count()


def get_visible_image(principal: Principal, image_id: UUID, *, lock: bool = False) -> Image:
    """One image, deleting ones included; `lock` takes its row for the present transaction.

    Raises:
        NotFound: there is none, or it is not the principal's to know.
    """
    found = Image.objects.select_related(_OF_IMAGE).filter(pk=image_id, pushed_at__isnull=False)
    if lock:
        found = found.select_for_update(of=("self",))
    image = found.first()
    if image is None or not namespaces.may_see(principal, image.namespace):
        raise NotFound("image", image_id)
    return image


def tags_of(image: Image, *, name: str | None) -> tuple[QuerySet[Tag], int | None]:
    """The tags of an image, deleting ones included; and how many, where that is known."""
    found = Tag.objects.filter(image=image)
    return (found, image.tag_rows) if name is None else (found.filter(name=name), None)


def get_visible_tag(principal: Principal, tag_id: UUID, *, lock: bool = False) -> Tag:
    """One tag with its `digest`; `lock` takes its row, whose image's row the caller holds.

    Raises:
        NotFound: there is none, or it is not the principal's to know.
    """
    found = with_digest(Tag.objects.select_related(f"image__{_OF_IMAGE}").filter(pk=tag_id))
    if lock:
        found = found.select_for_update(of=("self",))
    tag = found.first()
    if tag is None or not namespaces.may_see(principal, tag.image.namespace):
        raise NotFound("tag", tag_id)
    return tag


def newest_tags_of(image_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The names of the newest `TAGS_SHOWN` tags of each of these images, in byte order: one query for all."""
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
    if number > _MAX_NUMBER:
        raise NotFound("manifest", manifest_id)
    if lock:
        of_image = Manifest.objects.filter(pk=number).values("image")
        Image.objects.select_for_update().filter(pk__in=of_image).values_list("pk").first()
    found = Manifest.objects.defer("payload").select_related(f"image__{_OF_IMAGE}").filter(pk=number)
    if lock:
        found = found.select_for_update(of=("self",))
    manifest = found.first()
    if manifest is None or not namespaces.may_see(principal, manifest.image.namespace):
        raise NotFound("manifest", manifest_id)
    return manifest


def newest_tags_on(manifest_ids: Sequence[int]) -> dict[int, list[str]]:
    """The names of the newest `TAGS_SHOWN` tags on each of these manifests, in byte order."""
    newest: dict[int, list[str]] = {}
    if manifest_ids:
        sql = " UNION ALL ".join([_NEWEST_TAGS_ON] * len(manifest_ids))
        for manifest_id, name in sorted(rows(sql, manifest_ids)):
            newest.setdefault(manifest_id, []).append(name)
    return newest


def with_digest(tags: QuerySet[Tag]) -> QuerySet[Tag]:
    """Add the `digest` of what each stands for."""
    # Not by way of the manifest's row: that has all of its bytes.
    return tags.annotate(digest=F("manifest__digest"))
