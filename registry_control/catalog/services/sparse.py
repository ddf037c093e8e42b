"""Sparse indexes: indexes that list manifests which their image does not have (OCI 104).

The caller has locked the image's row, so that no manifest is pushed or deleted in between.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from registry_control.catalog.models import Image, Manifest
from registry_control.db.sql import execute, id_parameter, insert_many

_INSERT: Final = "INSERT INTO catalog_missingchild (image_id, parent_id, digest, platform) VALUES"
_INSERT_CHILD: Final = "INSERT INTO catalog_manifestchild (parent_id, child_id) VALUES"
_DELETE: Final = "DELETE FROM catalog_missingchild WHERE image_id = %s AND digest = %s"
_ORPHAN: Final = """
INSERT INTO catalog_missingchild (image_id, parent_id, digest, platform)
SELECT %s, c.parent_id, %s, '' FROM catalog_manifestchild c WHERE c.child_id = %s
"""


def record_missing_children(image_id: UUID, index_id: int, platforms: Mapping[str, str]) -> None:
    """Record the children that a pushed index lists and the image lacks: digests and their platforms."""
    image = id_parameter(image_id)
    insert_many(_INSERT, ([image, index_id, digest, platform] for digest, platform in platforms.items()))


def adopt(image_id: UUID, parents: Iterable[int], *, manifest_id: int, digest: str) -> None:
    """Make a new manifest the child of the indexes that were pushed before it and list it."""
    links = [[parent, manifest_id] for parent in parents]
    if links:
        insert_many(_INSERT_CHILD, links)
        execute(_DELETE, [id_parameter(image_id), digest])


def orphan(image: Image, manifest: Manifest) -> None:
    """Before a manifest is deleted: record it as a missing child of every index that lists it."""
    execute(_ORPHAN, [id_parameter(image.pk), manifest.digest, manifest.pk])
