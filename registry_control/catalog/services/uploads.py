"""Upload sessions: rows that say an upload is under way. Bytes are the storage driver's."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from registry_control.audit.models import ActorKind
from registry_control.audit.services import Actor
from registry_control.catalog.errors import TooManyUploads, UploadNotFound
from registry_control.catalog.models import Blob, UploadSession
from registry_control.catalog.services import images
from registry_control.common.clock import now
from registry_control.db.durability import unsynced_transaction
from registry_control.db.sql import (
    Parameter,
    execute,
    id_parameter,
    row,
    rows,
    time_from_db,
    time_parameter,
    uuid_from_db,
)
from registry_data.storage.base import BlobStore, Busy, Key, StorageError, UploadId

logger = logging.getLogger(__name__)

MAX_STORAGE_ERRORS: Final = 3  # in a row, after which the storage is taken to be down

# Where the image is being deleted or locked, no row.
_INSERT: Final = """
INSERT INTO catalog_uploadsession (id, image_id, user_id, application_id, created_at, expires_at,
                                   is_open, algorithm, hashed_size, hashed_digest)
SELECT %s, i.id, %s, %s, %s, %s, TRUE, %s, 0, ''
FROM catalog_image i
JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE i.id = %s AND i.status NOT IN ('deleting', 'locked') AND n.status NOT IN ('deleting', 'locked')
FOR UPDATE OF i RETURNING id
"""
_CLOSE_EXPIRED: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE WHERE id IN (
    SELECT id FROM catalog_uploadsession WHERE expires_at <= %s AND is_open ORDER BY expires_at LIMIT %s
) AND expires_at <= %s AND is_open RETURNING id
"""
_CLOSE_OF_IMAGE: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE WHERE id IN (
    SELECT id FROM catalog_uploadsession WHERE image_id = %s ORDER BY expires_at LIMIT %s
) RETURNING id
"""
_FORGET: Final = "DELETE FROM catalog_uploadsession WHERE id = %s"
_OPEN: Final = """
SELECT algorithm, hashed_size, hashed_digest, expires_at FROM catalog_uploadsession
WHERE id = %s AND image_id = %s AND is_open AND expires_at > %s
"""
_HOLD: Final = """
SELECT id FROM catalog_uploadsession WHERE id = %s AND image_id = %s AND is_open FOR UPDATE
"""

# Stops counting where it is too many.
_COUNT_OPEN: Final = {
    ActorKind.USER: """
SELECT count(*) FROM (
    SELECT 1 FROM catalog_uploadsession WHERE user_id = %s AND is_open LIMIT %s
) AS found
""",
    ActorKind.APPLICATION: """
SELECT count(*) FROM (
    SELECT 1 FROM catalog_uploadsession WHERE application_id = %s AND is_open LIMIT %s
) AS found
""",
}


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: the digest is that of the upload's first `hashed_size` bytes, if any."""

    id: UUID
    algorithm: str
    hashed_size: int
    hashed_digest: str
    expires_at: datetime


def start(*, actor: Actor, image_id: UUID, algorithm: str) -> UUID:
    """Begin an upload to an image.

    Raises:
        ImageNotFound, ImageReadOnly: the image is being deleted, or locked by an administrator.
        TooManyUploads: the principal has as many under way as anybody may have. Requests at the same
            moment may still exceed that by one each.
    """
    _check_number(actor)
    session_id, moment = uuid4(), now()
    with unsynced_transaction():
        inserted = rows(
            _INSERT,
            [
                id_parameter(session_id),
                _id_of(actor, ActorKind.USER),
                _id_of(actor, ActorKind.APPLICATION),
                time_parameter(moment),
                time_parameter(moment + settings.UPLOAD_LIFE),
                algorithm,
                id_parameter(image_id),
            ],
        )
    if not inserted:
        raise images.not_writable(image_id)
    return session_id


def _id_of(actor: Actor, kind: ActorKind) -> Parameter:
    """The actor's id as a parameter, None if it is of another kind."""
    return id_parameter(UUID(actor.id)) if actor.kind is kind else None


def _check_number(actor: Actor) -> None:
    """The registry's own uploads (replication) are not limited.

    Raises:
        TooManyUploads: the actor has `MAX_UPLOADS` open uploads.
    """
    if actor.kind not in _COUNT_OPEN:
        return
    found = row(_COUNT_OPEN[actor.kind], [_id_of(actor, actor.kind), settings.MAX_UPLOADS])
    if found is not None and found[0] >= settings.MAX_UPLOADS:
        raise TooManyUploads(settings.MAX_UPLOADS)


