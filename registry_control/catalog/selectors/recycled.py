"""Queries for the contents of the recycle bin."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple
from uuid import UUID

from django.db.models import Min, QuerySet

from registry_control.catalog.models import BlobLease, Image, Manifest, UploadSession
from registry_control.common.models import NOT_DELETING, Status, not_deleting_sql
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import id_parameter, placeholders, rows, time_from_db, uuid_from_db
from registry_control.namespaces.models import Namespace, RecycleBinEntry

_PAGE: Final = 500  # blobs

# CROSS JOIN fixes the join order in SQLite.
_LIVE_LINK: Final = f"""
SELECT k.id FROM catalog_bloblink k CROSS JOIN catalog_image i CROSS JOIN namespaces_namespace n
WHERE k.blob_id = b.id AND i.id = k.image_id AND n.id = i.namespace_id
AND {not_deleting_sql("i")} AND {not_deleting_sql("n")} LIMIT 1
"""
_ENTRIES: Final = """
FROM catalog_bloblink k CROSS JOIN catalog_image i CROSS JOIN namespaces_recyclebinentry e
WHERE k.blob_id = b.id AND i.id = k.image_id AND e.row_id IN (i.id, i.namespace_id)
AND i.status <> 'deleting'
"""
# An image goes with its own entry or with that of its namespace, whatever ends first. Only constants are
# interpolated, and below placeholders.
_ONLY_RECYCLED: Final = f"""
SELECT b.id, (
    SELECT MAX(o.until) FROM (SELECT MIN(e.expires_at) AS until {_ENTRIES} GROUP BY i.id) o
), (SELECT i.id {_ENTRIES} ORDER BY i.id LIMIT 1)
FROM catalog_blob b WHERE ({_LIVE_LINK}) IS NULL AND b.id IN
"""


# The blobs of an image that no earlier image links which is not being deleted. For a blob that many images in
# the recycle bin share, that is one look at the index.
_FIRST_LINKED: Final = """
SELECT DISTINCT k.blob_id FROM catalog_bloblink k WHERE k.image_id = %s AND k.blob_id > %s AND (
    SELECT o.id FROM catalog_bloblink o CROSS JOIN catalog_image i CROSS JOIN namespaces_namespace n
    WHERE o.blob_id = k.blob_id AND o.image_id < k.image_id AND i.id = o.image_id AND n.id = i.namespace_id
    AND i.status <> 'deleting' AND n.status <> 'deleting' LIMIT 1
) IS NULL ORDER BY k.blob_id LIMIT %s
"""


class Recycled(NamedTuple):
    """A blob that only images in the recycle bin link."""

    until: datetime  # when the last of them leaves the bin
    image_id: UUID  # the first of them


def only_recycled(blob_ids: Sequence[int]) -> dict[int, Recycled]:
    """Those of some blobs that only images in the recycle bin link."""
    if not blob_ids:
        return {}
    found = rows(f"{_ONLY_RECYCLED} {placeholders(blob_ids)}", blob_ids)
    return {
        blob_id: Recycled(time_from_db(until), uuid_from_db(image_id))
        for blob_id, until, image_id in found
        if until is not None
    }


def _recycled_images() -> tuple[QuerySet[Image], QuerySet[Image]]:
    """The images in the recycle bin by themselves, and those there with their namespace.

    Two queries: for one, PostgreSQL would read all images.
    """
    namespaces = Namespace.objects.filter(status=Status.RECYCLED).values("pk")
    with_namespace = Image.objects.filter(NOT_DELETING, namespace__in=namespaces)
    return Image.objects.filter(status=Status.RECYCLED), with_namespace


def recycled_blobs() -> Iterator[dict[int, Recycled]]:
    """All blobs that only images in the recycle bin link, each once, in pages."""
    found = (images.values_list("pk", flat=True).iterator() for images in _recycled_images())
    for image_id in chain.from_iterable(found):
        after = 0
        while page := _first_linked_by(image_id, after):
            after = page[-1]
            yield {
                blob_id: found
                for blob_id, found in only_recycled(page).items()
                if found.image_id == image_id  # the others come with their own first image
            }


def _first_linked_by(image_id: UUID, after: int) -> list[int]:
    """The next blobs of which an image is the first that links them, in the order of their ids."""
    found = rows(_FIRST_LINKED, [id_parameter(image_id), after, _PAGE])
    return [blob_id for (blob_id,) in found]


def recycled_manifests() -> int:
    """The number of manifests in the recycle bin."""
    return sum(
        Manifest.objects.filter(image__in=images.values("pk")).count() for images in _recycled_images()
    )


def expired_manifests() -> int:
    """The number of manifests in the recycle bin whose time there is over."""
    expired = RecycleBinEntry.objects.filter(expires_at__lte=DatabaseNow(), row_id__isnull=False)
    kept = expired.values("row_id")
    in_namespaces = Image.objects.filter(namespace__in=kept).exclude(status=Status.DELETING)
    return sum(
        Manifest.objects.filter(image__in=images.values("pk")).count()
        for images in (Image.objects.filter(pk__in=kept), in_namespaces.exclude(pk__in=kept))
    )


def recycled_until(images: Collection[Image]) -> datetime | None:
    """When the last of some images leaves the recycle bin for good; None if none of them is in it."""
    ids = {row_id for image in images for row_id in (image.pk, image.namespace_id)}
    entries = RecycleBinEntry.objects.filter(row_id__in=ids).values_list("row_id").annotate(Min("expires_at"))
    ends: dict[UUID | None, datetime] = dict(entries)
    of_images = ([ends.get(image.pk), ends.get(image.namespace_id)] for image in images)
    untils = (min((end for end in each if end is not None), default=None) for each in of_images)
    return max((until for until in untils if until is not None), default=None)


def image_with_promises(namespace_id: UUID) -> UUID | None:
    """An image of a namespace that has leases or open uploads; None if there is none."""
    leases = BlobLease.objects.filter(image__namespace=namespace_id).values_list("image", flat=True)
    uploads = UploadSession.objects.filter(image__namespace=namespace_id, is_open=True)
    # Not `first`, which would order the rows.
    return next(chain(leases[:1], uploads.values_list("image", flat=True)[:1]), None)
