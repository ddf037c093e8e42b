"""Promises about blobs, and how uploaded bytes become one."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import record
from registry_control.catalog.errors import BlobGone, BlobInUse, UploadGone
from registry_control.catalog.models import Blob, BlobLease, BlobLink, UploadSession
from registry_control.catalog.services import images
from registry_control.common.clock import now


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
        ImageGone, UploadGone: deleted, cancelled or expired in the meantime; nothing is recorded.
    """
    images.locked(image_id)
    session = UploadSession.objects.filter(pk=session_id, image=image_id, is_open=True)
    if not session.update(is_open=False):
        raise UploadGone
    blob = _live(new.digest) or _insert(new)
    lease([blob.pk], image_id=image_id)
    return blob.storage_key == new.storage_key


def _live(digest: str) -> Blob | None:
    return Blob.objects.select_for_update().filter(digest=digest, state=Blob.State.LIVE).first()


def _insert(new: NewBlob) -> Blob:
    try:
        with transaction.atomic():
            return Blob.objects.create(digest=new.digest, size=new.size, storage_key=new.storage_key)
    except IntegrityError:
        # Another upload of the same content committed first; its copy is the blob.
        other = _live(new.digest)
        if other is None:
            raise
        return other


def lease(blob_ids: Iterable[int], *, image_id: UUID, until: datetime | None = None) -> None:
    """Promise blobs to an image, whose row or whose blobs' rows the caller holds (invariant 2)."""
    expires_at = until or now() + settings.BLOB_LEASE
    BlobLease.objects.bulk_create(
        [BlobLease(image_id=image_id, blob_id=blob_id, expires_at=expires_at) for blob_id in blob_ids],
        update_conflicts=True,
        unique_fields=["image", "blob"],
        update_fields=["expires_at"],
    )


@transaction.atomic
def promise(*, blob_id: int, image_id: UUID) -> None:
    """Lease a blob to an image: a mount, or a HEAD that answered 200.

    Raises:
        ImageGone: the image is being deleted.
        BlobGone: garbage collection took the blob first.
    """
    images.locked(image_id)
    # Touching takes the row from a sweep, or finds that a sweep took it from us.
    if not Blob.objects.filter(pk=blob_id, state=Blob.State.LIVE).update(touched_at=now()):
        raise BlobGone
    lease([blob_id], image_id=image_id)


@transaction.atomic
def remove(*, principal: Principal, image_id: UUID, blob_id: int, digest: str) -> None:
    """Take a blob out of this image only (checklist 136).

    Raises:
        BlobInUse: a manifest needs it; deleting it would break what somebody pulls.
        BlobGone, ImageGone: there is nothing to remove.
    """
    image = images.locked(image_id)
    if BlobLink.objects.filter(image=image_id, blob=blob_id).exists():
        raise BlobInUse
    if not BlobLease.objects.filter(image=image_id, blob=blob_id).delete()[0]:
        raise BlobGone
    record(actor=actor_of(principal), verb="blob.delete", target=images.target_of(image), digest=digest)
