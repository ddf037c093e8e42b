"""Queries for the images that have a blob, and for images without contents."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from registry_control.catalog.models import (
    CURRENT_BLOB,
    Blob,
    BlobLease,
    Image,
    Manifest,
    Tag,
    UploadSession,
)
from registry_control.common.models import DELETED, NOT_DELETING, Status, not_deleting_sql
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import Rows, batches, id_parameter, placeholders, row, rows
from registry_control.namespaces.models import Namespace

# A longer search would cost more than an upload of the blob; clients can name the source image themselves.
_MAX_IMAGES: Final = 20

# Skips from one image to the next in the index, however many manifests of an image link the blob, and stops
# after 200 images: nearly every image of a registry may have the same base layer. CROSS JOIN fixes the join
# order in SQLite, which would otherwise read all images of the organization.
_LINKED: Final = f"""
WITH RECURSIVE holder (image_id, number) AS (
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s ORDER BY k.image_id LIMIT 1), 1
    UNION ALL
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s AND k.image_id > h.image_id
            ORDER BY k.image_id LIMIT 1), h.number + 1
    FROM holder h WHERE h.image_id IS NOT NULL AND h.number < 200
)
SELECT n.name, i.name
FROM holder h
CROSS JOIN catalog_image i
CROSS JOIN namespaces_namespace n
CROSS JOIN identity_project p
WHERE i.id = h.image_id AND n.id = i.namespace_id AND p.id = n.project_id AND p.organization_id = %s
AND {not_deleting_sql("i")} AND {not_deleting_sql("n")}
ORDER BY h.number LIMIT 20
"""
# The same for many blobs at once.
_LINKED_ANYWHERE: Final = """
WITH RECURSIVE holder (blob_id, image_id, number) AS (
    SELECT b.id, (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = b.id
                  ORDER BY k.image_id LIMIT 1), 1
    FROM catalog_blob b WHERE b.id IN {ids}
    UNION ALL
    SELECT h.blob_id, (SELECT k.image_id FROM catalog_bloblink k
                       WHERE k.blob_id = h.blob_id AND k.image_id > h.image_id
                       ORDER BY k.image_id LIMIT 1), h.number + 1
    FROM holder h WHERE h.image_id IS NOT NULL AND h.number < %s
)
SELECT h.blob_id, n.name, i.name
FROM holder h
CROSS JOIN catalog_image i
CROSS JOIN namespaces_namespace n
WHERE i.id = h.image_id AND n.id = i.namespace_id
"""
# One subquery for each blob, joined by UNION ALL: SQLite has no LATERAL, and a window function would read all
# leases of the blobs.
_SOME_LEASES: Final = """
SELECT part.blob_id, part.image_id FROM (
    SELECT blob_id, image_id FROM catalog_bloblease WHERE blob_id = %s LIMIT %s
) part
"""
_LEASED_ANYWHERE: Final = """
SELECT l.blob_id, n.name, i.name
FROM ({leases}) l
CROSS JOIN catalog_image i
CROSS JOIN namespaces_namespace n
WHERE i.id = l.image_id AND n.id = i.namespace_id
"""
_MOST_SUBQUERIES: Final = 500  # of one statement, by SQLite's default limit

# Examines 20 images in index order. If all of them belong to other organizations, the uploaded bytes are
# stored like those of an unknown blob.
_CURRENT: Final = f"""
SELECT b.id, b.size, b.storage_key, b.state, EXISTS (
    SELECT 1
    FROM (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = b.id ORDER BY k.image_id LIMIT 20) h
    CROSS JOIN catalog_image i
    CROSS JOIN catalog_image here
    WHERE i.id = h.image_id AND here.id = %s AND i.organization_id = here.organization_id
)
FROM catalog_blob b WHERE b.digest = %s AND {CURRENT_BLOB}
"""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob and the storage key of its bytes."""

    id: int
    size: int  # bytes
    storage_key: str