def get(*, session_id: UUID, image_id: UUID) -> Session:
    """An open session of this image.

    Raises:
        UploadNotFound: unknown, of another image, cancelled, finished or expired.
    """
    found = row(_OPEN, [id_parameter(session_id), id_parameter(image_id), time_parameter(now())])
    if found is None:
        raise UploadNotFound
    algorithm, hashed_size, hashed_digest, expires_at = found
    return Session(session_id, algorithm, hashed_size, hashed_digest, time_from_db(expires_at))


@transaction.atomic
def require_open(session: Session, *, image_id: UUID) -> None:
    """See that a session was not finished since it was found; wait for whoever is about to commit that.

    Raises:
        UploadNotFound: it was, or was cancelled.
    """
    if not rows(_HOLD, [id_parameter(session.id), id_parameter(image_id)]):
        raise UploadNotFound


def save_progress(session: Session, *, hashed: tuple[int, str] | None) -> None:
    """After bytes have come: the session lives on, with size and digest of what was hashed, if given.

    Chunks come by the hundreds: what they need not write they do not.
    """
    changes: dict[str, object] = {}
    if session.expires_at - now() < settings.UPLOAD_LIFE * 0.9:
        changes["expires_at"] = now() + settings.UPLOAD_LIFE
    if hashed is not None:
        changes |= {"hashed_size": hashed[0], "hashed_digest": hashed[1]}
    if changes:
        with unsynced_transaction():
            UploadSession.objects.filter(pk=session.id, is_open=True).update(**changes)


def close(*, session_id: UUID) -> None:
    """End an upload; what there is of it is left to the worker."""
    UploadSession.objects.filter(pk=session_id).update(is_open=False)


def cancel(*, session_id: UUID, image_id: UUID, store: BlobStore) -> None:
    """End an upload and forget its bytes.

    Raises:
        UploadNotFound: there is none.
    """
    open_sessions = UploadSession.objects.filter(pk=session_id, image=image_id, is_open=True)
    if not open_sessions.update(is_open=False):
        raise UploadNotFound
    discard([session_id], store=store)


def expire(*, store: BlobStore, limit: int) -> int:
    """Discard up to `limit` sessions that are over: expired, or closed by whoever died after that.

    Closing is a step of its own: after it no commit can make a blob of the bytes, so removing them
    is safe, and may be done twice. Returns how many were looked at, unless none of them could be removed.
    """
    moment = time_parameter(now())
    rows(_CLOSE_EXPIRED, [moment, limit, moment])
    closed = UploadSession.objects.filter(is_open=False).order_by("expires_at")
    over = list(closed.values_list("pk", flat=True)[:limit])
    return len(over) if discard(over, store=store) else 0


def close_of_image(image_id: UUID, *, limit: int) -> list[UUID]:
    """Close up to `limit` sessions of an image that is being deleted, and return their ids."""
    return [uuid_from_db(pk) for (pk,) in rows(_CLOSE_OF_IMAGE, [id_parameter(image_id), limit])]


def discard(session_ids: Iterable[UUID], *, store: BlobStore) -> int:
    """Remove closed sessions: what they left in the storage, then the rows of those that left nothing now.

    Most have been finished, so that their rows are all there is: these go together. One whose bytes cannot be
    removed now, because somebody still writes or because the storage refuses, comes again after all others.
    Returns how many went.

    Raises:
        StorageError: the storage refused several times in a row: it is away, rather than one upload odd.
    """
    empty: list[UUID] = []
    left: list[UUID] = []
    errors = 0
    try:
        for session_id in session_ids:
            try:
                _remove_bytes(UploadId(session_id.hex), store)
            except Busy:
                left.append(session_id)
            except StorageError as error:
                logger.warning("the upload %s cannot be removed now: %s", session_id, error)
                left.append(session_id)
                errors += 1
                if errors == MAX_STORAGE_ERRORS:
                    raise
            else:
                empty.append(session_id)
                errors = 0
    finally:
        if empty:
            _forget(empty)
        if left:
            UploadSession.objects.filter(pk__in=left).update(expires_at=now() + settings.UPLOAD_LIFE)
    return len(empty)


@transaction.atomic
def _forget(session_ids: Iterable[UUID]) -> None:
    # Each by its key: for a list of them PostgreSQL may read the whole table.
    for session_id in session_ids:
        execute(_FORGET, [id_parameter(session_id)])


def _remove_bytes(upload: UploadId, store: BlobStore) -> None:
    """Remove an upload, and what it was published as where no blob names that."""
    # A crash between publishing and recording leaves such a key.
    if (key := store.published_as(upload)) is not None:
        remove_unless_named(key, store=store)
    store.discard(upload)


def remove_unless_named(key: Key, *, store: BlobStore) -> None:
    """Remove what a closed session was published as, unless it became a blob before it was closed."""
    if not Blob.objects.filter(storage_key=key).exists():
        store.delete(key)
