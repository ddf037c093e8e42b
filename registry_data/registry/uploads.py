"""Uploads: sessions, appends, and the steps by which bytes become a blob (checklist 49-79)."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias
from uuid import UUID

from registry_control.access.policy import Action
from registry_control.catalog.errors import BlobNotFound, UploadNotFound
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.holders import StoredBlob, find_blob_in_organization
from registry_control.catalog.services import blobs, uploads
from registry_control.common.clock import now
from registry_control.common.lru_cache import LruCache
from registry_control.db.durability import unsynced_transaction
from registry_data.oci.digest import Digest, Hashers
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import (
    Credentials,
    Pusher,
    identify,
    image_for_push,
    require,
    scope_of,
)
from registry_data.registry.use_case import use_case
from registry_data.storage.base import (
    BlobStore,
    Busy,
    Key,
    StorageError,
    Unavailable,
    UploadId,
    UploadWriter,
    WrongOffset,
)
from registry_data.storage.keys import blob_key

_BUSY: Final = "another request is writing to this upload: ask how far it is when that one has ended"


class UploadMoved(ProtocolError):
    """The upload does not end where the client thinks: 416 with the end it has (checklist 64, 75)."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(
            ErrorCode.BLOB_UPLOAD_INVALID, message, status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        )
        self.offset = offset


# To read fewer bytes again, should another process close the upload, costs less than to note their digest,
# and than to have another thread read them.
_FEW: Final = 8 * 1024 * 1024
# Hash states cannot be stored. If one is missing or not at the upload's end, the bytes are read again.
_running_hashes: Final = LruCache[UploadId, tuple[int, Hashers]](1000)


@dataclass(frozen=True, slots=True)
class Upload:
    """An open session, found for somebody who may go on with it."""

    image_id: UUID
    session: uploads.Session

    @property
    def id(self) -> UploadId:
        """The session as the storage knows it."""
        return UploadId(self.session.id.hex)


@dataclass(slots=True)
class OpenUpload:
    """An upload held open by one request, which ends it by one of `save_progress`, `rollback` or `finish`.

    `hash` and `store` take the same parts and may run side by side.
    """

    upload: Upload
    writer: UploadWriter
    began: int  # where the upload ended before this request, in bytes
    before: Hashers | None  # of everything up to `began`, when known
    hashers: Hashers | None  # of everything up to `hashed`, when known
    hashed: int

    def digest(self, algorithm: str) -> Digest | None:
        """The digest of all bytes, from the running state or from the session's row; None: read them."""
        end = self.writer.offset
        return (self.digest_ahead(algorithm) if self.hashed == end else None) or self._noted(algorithm, end)

    def digest_ahead(self, algorithm: str) -> Digest | None:
        """The digest of all that was hashed, be it written yet or not, when known."""
        if self.hashers is None or algorithm not in self.hashers.algorithms:
            return None
        return self.hashers.digest(algorithm)

    def digest_before(self, algorithm: str) -> Digest | None:
        """The digest of the bytes that were there before this request, when known."""
        if self.before is not None and algorithm in self.before.algorithms:
            return self.before.digest(algorithm)
        return self._noted(algorithm, self.began)

    def _noted(self, algorithm: str, end: int) -> Digest | None:
        session = self.upload.session
        is_noted = session.hashed_size == end and session.hashed_digest.startswith(f"{algorithm}:")
        return Digest.parse(session.hashed_digest) if is_noted else None

    def read_again(self, algorithm: str, store: BlobStore) -> None:
        """Make the digest known by reading what is stored; what was known before stays so.

        Raises:
            StorageError: it cannot be read, or is not as long as the upload.
        """
        hashers, before, size = Hashers([algorithm]), None, 0
        for read in store.read_upload(self.upload.id):
            piece = memoryview(read)
            new = max(self.began - size, 0)  # where what came with this request begins in the piece
            hashers.update(piece[:new])
            if before is None and new < len(piece):
                before = hashers.copy()
            hashers.update(piece[new:])
            size += len(piece)
        if size != self.writer.offset:
            raise Unavailable(f"{size} bytes were read of an upload that has {self.writer.offset}")
        is_known = self.hashers is not None and self.hashed == size
        self.before = _joined(before or hashers.copy(), self.before)
        self.hashers, self.hashed = _joined(hashers, self.hashers if is_known else None), size

    def hash(self, parts: Sequence[bytes]) -> None:
        """Take the next parts into the running digest."""
        if self.hashers is not None:
            for part in parts:
                self.hashers.update(part)
                self.hashed += len(part)

    def store(self, parts: Sequence[bytes]) -> None:
        """Write the next parts.

        Raises:
            ProtocolError: the storage is full or away.
        """
        with use_case():
            self.write(parts)

    def write(self, parts: Sequence[bytes]) -> None:
        """Write the next parts, in a unit that is the caller's."""
        for part in parts:
            self.writer.write(part)