@dataclass(frozen=True, slots=True)
class CurrentBlob:
    """A blob that is not being deleted; live, or found damaged or missing."""

    stored: StoredBlob
    state: Blob.State
    is_in_organization: bool
    """Whether one of the first images that link it is of the same organization as a given image."""


def find_blob(digest: str, *, image_id: UUID) -> CurrentBlob | None:
    """The blob of a digest, if the registry has one, seen from an image."""
    found = row(_CURRENT, [id_parameter(image_id), digest])
    if found is None:
        return None
    blob_id, size, storage_key, state, is_in_organization = found
    stored = StoredBlob(blob_id, size, storage_key)
    return CurrentBlob(stored, Blob.State(state), bool(is_in_organization))


def images_with(blob_id: int, *, organization_id: UUID) -> list[tuple[str, str]]:
    """Namespace and name of some images of an organization that have a blob, by a link or a lease."""
    linked = rows(_LINKED, [blob_id, blob_id, id_parameter(organization_id)])
    some = BlobLease.objects.filter(blob=blob_id, expires_at__gt=DatabaseNow()).values("pk")[
        : _MAX_IMAGES * 10
    ]
    # Conditions on the joined tables: with a subquery for the images, SQLite scans all leases.
    leases = BlobLease.objects.filter(
        ~Q(image__status__in=DELETED),
        ~Q(image__namespace__status__in=DELETED),
        pk__in=some,
        image__namespace__project__organization=organization_id,
    ).values_list("image__namespace__name", "image__name")
    return list(dict.fromkeys([*((namespace, name) for namespace, name in linked), *leases[:_MAX_IMAGES]]))


def names_of_images_with(blob_ids: Collection[int], *, limit: int = 200) -> dict[int, list[str]]:
    """The names of some of the images of all organizations that have each of some blobs, for operators."""
    ids = list(dict.fromkeys(blob_ids))
    names: dict[int, set[str]] = {blob_id: set() for blob_id in ids}
    for blob_id, namespace, name in [*_linked_anywhere(ids, limit), *_leased_anywhere(ids, limit)]:
        names[blob_id].add(f"{namespace}/{name}")
    return {blob_id: sorted(found)[:limit] for blob_id, found in names.items()}


def _linked_anywhere(blob_ids: Sequence[int], limit: int) -> Rows:
    if not blob_ids:
        return []
    return rows(_LINKED_ANYWHERE.format(ids=placeholders(blob_ids)), [*blob_ids, limit])


def _leased_anywhere(blob_ids: Sequence[int], limit: int) -> Rows:
    found: Rows = []
    for batch in batches(blob_ids, _MOST_SUBQUERIES):
        leases = " UNION ALL ".join([_SOME_LEASES] * len(batch))
        parameters = [value for blob_id in batch for value in (blob_id, limit)]
        found += rows(_LEASED_ANYWHERE.format(leases=leases), parameters)
    return found


def deletions_pending() -> bool:
    """Whether the worker has yet to remove rows of deleted namespaces, images or tags."""
    return any(model.objects.filter(status=Status.DELETING).exists() for model in (Namespace, Image, Tag))


def manifests_being_deleted() -> int:
    """The number of manifests of images and namespaces whose deletion the worker has yet to finish."""
    deleting = Q(status=Status.DELETING) | Q(namespace__status=Status.DELETING)
    return Manifest.objects.filter(image__in=Image.objects.filter(deleting).values("pk")).count()


def leases_have_expired() -> bool:
    """Whether the worker has yet to delete an expired lease."""
    return BlobLease.objects.filter(expires_at__lte=DatabaseNow()).exists()


def idle_images(before: datetime) -> QuerySet[Image]:
    """Images created before a time that have no manifest yet, no upload session and no valid lease."""
    uploading = UploadSession.objects.filter(image=OuterRef("pk"))
    leased = BlobLease.objects.filter(image=OuterRef("pk"), expires_at__gt=DatabaseNow())
    return Image.objects.filter(
        NOT_DELETING, ~Exists(uploading), ~Exists(leased), pushed_at=None, created_at__lte=before
    )
