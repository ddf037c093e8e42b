"""Services for upload sessions. A session is a row; the storage driver keeps the bytes of its upload."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from registry_control.audit.models import ActorKind
from registry_control.audit.services import Actor
from registry_control.catalog.errors import TooManyUploads, UploadNotFound
from registry_control.catalog.models import UploadSession
from registry_control.catalog.services import copies, images
from registry_control.common import clock_watch
from registry_control.common.models import writable_sql
from registry_control.db.durability import unsynced_rows, unsynced_transaction
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import (
    Parameter,
    Statement,
    execute,
    id_parameter,
    interval_parameter,
    row,
    rows,
    time_from_db,
    uuid_from_db,
)
from registry_data.storage.base import BlobStore, Busy, Key, StorageError, UploadId

logger = logging.getLogger(__name__)

MAX_STORAGE_ERRORS: Final = 3  # in a row, after which the storage is taken to be down

# Inserts nothing if the image is being deleted or is locked, or if the actor has too many open sessions.
_INSERT: Final = f"""
INSERT INTO catalog_uploadsession (id, image_id, user_id, application_id, created_at, expires_at,
                                   is_open, algorithm, hashed_size, hashed_digest)
SELECT %s, i.id, %s, %s, statement_timestamp(), statement_timestamp() + %s, TRUE, %s, 0, ''
FROM catalog_image i
JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE i.id = %s AND {writable_sql("i")} AND {writable_sql("n")} AND %s > ({{open}})
FOR UPDATE OF i RETURNING id
"""
_CLOSE_EXPIRED: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE WHERE id IN (
    SELECT id FROM catalog_uploadsession
    WHERE expires_at <= statement_timestamp() AND is_open ORDER BY expires_at LIMIT %s
) AND expires_at <= statement_timestamp() AND is_open RETURNING id
"""
_CLOSE_OF_IMAGE: Final = """
UPDATE catalog_uploadsession SET is_open = FALSE WHERE id IN (
    SELECT id FROM catalog_uploadsession WHERE image_id = %s ORDER BY expires_at LIMIT %s
) RETURNING id
"""
_FORGET: Final = "DELETE FROM catalog_uploadsession WHERE id = %s"
# No condition on the time: the worker closes expired sessions, and waits while the clock may be wrong.
_OPEN: Final = """
SELECT algorithm, hashed_size, hashed_digest, expires_at, statement_timestamp() FROM catalog_uploadsession
WHERE id = %s AND image_id = %s AND is_open
"""
_HOLD: Final = """
SELECT id FROM catalog_uploadsession WHERE id = %s AND image_id = %s AND is_open FOR UPDATE
"""

# Counts no further than the limit.
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
    """An open session. `hashed_digest` is the digest of the upload's first `hashed_size` bytes, or empty."""

    id: UUID
    algorithm: str
    hashed_size: int
    hashed_digest: str
    renew_at: float  # time.monotonic: from then on, a chunk extends the life of the session

    @property
    def is_due(self) -> bool:
        """Whether its life is to be extended now."""
        return time.monotonic() > self.renew_at

    def renewing_in(self, share: float) -> "Session":
        """The same, due in a share of the life of a session."""
        return replace(self, renew_at=time.monotonic() + (settings.UPLOAD_LIFE * share).total_seconds())


def start(*, actor: Actor, image_id: UUID, algorithm: str) -> UUID:
    """Begin an upload to an image.

    Raises:
        ImageNotFound, ImageReadOnly: the image is being deleted, or locked by an administrator.
        TooManyUploads: the principal has `MAX_UPLOADS` open sessions. Concurrent requests may exceed that by
            one each.
    """
    session_id = uuid4()
    limit = settings.MAX_UPLOADS
    count, counted = _count_open(actor)
    inserted = unsynced_rows(
        _INSERT.format(open=count),
        [
            id_parameter(session_id),
            _id_of(actor, ActorKind.USER),
            _id_of(actor, ActorKind.APPLICATION),
            interval_parameter(settings.UPLOAD_LIFE),
            algorithm,
            id_parameter(image_id),
            limit,
            *counted,
        ],
    )
    if not inserted:
        if counted and rows(count, counted)[0][0] >= limit:
            raise TooManyUploads(limit)
        raise images.not_writable(image_id)
    return session_id


def _id_of(actor: Actor, kind: ActorKind) -> Parameter:
    """The actor's id as a parameter, None if it is of another kind."""
    return id_parameter(UUID(actor.id)) if actor.kind is kind else None


def _count_open(actor: Actor) -> Statement:
    """Count the actor's open uploads; the registry's own uploads (replication) are not limited."""
    if actor.kind not in _COUNT_OPEN:
        return "SELECT 0", []
    return _COUNT_OPEN[actor.kind], [_id_of(actor, actor.kind), settings.MAX_UPLOADS]