def _joined(hashers: Hashers, others: Hashers | None) -> Hashers:
    return hashers if others is None else hashers.joined(others)


def start(pusher: Pusher, *, algorithm: str, store: BlobStore) -> UUID:
    """Open a session; the first upload to an image makes it (checklist 49, 54).

    Raises:
        ProtocolError: the namespace is gone; the storage is full or away.
    """
    with use_case():
        store.ensure_capacity(0)
        with unsynced_transaction():
            image_id = image_for_push(pusher)
            session_id = uploads.start(actor=pusher.caller.actor, image_id=image_id, algorithm=algorithm)
        try:
            store.create_upload(UploadId(session_id.hex))
        except BaseException:
            uploads.close(session_id=session_id)  # nobody will ever know of it
            raise
        return session_id


# Actions of a token of which one is enough: what clients ask one for when they look at an upload or cancel it
# (checklist 147). Bytes and their end take a push.
Purpose: TypeAlias = Collection[Action]
TO_WRITE: Final[Purpose] = ()
TO_LOOK: Final[Purpose] = (Action.PULL, Action.PUSH)
TO_CANCEL: Final[Purpose] = (Action.PUSH, Action.DELETE)


def find(credentials: Credentials, repository: Repository, session_id: UUID, *, purpose: Purpose) -> Upload:
    """Find an upload to go on with. It asks the database and changes nothing.

    Raises:
        Refused, ProtocolError: not allowed; no such upload here.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PUSH))
        record = resolve.repository(repository.namespace, repository.image)
        require(caller, Action.PUSH, repository, record, accepted_actions=purpose)
        if record.image_id is None:
            raise UploadNotFound
        return Upload(record.image_id, uploads.get(session_id=session_id, image_id=record.image_id))


def status(upload: Upload, *, store: BlobStore) -> int:
    """How many bytes an upload has (checklist 69).

    Raises:
        ProtocolError: the storage is away.
    """
    with use_case():
        return store.upload_size(upload.id)


def open_upload(upload: Upload, *, at: int | None, store: BlobStore, coming: int = 0) -> OpenUpload:
    """Hold an upload open to append from offset `at`, or from its end, `coming` bytes if that is known.

    Raises:
        ProtocolError: the storage is full or away.
        UploadMoved: it ends elsewhere, or another request is writing to it.
    """
    with use_case():
        return _open(upload, at=at, store=store, coming=coming)


def _open(upload: Upload, *, at: int | None, store: BlobStore, coming: int) -> OpenUpload:
    store.ensure_capacity(coming)
    try:
        writer = store.open_upload(upload.id, at=at)
    except WrongOffset as error:
        raise UploadMoved(
            f"the upload ends at byte {error.actual}, go on from there", error.actual
        ) from error
    except Busy as error:
        raise UploadMoved(_BUSY, store.upload_size(upload.id)) from error
    if writer.is_published:
        _check_unfinished(upload, writer)
    offset = writer.offset
    if offset == 0:
        hashers: Hashers | None = Hashers([upload.session.algorithm])
    else:
        hashed, kept = _running_hashes.pop(upload.id) or (0, None)
        hashers = kept if hashed == offset else None
    return OpenUpload(upload, writer, offset, hashers and hashers.copy(), hashers, offset)


def _check_unfinished(upload: Upload, writer: UploadWriter) -> None:
    """What was published may have been recorded since this request found the session, and not discarded.

    Then it is a blob, of whoever has it by now: not to be written to, nor to be published anew.
    """
    try:
        uploads.require_open(upload.session, image_id=upload.image_id)
    except BaseException:
        writer.close()
        raise


def save_progress(append: OpenUpload) -> int:
    """End a request and keep what it wrote, for the next one to go on from. Returns the upload's end.

    Raises:
        ProtocolError: the storage is away.
    """
    with use_case():
        return _save_progress(append)


def _save_progress(append: OpenUpload) -> int:
    offset = append.writer.offset
    append.writer.close()
    hashed = None
    if append.hashers is not None and append.hashed == offset:
        _running_hashes.put(append.upload.id, (offset, append.hashers))
        if offset - append.began >= _FEW:
            hashed = (offset, str(append.hashers.digest(append.upload.session.algorithm)))
    uploads.save_progress(append.upload.session, hashed=hashed)
    return offset


def rollback(append: OpenUpload) -> None:
    """End a request and forget what it wrote."""
    with use_case():
        append.writer.abandon()


def rehash(append: OpenUpload, claimed: Digest, *, store: BlobStore) -> None:
    """Read again what nobody remembers the digest of, so that `finish` need not.

    It takes as long as the upload is big, and must not hold up those who ask the database.

    Raises:
        ProtocolError: the storage is away.
    """
    with use_case():
        append.read_again(claimed.algorithm, store)


def finish(append: OpenUpload, claimed: Digest, *, store: BlobStore) -> None:
    """Make the upload a blob of its image: verified, durable, recorded, in this order (invariant 4).

    A wrong digest forgets what this request wrote and leaves the session for another try (checklist 57).

    Raises:
        ProtocolError: the digest is another; the image or session is gone; the storage is full or away.
    """
    with use_case():
        _finish(append, claimed, store)


def _finish(append: OpenUpload, claimed: Digest, store: BlobStore, *, tried: bool = False) -> None:
    """`tried`: `_deduplicate` was called before and found nothing to share."""
    try:
        append = _verified(append, claimed, store)
        if tried or not _deduplicate(append, claimed, append.writer.offset, store):
            key = _publish(append, claimed, store)
            store.discard(append.upload.id, published=key)
    finally:
        append.writer.close()


def _deduplicate(append: OpenUpload, claimed: Digest, size: int, store: BlobStore) -> bool:
    """Let the image have the blob that another one has, instead of storing the same bytes once more.

    Of its own organization only: how long an upload takes must not tell what other tenants have.
    """
    if append.writer.is_published:
        return False
    upload, blob = append.upload, find_blob_in_organization(str(claimed), image_id=append.upload.image_id)
    if blob is None or blob.size != size or not _is_whole(blob, store):
        return False
    try:
        blobs.record_duplicate(session_id=upload.session.id, image_id=upload.image_id, blob_id=blob.id)
    except BlobNotFound:
        return False
    store.discard(upload.id, held=True)
    append.writer.close()
    return True


def _is_whole(blob: StoredBlob, store: BlobStore) -> bool:
    """Whether a blob's bytes are known to be there: else these may take their place (decision 34)."""
    try:
        return store.size(Key(blob.storage_key)) == blob.size
    except StorageError:
        return False


