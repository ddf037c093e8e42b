"""Sparse indexes: the manifests that they name and their image does not have (checklist 104).

All of it happens while the image's row is held, so none is pushed or deleted in between.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from registry_control.catalog.models import Image, Manifest, ManifestChild, MissingChild
from registry_control.db.sql import id_parameter, insert_many, rows

_INSERT: Final = "INSERT INTO catalog_missingchild (image_id, parent_id, digest, platform) VALUES"
_PARENTS: Final = "SELECT parent_id FROM catalog_missingchild WHERE image_id = %s AND digest = %s"


def record_missing_children(image_id: UUID, index_id: int, platforms: Mapping[str, str]) -> None:
    """Remember what an index does without: digests and their platforms."""
    image = id_parameter(image_id)
    insert_many(_INSERT, ([image, index_id, digest, platform] for digest, platform in platforms.items()))


def adopt(image_id: UUID, manifest_id: int, digest: str) -> None:
    """Make a new manifest the child of every index that was pushed before it."""
    parents = [parent for (parent,) in rows(_PARENTS, [id_parameter(image_id), digest])]
    if parents:
        ManifestChild.objects.bulk_create(
            ManifestChild(parent_id=parent, child_id=manifest_id) for parent in parents
        )
        MissingChild.objects.filter(image=image_id, digest=digest).delete()


def orphan(image: Image, manifest: Manifest) -> None:
    """Have the indexes that name a manifest wait for it, which is about to be deleted, to come back."""
    parents = list(manifest.parents.values_list("parent_id", flat=True))
    MissingChild.objects.bulk_create(
        MissingChild(image=image, parent_id=pk, digest=manifest.digest) for pk in parents
    )
