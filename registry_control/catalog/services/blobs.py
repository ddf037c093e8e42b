"""Recording uploaded blobs, leasing blobs to images, and deleting blobs from images."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction

from registry_control.audit.services import Actor, record
from registry_control.catalog import references
from registry_control.catalog.errors import BlobInUse, BlobNotFound, UploadNotFound
from registry_control.catalog.references import Cause
from registry_control.catalog.services import images
from registry_control.common.changes import EVERYTHING, record_change
from registry_control.common.clock import now
from registry_control.db.sql import (
    Rows,
    Statement,
    id_parameter,
    rows,
    rows_of_each,
    time_parameter,
)
from registry_data.storage.base import Key

logger = logging.getLogger(__name__)

_CLOSE: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE WHERE id = %s AND image_id = %s AND is_open RETURNING id
"""
_INSERT: Final = """
INSERT INTO catalog_blob (digest, size, storage_key, state, created_at) VALUES (%s, %s, %s, 'live', %s)
ON CONFLICT (digest) WHERE state = 'live' DO NOTHING RETURNING id
"""
_SHARE_BY_DIGEST: Final = "SELECT id FROM catalog_blob WHERE digest = %s AND state = 'live' FOR SHARE"
_REPLACE: Final = """
UPDATE catalog_blob SET size = %s, storage_key = %s
WHERE digest = %s AND state = 'live' AND storage_key = %s RETURNING id
"""
_SHARE: Final = "SELECT id FROM catalog_blob WHERE id = %s AND state = 'live' FOR SHARE"


@dataclass(frozen=True, slots=True)
class NewBlob:
    """Bytes that are durable in the blob store under a key that no database row has yet."""

    digest: str
    size: int  # bytes
    storage_key: str


@transaction.atomic
def record_upload(*, session_id: UUID, image_id: UUID, new: NewBlob, replaces: Key | None = None) -> bool:
    """Record an upload's bytes as a blob, lease it to the image, and close the session.

    The row of the closed session stays until the worker has deleted the upload's remaining files, so that
    they are found even if this process dies. Returns whether the blob has these bytes. If the registry has
    the blob already, they are a copy, which the worker deletes too, unless the existing blob has its bytes
    under the key `replaces`, which the storage is known to have lost: then the blob gets these (ADR 34).

    Raises:
        ImageNotFound: the image has been deleted since the upload started; nothing is recorded.
        ImageReadOnly: the image has been locked by an administrator since; nothing is recorded.
        UploadNotFound: the upload was cancelled or has expired; nothing is recorded.
    """
    image, closed, inserted = rows_of_each(*_close_statements(session_id, image_id), _insert_statement(new))
    _check_closed(image_id, image, closed)
    # In the transaction that closes the session: from its commit on, the worker deletes bytes of the session
    # that no blob has.
    repaired = _replace(new, replaces) if replaces is not None and not inserted else []
    blob_id, is_new = _ensure(new, [*inserted, *repaired])
    references.lease([blob_id], image_id=image_id)
    return is_new


def _replace(new: NewBlob, lost: Key) -> Rows:
    """Point the live blob to new bytes if it still has the key `lost`; returns its row then."""
    replaced = rows(_REPLACE, [new.size, new.storage_key, new.digest, lost])
    if replaced:
        record_change(EVERYTHING)  # any number of images may have the blob
        logger.warning("the stored bytes of %s were lost; an upload has replaced them", new.digest)
    return replaced


@transaction.atomic
def record_duplicate(*, session_id: UUID, image_id: UUID, blob_id: int) -> None:
    """Lease an existing blob to the image that the same bytes were uploaded to, and close the session.

    Raises:
        ImageNotFound, ImageReadOnly, UploadNotFound: see `record_upload`.
        BlobNotFound: garbage collection has deleted the blob since; nothing is recorded.
    """
    image, closed, shared = rows_of_each(*_close_statements(session_id, image_id), (_SHARE, [blob_id]))
    _check_closed(image_id, image, closed)
    if not shared:
        raise BlobNotFound
    references.lease([blob_id], image_id=image_id)


def _close_statements(session_id: UUID, image_id: UUID) -> tuple[Statement, Statement]:
    """Lock the image's row and close the session, in the transaction that records the blob."""
    return images.lock_statement(image_id), (_CLOSE, [id_parameter(session_id), id_parameter(image_id)])


def _check_closed(image_id: UUID, image: Rows, closed: Rows) -> None:
    """Check the rows of `_close_statements`; an error rolls the whole transaction back."""
    images.locked(image_id, image)
    if not closed:
        raise UploadNotFound


def _insert_statement(new: NewBlob) -> Statement:
    return _INSERT, [new.digest, new.size, new.storage_key, time_parameter(now())]


def _ensure(new: NewBlob, inserted: Rows) -> tuple[int, bool]:
    """The id of the live blob with a digest, and whether it has the new bytes, as the rows `inserted` do.

    The row of the live blob is locked. Inserts again if garbage collection has deleted the existing blob
    meanwhile.
    """
    while True:
        for (blob_id,) in inserted:
            return blob_id, True
        for (blob_id,) in rows(_SHARE_BY_DIGEST, [new.digest]):
            return blob_id, False
        inserted = rows(*_insert_statement(new))


@transaction.atomic
def promise(
    *, blob_id: int, image_id: UUID, even_read_only: bool = False, until: datetime | None = None
) -> None:
    """Lease a blob to an image, for a mount or for a HEAD that returns 200; by default for `BLOB_LEASE`.

    A client may skip the upload after such a HEAD, so it leases blobs of read-only images too.

    Raises:
        ImageNotFound: the image or its namespace is deleted or being deleted.
        ImageReadOnly: the image or its namespace is locked, and `even_read_only` is False.
        BlobNotFound: garbage collection has deleted the blob.
    """
    images.lock_for_update(image_id, even_read_only=even_read_only)
    # The share lock prevents garbage collection from deleting the blob before this transaction commits.
    if not rows(_SHARE, [blob_id]):
        raise BlobNotFound
    references.lease([blob_id], image_id=image_id, until=until)


@transaction.atomic
def end_promises(digests: Collection[str], *, image_id: UUID) -> None:
    """Let the leases of blobs to an image last no longer than if they were promised now."""
    references.shorten_leases(digests, image_id=image_id)


@transaction.atomic
def remove(*, actor: Actor, image_id: UUID, blob_id: int, digest: str) -> None:
    """Delete a blob from this image only (OCI 136).

    Raises:
        BlobInUse: a manifest of the image references it.
        BlobNotFound, ImageNotFound: there is no such image, or the image does not have the blob.
        ImageReadOnly: the image or its namespace is locked by an administrator.
    """
    image = images.lock_for_update(image_id)
    if references.is_linked(blob_id, image_id=image_id):
        raise BlobInUse
    if not references.release_lease(blob_id, image_id=image_id, cause=Cause.BLOB_DELETED):
        raise BlobNotFound
    record(actor=actor, verb="blob.delete", target=image.target, digest=digest)