def _verified(append: OpenUpload, claimed: Digest, store: BlobStore) -> OpenUpload:
    """The upload, held open, with the content that is claimed."""
    if (actual := append.digest(claimed.algorithm)) is None:
        append.read_again(claimed.algorithm, store)
        actual = append.digest(claimed.algorithm)
    if actual == claimed:
        return append
    had_body = append.writer.offset > append.began
    append.writer.abandon()
    if append.began and append.before is not None:
        _running_hashes.put(append.upload.id, (append.began, append.before))
    # A request that is sent again because the first try died with its whole body here (checklist 72).
    if append.began and had_body and append.digest_before(claimed.algorithm) == claimed:
        with suppress(UploadMoved):  # another request was faster
            return _open(append.upload, at=append.began, store=store, coming=0)
    raise ProtocolError(
        ErrorCode.DIGEST_INVALID,
        f"the content's digest is {actual}, not {claimed}: nothing was stored",
        expected=str(claimed),
        got=str(actual),
    )


def already_published(append: OpenUpload, claimed: Digest, *, store: BlobStore) -> bool:
    """Whether the upload was published as what is claimed: a request that repeats its bytes adds nothing.

    Raises:
        ProtocolError: the storage is away.
    """
    if not append.writer.is_published:
        return False
    with use_case():
        key = blob_key(claimed.algorithm, claimed.encoded, append.upload.id)
        return store.published_as(append.upload.id) == key


