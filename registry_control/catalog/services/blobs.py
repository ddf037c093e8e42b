"""Promises about blobs, and how uploaded bytes become one."""

import logging
from dataclasses import dataclass
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
from registry_control.db.sql import id_parameter, rows, time_parameter
from registry_data.storage.base import BlobStore, Key, NotStored, StorageError

logger = logging.getLogger(__name__)

_CLOSE: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE WHERE id = %s AND image_id = %s AND is_open RETURNING id
"""
_MAKE: Final = """
INSERT INTO catalog_blob (digest, size, storage_key, state, created_at) VALUES (%s, %s, %s, 'live', %s)
ON CONFLICT (digest) WHERE state = 'live' DO NOTHING RETURNING id
"""
_SHARE_BY_DIGEST: Final = "SELECT id FROM catalog_blob WHERE digest = %s AND state = 'live' FOR SHARE"
_BYTES_OF: Final = "SELECT size, storage_key FROM catalog_blob WHERE digest = %s AND state = 'live'"
_REPLACE: Final = """
UPDATE catalog_blob SET size = %s, storage_key = %s
WHERE digest = %s AND state = 'live' AND storage_key = %s RETURNING id
"""
_SHARE: Final = "SELECT id FROM catalog_blob WHERE id = %s AND state = 'live' FOR SHARE"


@dataclass(frozen=True, slots=True)
class NewBlob:
    """Bytes that are durable under a key of their own and that no row speaks of yet."""

    digest: str
    size: int  # bytes
    storage_key: str


@transaction.atomic
def record_upload(*, session_id: UUID, image_id: UUID, new: NewBlob) -> bool:
    """Make an upload's bytes a blob of its image, with a lease, and close the session.

    The closed row stays for the worker: were the process to die now, it would find by it what is left
    of the upload in the storage. Returns whether the bytes are needed: False when the registry had the
    blob already, so that the caller removes its own copy after the commit.

    Raises:
        ImageNotFound, ImageReadOnly, UploadNotFound: deleted, locked, cancelled or expired in the meantime;
            nothing is recorded.
    """
    _close(session_id, image_id)
    blob_id, is_new = _ensure(new)
    references.lease([blob_id], image_id=image_id)
    return is_new


@transaction.atomic
def record_duplicate(*, session_id: UUID, image_id: UUID, blob_id: int) -> None:
    """Lease a blob to the image to which the same bytes came once more, and close the session.

    Raises:
        ImageNotFound, ImageReadOnly, UploadNotFound: see `record_upload`.
        BlobNotFound: garbage collection took the blob first; nothing has changed.
    """
    _close(session_id, image_id)
    if not rows(_SHARE, [blob_id]):
        raise BlobNotFound
    references.lease([blob_id], image_id=image_id)


def _close(session_id: UUID, image_id: UUID) -> None:
    """Hold the image and end the session, in the transaction that makes the upload a blob."""
    images.lock_for_update(image_id)
    if not rows(_CLOSE, [id_parameter(session_id), id_parameter(image_id)]):
        raise UploadNotFound


def _ensure(new: NewBlob) -> tuple[int, bool]:
    """The id of the live blob of a digest, held, and whether it is this one.

    Where another upload of the same content commits first, its copy is the blob; and where a sweep takes
    that one before we do, ours is.
    """
    while True:
        if made := rows(_MAKE, [new.digest, new.size, new.storage_key, time_parameter(now())]):
            return made[0][0], True
        if found := rows(_SHARE_BY_DIGEST, [new.digest]):
            return found[0][0], False


def repair_missing_content(new: NewBlob, *, store: BlobStore) -> bool:
    """Where a blob's stored bytes are known to be gone, let it have these, which came again.

    So that pushing an image once more mends what a disk or a person has destroyed. Returns whether it does.

    Raises:
        StorageError: what there is of the old bytes cannot be removed.
    """
    found = rows(_BYTES_OF, [new.digest])
    if not found or not _are_lost(found[0][1], found[0][0], new, store):
        return False
    old_key = found[0][1]
    with transaction.atomic():
        if not rows(_REPLACE, [new.size, new.storage_key, new.digest, old_key]):
            return False  # another upload was faster
        record_change(EVERYTHING)  # any number of images may have the blob
    logger.warning("the bytes of %s were gone and have been replaced by an upload", new.digest)
    store.delete(Key(old_key))
    return True


def _are_lost(key: str, size: int, new: NewBlob, store: BlobStore) -> bool:
    try:
        return size != new.size or store.size(Key(key)) != new.size
    except NotStored:
        return True
    except StorageError:
        return False  # not known


@transaction.atomic
def promise(*, blob_id: int, image_id: UUID, even_read_only: bool = False) -> None:
    """Lease a blob to an image: a mount, or, of a locked one too, a HEAD that answered 200.

    Raises:
        ImageNotFound, ImageReadOnly: the image is being deleted, or locked by an administrator.
        BlobNotFound: garbage collection took the blob first.
    """
    images.lock_for_update(image_id, even_read_only=even_read_only)
    # Keeps the row from a sweep, or finds that a sweep took it from us.
    if not rows(_SHARE, [blob_id]):
        raise BlobNotFound
    references.lease([blob_id], image_id=image_id)


@transaction.atomic
def remove(*, actor: Actor, image_id: UUID, blob_id: int, digest: str) -> None:
    """Take a blob out of this image only (checklist 136).

    Raises:
        BlobInUse: a manifest needs it; deleting it would break what somebody pulls.
        BlobNotFound, ImageNotFound: there is nothing to remove.
        ImageReadOnly: an administrator wants it to stay.
    """
    image = images.lock_for_update(image_id)
    if references.is_linked(blob_id, image_id=image_id):
        raise BlobInUse
    if not references.release_lease(blob_id, image_id=image_id, cause=Cause.BLOB_DELETED):
        raise BlobNotFound
    record(actor=actor, verb="blob.delete", target=image.target, digest=digest)
