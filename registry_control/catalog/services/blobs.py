"""Recording uploaded blobs, leasing blobs to images, and deleting blobs from images."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction

from registry_control.audit.services import SYSTEM, Actor, Target, record
from registry_control.catalog import references
from registry_control.catalog.errors import BlobInUse, BlobNotFound, UploadNotFound
from registry_control.catalog.models import CURRENT_BLOB, Blob, live_sql
from registry_control.catalog.references import Cause
from registry_control.catalog.services import images
from registry_control.common.changes import EVERYTHING, record_change
from registry_control.common.signals import content_healed
from registry_control.db.sql import (
    Rows,
    Statement,
    execute,
    id_parameter,
    rows,
    rows_of_each,
)
from registry_data.storage.base import Key

logger = logging.getLogger(__name__)

_CLOSE: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE, stored_as = %s
WHERE id = %s AND image_id = %s AND is_open RETURNING id
"""
_INSERT: Final = """
INSERT INTO catalog_blob (digest, size, storage_key, state, created_at)
VALUES (%s, %s, %s, 'live', statement_timestamp())
ON CONFLICT (digest) WHERE NOT (state = 'deleting') DO NOTHING RETURNING id
"""
# `storage_key <> ''` is true of every row.
_SHARE_BY_DIGEST: Final = f"""
SELECT b.id FROM catalog_blob b WHERE b.digest = %s AND {live_sql("b")} AND b.storage_key <> %s FOR SHARE
"""
_LOCK_BROKEN: Final = f"""
SELECT id, size, storage_key, state FROM catalog_blob
WHERE digest = %s AND {CURRENT_BLOB} AND (state <> 'live' OR storage_key = %s) FOR UPDATE
"""
_REPLACE: Final = """
UPDATE catalog_blob SET size = %s, storage_key = %s, state = 'live', verified_at = statement_timestamp()
WHERE id = %s
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

    The row of the closed session, with the key, stays until the worker has deleted the upload's remaining
    files, so that they are found even if this process dies. Returns whether the blob has these bytes. If the
    registry has the blob already, they are a copy (`copies`), unless the existing blob is damaged or missing
    (ADR 64), or has its bytes under the key `replaces`, which the storage is known to have lost (ADR 34):
    then the blob gets these.

    The statements are the same whether the registry has the blob or not: their number must not tell what
    other tenants have (ADR 35).

    Raises:
        ImageNotFound: the image has been deleted since the upload started; nothing is recorded.
        ImageReadOnly: the image has been locked by an administrator since; nothing is recorded.
        UploadNotFound: the upload was cancelled or has expired; nothing is recorded.
    """
    image, closed, inserted, shared = rows_of_each(
        *_close_statements(session_id, image_id, stored_as=new.storage_key), *_ensuring(new, lost=replaces)
    )
    _check_closed(image_id, image, closed)
    # In the transaction that closes the session: from its commit on, the worker deletes bytes of the session
    # that no blob has.
    blob_id, is_new = _ensure(new, inserted, shared, lost=replaces)
    references.lease([blob_id], image_id=image_id)
    return is_new


def heal(new: NewBlob, lost: Key | None) -> int | None:
    """Give new bytes to the current blob of their digest if it is broken; returns its id then.

    It is broken if it was found damaged or missing, or if its bytes are under the key `lost`. All its links
    and leases stay. Garbage collection deletes what is left of the old bytes.
    """
    for blob_id, size, key, state in rows(_LOCK_BROKEN, [new.digest, lost or ""]):
        execute(_REPLACE, [new.size, new.storage_key, blob_id])
        references.discard_content(new.digest, size=size, key=key)
        record_change(EVERYTHING)  # any number of images may have the blob
        found_as = Blob.State.MISSING if state == Blob.State.LIVE else state
        record(
            actor=SYSTEM,
            verb="blob.healed",
            target=Target("blob", blob_id, new.digest, None),
            state=found_as,
            storage_key=new.storage_key,
        )
        content_healed.send(sender=Blob, blob_id=blob_id)
        logger.warning("the content of %s was %s; an upload has replaced it", new.digest, found_as)
        return int(blob_id)
    return None


@transaction.atomic
def record_duplicate(*, session_id: UUID, image_id: UUID, blob_id: int) -> None:
    """Lease an existing blob to the image that the same bytes were uploaded to, and close the session.

    Raises:
        ImageNotFound, ImageReadOnly, UploadNotFound: see `record_upload`.
        BlobNotFound: garbage collection has deleted the blob since; nothing is recorded.
    """
    close = _close_statements(session_id, image_id, stored_as="")
    image, closed, shared = rows_of_each(*close, (_SHARE, [blob_id]))
    _check_closed(image_id, image, closed)
    if not shared:
        raise BlobNotFound
    references.lease([blob_id], image_id=image_id)


def _close_statements(session_id: UUID, image_id: UUID, *, stored_as: str) -> tuple[Statement, Statement]:
    """Lock the image's row and close the session, in the transaction that records the blob."""
    close = [stored_as, id_parameter(session_id), id_parameter(image_id)]
    return images.lock_statement(image_id), (_CLOSE, close)


def _check_closed(image_id: UUID, image: Rows, closed: Rows) -> None:
    """Check the rows of `_close_statements`; an error rolls the whole transaction back."""
    images.locked(image_id, image)
    if not closed:
        raise UploadNotFound


def _ensuring(new: NewBlob, *, lost: Key | None) -> tuple[Statement, Statement]:
    """Insert a live blob unless there is one, and lock whichever is there then."""
    return (
        (_INSERT, [new.digest, new.size, new.storage_key]),
        (_SHARE_BY_DIGEST, [new.digest, lost or ""]),
    )


def _ensure(new: NewBlob, inserted: Rows, shared: Rows, *, lost: Key | None) -> tuple[int, bool]:
    """The id of the live blob with a digest, and whether it has the new bytes, from the rows of `_ensuring`.

    The row of the live blob is locked. Inserts again if garbage collection has deleted the existing blob
    meanwhile.
    """
    while True:
        for (blob_id,) in shared:
            return blob_id, bool(inserted)
        if (healed := heal(new, lost)) is not None:
            return healed, True
        inserted, shared = rows_of_each(*_ensuring(new, lost=lost))


@transaction.atomic
def promise(
    *, blob_id: int, image_id: UUID, even_read_only: bool = False, at_least: timedelta | None = None
) -> None:
    """Lease a blob to an image, for a mount or for a HEAD that returns 200; for `BLOB_LEASE` or longer.

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
    references.lease([blob_id], image_id=image_id, at_least=at_least)


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