def _publish(append: OpenUpload, claimed: Digest, store: BlobStore) -> Key:
    upload = append.upload
    key = blob_key(claimed.algorithm, claimed.encoded, upload.id)
    store.publish(upload.id, key)
    new = blobs.NewBlob(str(claimed), append.writer.offset, key)
    try:
        is_needed = blobs.record_upload(session_id=upload.session.id, image_id=upload.image_id, new=new)
    except UploadNotFound:
        # Whoever ended the session may have looked for the key before it was there.
        uploads.remove_unless_named(key, store=store)
        raise
    if not is_needed and not blobs.repair_missing_content(new, store=store):
        store.delete(key)
    return key


def append_small(parts: Sequence[bytes], upload: Upload, *, at: int | None, store: BlobStore) -> int:
    """Take a chunk that is here already, whole, in one step. Returns the upload's end.

    Raises:
        ProtocolError, UploadMoved: see `open_upload` and `save_progress`; nothing of it stays then.
    """
    with use_case():
        append = _open(upload, at=at, store=store, coming=0)
        with _abandoned_on_error(append):
            append.hash(parts)
            append.write(parts)
        return _save_progress(append)


def finish_small(
    parts: Sequence[bytes], claimed: Digest, upload: Upload, *, at: int | None, store: BlobStore
) -> OpenUpload | None:
    """Take the last chunk, which is here already, and make the upload a blob.

    Returns the upload, held open, where much of it has to be read again: for `rehash` and `finish`.

    Raises:
        ProtocolError, UploadMoved: see `open_upload` and `finish`; nothing of it stays then.
    """
    with use_case():
        append, tried = _open(upload, at=at, store=store, coming=0), False
        with _abandoned_on_error(append):
            if not already_published(append, claimed, store=store):
                append.hash(parts)
                tried = append.digest_ahead(claimed.algorithm) == claimed
                # What need not be stored is not even written.
                if tried and _deduplicate(append, claimed, append.hashed, store):
                    return None
                append.write(parts)
        if append.writer.offset > _FEW and append.digest(claimed.algorithm) is None:
            return append
        _finish(append, claimed, store, tried=tried)
        return None


@contextmanager
def _abandoned_on_error(append: OpenUpload) -> Iterator[None]:
    try:
        yield
    except BaseException:
        append.writer.abandon()
        raise


def cancel(upload: Upload, *, store: BlobStore) -> None:
    """End an upload and forget its bytes (checklist 71).

    Raises:
        ProtocolError: it has just ended otherwise; the storage is away.
    """
    with use_case():
        uploads.cancel(session_id=upload.session.id, image_id=upload.image_id, store=store)


def drop(credentials: Credentials, repository: Repository, session_id: UUID, *, store: BlobStore) -> None:
    """Forget an upload whose client was never told of it, unless it is a blob by now.

    Raises:
        Refused, ProtocolError: no longer allowed; it has ended; the database is away.
    """
    cancel(find(credentials, repository, session_id, purpose=TO_WRITE), store=store)


def already_stored(credentials: Credentials, repository: Repository, claimed: Digest) -> bool:
    """Whether the image has the blob already, which is a promise (invariant 2).

    So that a closing request whose first answer got lost may be sent again (checklist 166).
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PUSH))
        record, blob = resolve.blob(repository.namespace, repository.image, str(claimed))
        require(caller, Action.PUSH, repository, record)
        if blob is None or record.image_id is None or not blob.held_at(now()):
            return False
        try:
            blobs.promise(blob_id=blob.id, image_id=record.image_id)
        except BlobNotFound:
            return False
        return True
