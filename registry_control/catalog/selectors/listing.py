"""Images and tags that a principal may see in the management API; there is no other way to one there.

An image is shown from its first manifest on, and until its last row is gone.
"""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from django.db.models import F, QuerySet

from registry_control.access.policy import Principal
from registry_control.catalog.models import Image, Tag
from registry_control.common.errors import NotFound
from registry_control.common.models import Status
from registry_control.namespaces import selectors as namespaces

_OF_IMAGE: Final = "namespace__project"


def images_visible_to(
    principal: Principal,
    *,
    name: str | None,
    namespace_id: UUID | None,
    project_id: UUID | None,
    organization_id: UUID | None,
) -> QuerySet[Image]:
    """Every image of every namespace that the principal may see, narrowed by exact filters."""
    wanted = {
        "name": name,
        "namespace": namespace_id,
        "namespace__project": project_id,
        "namespace__project__organization": organization_id,
    }
    given = {field: value for field, value in wanted.items() if value is not None}
    seen = namespaces.visible_to(principal).values("pk")
    return Image.objects.filter(namespace__in=seen, pushed_at__isnull=False, **given)


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


def tags_of(image: Image, *, name: str | None) -> QuerySet[Tag]:
    """The tags of an image, deleting ones included."""
    found = Tag.objects.filter(image=image)
    return found if name is None else found.filter(name=name)


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


def names_of_tags(image_ids: Iterable[UUID]) -> dict[UUID, list[str]]:
    """The names that stand for something in each of these images, in byte order: one query for all."""
    found = Tag.objects.filter(image__in=list(image_ids)).exclude(status=Status.DELETING)
    names: dict[UUID, list[str]] = {}
    for image_id, name in found.order_by("image", "name").values_list("image_id", "name"):
        names.setdefault(image_id, []).append(name)
    return names


def with_digest(tags: QuerySet[Tag]) -> QuerySet[Tag]:
    """Add the `digest` of what each stands for."""
    # Not by way of the manifest's row: that has all of its bytes.
    return tags.annotate(digest=F("manifest__digest"))
