"""What an image has: bytes of manifests, pages of tags and referrers."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from registry_control.catalog.models import Manifest
from registry_control.common.sql import id_parameter, row, rows

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


def tag_names(image_id: UUID, *, after: str, limit: int) -> list[str]:
    """Names of tags in byte order, strictly after a name that need not exist (checklist 117-119)."""
    return [name for (name,) in rows(_TAG_NAMES, [id_parameter(image_id), after, limit])]


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
