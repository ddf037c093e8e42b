"""What an image has: bytes of manifests, pages of tags and referrers."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import Value
from django.db.models.functions import Concat

from registry_control.access.policy import Principal
from registry_control.catalog.models import AwaitedChild, Image, Manifest
from registry_control.common.fields import ByteOrderedField
from registry_control.common.models import Status
from registry_control.common.sql import id_parameter, row, rows
from registry_control.namespaces.selectors import visible_to

_TAG: Final = """
SELECT id, manifest_id FROM catalog_tag WHERE image_id = %s AND name = %s AND NOT (status = 'deleting')
"""
_TAG_NAMES: Final = """
SELECT name FROM catalog_tag
WHERE image_id = %s AND NOT (status = 'deleting') AND name > %s ORDER BY name LIMIT %s
"""


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
    found = Manifest.objects.filter(pk=manifest_id).values_list("payload", flat=True).first()
    return None if found is None else bytes(found)


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
    """Full names of the images that a principal has a role on, in byte order, strictly after one (121)."""
    pushed = Image.objects.filter(namespace__in=visible_to(principal), pushed_at__isnull=False)
    there = pushed.exclude(status=Status.DELETING).exclude(namespace__status=Status.DELETING)
    named = there.annotate(
        full_name=Concat("namespace__name", Value("/"), "name", output_field=ByteOrderedField())
    )
    found = named.filter(full_name__gt=after).order_by("full_name").values_list("full_name", flat=True)
    return list(found[:limit])


def awaited_children(image_id: UUID, index_digest: str) -> list[tuple[str, str]]:
    """Digest and platform of each manifest that an index names and the image does not have."""
    found = AwaitedChild.objects.filter(parent__image=image_id, parent__digest=index_digest)
    return list(found.order_by("digest").values_list("digest", "platform"))


def referrers(
    image_id: UUID, subject: str, *, artifact_type: str | None, after: int, limit: int
) -> list[Referrer]:
    """Manifests of the image whose subject it is, in the order in which they came (checklist 128)."""
    found = Manifest.objects.filter(image=image_id, subject_digest=subject, pk__gt=after)
    if artifact_type is not None:
        found = found.filter(artifact_type=artifact_type)
    columns = found.order_by("pk").values_list(
        "pk", "digest", "media_type", "size", "artifact_type", "annotations"
    )
    return [Referrer(*values) for values in columns[:limit]]