def get(*, session_id: UUID, image_id: UUID) -> Session:
    """An open session of this image.

    Raises:
        UploadNotFound: unknown, of another image, cancelled, finished or expired.
    """
    found = row(_OPEN, [id_parameter(session_id), id_parameter(image_id)])
    if found is None:
        raise UploadNotFound
    algorithm, hashed_size, hashed_digest, expires_at, moment = found
    left = time_from_db(expires_at) - time_from_db(moment)
    renew_at = time.monotonic() + (left - settings.UPLOAD_LIFE * 0.9).total_seconds()
    return Session(session_id, algorithm, hashed_size, hashed_digest, renew_at)


@transaction.atomic
def require_open(session: Session, *, image_id: UUID) -> None:
    """Check that a session is still open, after waiting for a transaction that is about to close it.

    Raises:
        UploadNotFound: it was finished or cancelled.
    """
    if not rows(_HOLD, [id_parameter(session.id), id_parameter(image_id)]):
        raise UploadNotFound


def save_progress(session: Session, *, hashed: tuple[int, str] | None) -> None:
    """Extend the life of a session after bytes were appended, and save their size and digest, if given.

    Uploads have hundreds of chunks: the row is written only if something changes.
    """
    changes: dict[str, object] = {}
    if session.is_due:
        changes["expires_at"] = DatabaseNow() + settings.UPLOAD_LIFE
    if hashed is not None:
        changes |= {"hashed_size": hashed[0], "hashed_digest": hashed[1]}
    if changes:
        with unsynced_transaction():
            UploadSession.objects.filter(pk=session.id, is_open=True).update(**changes)


def keep_alive(session: Session) -> Session:
    """Extend the life of a session, now and then, while its bytes arrive; a transfer may take days."""
    if not session.is_due:
        return session
    save_progress(session, hashed=None)
    return session.renewing_in(0.1)


def close(*, session_id: UUID) -> None:
    """Close a session; the worker deletes its bytes."""
    UploadSession.objects.filter(pk=session_id).update(is_open=False)


def cancel(*, session_id: UUID, image_id: UUID, store: BlobStore) -> None:
    """Close a session and delete its bytes.

    Raises:
        UploadNotFound: the image has no such open session.
    """
    open_sessions = UploadSession.objects.filter(pk=session_id, image=image_id, is_open=True)
    if not open_sessions.update(is_open=False):
        raise UploadNotFound
    discard([session_id], store=store)


def expire(*, store: BlobStore, limit: int) -> int:
    """Discard up to `limit` expired or closed sessions.

    Expired sessions are closed first, in a transaction: no later commit can make a blob of their bytes, so
    that deleting them is safe, also twice (ADR 6). Returns the number of sessions examined, or 0 if none
    could be discarded. None expires while the clock may be wrong (ADR 66).
    """
    if not clock_watch.check(longest=settings.UPLOAD_LIFE).reason:
        rows(_CLOSE_EXPIRED, [limit])
    closed = UploadSession.objects.filter(is_open=False).order_by("expires_at")
    over = list(closed.values_list("pk", flat=True)[:limit])
    return len(over) if discard(over, store=store) else 0


def close_of_image(image_id: UUID, *, limit: int) -> list[UUID]:
    """Close up to `limit` sessions of an image that is being deleted, and return their ids."""
    return [uuid_from_db(pk) for (pk,) in rows(_CLOSE_OF_IMAGE, [id_parameter(image_id), limit])]


def discard(session_ids: Iterable[UUID], *, store: BlobStore) -> int:
    """Delete what closed sessions left in the storage, then their rows, in one transaction.

    A session whose bytes cannot be deleted now, because a writer has them open or the storage fails, is tried
    again after all others. Returns the number of deleted sessions.

    Raises:
        StorageError: the storage failed `MAX_STORAGE_ERRORS` times in a row, so it is taken to be down.
    """
    empty: list[UUID] = []
    left: list[UUID] = []
    errors = 0
    try:
        for session_id in session_ids:
            try:
                _remove_bytes(session_id, store)
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
            UploadSession.objects.filter(pk__in=left).update(expires_at=DatabaseNow() + settings.UPLOAD_LIFE)
    return len(empty)


@transaction.atomic
def _forget(session_ids: Iterable[UUID]) -> None:
    # Each by its key: for a list of them PostgreSQL may read the whole table.
    for session_id in session_ids:
        execute(_FORGET, [id_parameter(session_id)])


def _remove_bytes(session_id: UUID, store: BlobStore) -> None:
    """Delete an upload of a closed session, and the keys under which it was published unless a blob has one.

    Only the database knows whether it is a blob: a request to create the upload may have been delayed until
    after that, so that the storage has an upload that looks like one that was never published.
    """
    upload = UploadId(session_id.hex)
    content = copies.resolve(session_id, store=store)
    if not content.is_used:
        # A crash between publishing and recording leaves a key that no row has.
        for key in filter(None, {content.key, store.published_as(upload)}):
            store.delete(key)
    store.discard(upload, published=content.key if content.is_used else None)


def remove_unless_named(key: Key, *, session_id: UUID, store: BlobStore) -> None:
    """Delete the key of a closed session unless its upload is a blob."""
    if copies.give_up(session_id) is None:
        store.delete(key)
