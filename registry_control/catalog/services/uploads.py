"""Upload sessions: rows that say an upload is under way. Bytes are the storage driver's."""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import transaction

from registry_control.access.policy import Kind, Principal
from registry_control.catalog.errors import UploadGone
from registry_control.catalog.models import Blob, UploadSession
from registry_control.catalog.services import images
from registry_control.common.clock import now
from registry_data.storage.base import BlobStore, UploadId


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: the digest is that of the upload's first `hashed_size` bytes, if any."""

    id: UUID
    algorithm: str
    hashed_size: int
    hashed_digest: str


@transaction.atomic
def start(*, principal: Principal, image_id: UUID, algorithm: str) -> UUID:
    """Begin an upload to an image.

    Raises:
        ImageGone: the image is being deleted.
    """
    images.locked(image_id)
    session = UploadSession.objects.create(
        image_id=image_id,
        algorithm=algorithm,
        user_id=principal.id if principal.kind is Kind.USER else None,
        application_id=principal.id if principal.kind is Kind.APPLICATION else None,
        expires_at=now() + settings.UPLOAD_LIFE,
    )
    return session.pk


def get(*, session_id: UUID, image_id: UUID) -> Session:
    """An open session of this image.

    Raises:
        UploadGone: unknown, of another image, cancelled, finished or expired.
    """
    found = UploadSession.objects.filter(pk=session_id, image=image_id, is_open=True, expires_at__gt=now())
    values = found.values_list("pk", "algorithm", "hashed_size", "hashed_digest").first()
    if values is None:
        raise UploadGone
    return Session(*values)


def keep(*, session_id: UUID, hashed: tuple[int, str] | None) -> None:
    """After bytes have come: the session lives on from now, with size and digest of what was hashed."""
    changes: dict[str, object] = {"expires_at": now() + settings.UPLOAD_LIFE}
    if hashed is not None:
        changes |= {"hashed_size": hashed[0], "hashed_digest": hashed[1]}
    UploadSession.objects.filter(pk=session_id, is_open=True).update(**changes)


def cancel(*, session_id: UUID, image_id: UUID, store: BlobStore) -> None:
    """End an upload and forget its bytes.

    Raises:
        UploadGone: there is none.
    """
    open_sessions = UploadSession.objects.filter(pk=session_id, image=image_id, is_open=True)
    if not open_sessions.update(is_open=False):
        raise UploadGone
    discard(UploadSession.objects.get(pk=session_id), store=store)


def expire(*, store: BlobStore, limit: int) -> int:
    """Discard up to `limit` sessions that are over: expired, or closed by whoever died after that.

    Closing is a step of its own: after it no commit can make a blob of the bytes, so removing them
    is safe, and may be done twice.
    """
    UploadSession.objects.filter(expires_at__lte=now(), is_open=True).update(is_open=False)
    over = list(UploadSession.objects.filter(is_open=False).order_by("expires_at")[:limit])
    for session in over:
        discard(session, store=store)
    return len(over)


def discard(session: UploadSession, *, store: BlobStore) -> None:
    """Remove a closed session: published bytes that no blob names, the upload itself, then the row."""
    upload = UploadId(session.pk.hex)
    key = store.published_as(upload)
    # A crash between publishing and recording leaves such a key; one that a blob names is no loss.
    if key is not None and not Blob.objects.filter(storage_key=key).exists():
        store.delete(key)
    store.discard(upload)
    session.delete()
