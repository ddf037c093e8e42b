"""Sparse indexes: indexes that list manifests which their image does not have (OCI 104).

The caller has locked the image's row, so that no manifest is pushed or deleted in between. An index in the
recycle bin belongs to another row (ADR 60), and the worker may be deleting it at this moment: statements that
refer to indexes lock their rows and skip those that have been deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from registry_control.db.sql import execute, id_parameter, insert_many, placeholders

_INSERT: Final = "INSERT INTO catalog_missingchild (image_id, parent_id, digest, platform) VALUES"
_LOCK_PARENTS: Final = "ORDER BY p.id FOR KEY SHARE OF p"
_INSERT_CHILD: Final = """
INSERT INTO catalog_manifestchild (parent_id, child_id) SELECT p.id, %s FROM catalog_manifest p WHERE p.id IN
"""
_DELETE: Final = "DELETE FROM catalog_missingchild WHERE image_id = %s AND digest = %s"
_ADOPT: Final = """
INSERT INTO catalog_manifestchild (parent_id, child_id)
SELECT w.parent_id, m.id FROM catalog_manifest m
JOIN catalog_missingchild w ON w.image_id = m.image_id AND w.digest = m.digest
JOIN catalog_manifest p ON p.id = w.parent_id
WHERE m.id IN
"""
_DELETE_ALL: Final = """
DELETE FROM catalog_missingchild WHERE image_id = %s AND digest IN
"""
_ORPHAN: Final = """
INSERT INTO catalog_missingchild (image_id, parent_id, digest, platform)
SELECT %s, c.parent_id, m.digest, '' FROM catalog_manifestchild c
JOIN catalog_manifest m ON m.id = c.child_id
JOIN catalog_manifest p ON p.id = c.parent_id
WHERE c.child_id IN
"""


def record_missing_children(image_id: UUID, index_id: int, platforms: Mapping[str, str]) -> None:
    """Record the children that a pushed index lists and the image lacks: digests and their platforms."""
    image = id_parameter(image_id)
    insert_many(_INSERT, ([image, index_id, digest, platform] for digest, platform in platforms.items()))


def adopt(image_id: UUID, parents: Iterable[int], *, manifest_id: int, digest: str) -> None:
    """Make a new manifest the child of the indexes that were pushed before it and list it."""
    if ids := sorted(parents):
        execute(f"{_INSERT_CHILD} {placeholders(ids)} {_LOCK_PARENTS}", [manifest_id, *ids])
        execute(_DELETE, [id_parameter(image_id), digest])


def adopt_all(image_id: UUID, manifest_ids: Sequence[int]) -> None:
    """Make manifests of an image the children of all indexes that list them and miss them."""
    which = placeholders(manifest_ids)
    execute(f"{_ADOPT} {which} {_LOCK_PARENTS}", manifest_ids)
    digests = f"(SELECT digest FROM catalog_manifest WHERE id IN {which})"
    execute(f"{_DELETE_ALL} {digests}", [id_parameter(image_id), *manifest_ids])


def orphan(image_id: UUID, manifest_ids: Sequence[int]) -> None:
    """Before manifests are deleted: record them as missing children of every index that lists them."""
    which = placeholders(manifest_ids)
    execute(f"{_ORPHAN} {which} {_LOCK_PARENTS}", [id_parameter(image_id), *manifest_ids])
