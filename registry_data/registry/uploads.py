"""Use cases that append bytes to an upload and turn it into a blob (OCI 55-68, 72-79)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from registry_control.catalog import ingest
from registry_control.catalog.errors import DigestMismatch
from registry_control.catalog.services import uploads
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.registry.upload_hashing import CHEAP_TO_REREAD, UploadHashes
from registry_data.registry.upload_sessions import Upload
from registry_data.registry.use_case import use_case
from registry_data.storage.base import BlobStore, Busy, UploadWriter, WrongOffset

logger = logging.getLogger(__name__)

_BUSY: Final = "another request is writing to this upload: request its offset when that one has ended"


class UploadMoved(ProtocolError):
    """The upload has another offset than the client expects: 416 with that offset (OCI 64, 75)."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(
            ErrorCode.BLOB_UPLOAD_INVALID, message, status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        )
        self.offset = offset


@dataclass(slots=True)
class OpenUpload:
    """An upload that one request has open. `save_progress`, `rollback` or `finish` ends it.

    `hash` and `store` receive the same pieces and may run at the same time.
    """

    upload: Upload
    writer: UploadWriter
    hashes: UploadHashes

    def digest(self, algorithm: str) -> Digest | None:
        """The digest of all bytes, or None if they must be read again (`rehash`)."""
        return self.hashes.digest_at(self.writer.offset, algorithm)

    def hash(self, piece: bytes) -> None:
        """Hash the next piece."""
        self.hashes.update(piece)

    def store(self, piece: bytes) -> None:
        """Write the next piece.

        Raises:
            ProtocolError: the storage is full or does not respond.
        """
        with use_case():
            self.write(piece)

    def write(self, piece: bytes) -> None:
        """Write the next piece inside a use case of the caller.

        Raises:
            StorageError: the storage is full or does not respond.
        """
        if piece:
            self.writer.write(piece)


def open_upload(upload: Upload, *, at: int | None, store: BlobStore, coming: int = 0) -> OpenUpload:
    """Open an upload to append at offset `at`, or at its end; `coming` is the length of the body, if known.

    Raises:
        ProtocolError: the storage is full or does not respond.
        UploadMoved: the upload does not end at `at`, or another request is writing to it.
    """
    with use_case():
        return _open(upload, at=at, store=store, coming=coming)


def _open(upload: Upload, *, at: int | None, store: BlobStore, coming: int) -> OpenUpload:
    store.ensure_capacity(coming)
    try:
        writer = store.open_upload(upload.id, at=at)
    except WrongOffset as error:
        message = f"the upload ends at byte {error.actual}, go on from there"
        raise UploadMoved(message, error.actual) from error
    except Busy as error:
        raise UploadMoved(_BUSY, store.upload_size(upload.id)) from error
    if writer.is_published:
        _check_open(upload, writer)
    return OpenUpload(upload, writer, UploadHashes.resume(upload.id, upload.session, writer.offset))


def _check_open(upload: Upload, writer: UploadWriter) -> None:
    """Check that a published upload has not become a blob since this request found its session (ADR 32).

    A blob, which other images may have by now, must be neither written to nor published again.
    """
    try:
        uploads.require_open(upload.session, image_id=upload.image_id)
    except BaseException:
        writer.close()
        raise


def keep_alive(append: OpenUpload) -> None:
    """Extend the life of the session, which is due, while the bytes of its upload arrive or are read again.

    Without an answer of the database the request goes on: there is time for many more attempts.
    """
    session = append.upload.session
    try:
        with use_case():
            session = uploads.keep_alive(session)
    except ProtocolError as error:
        logger.warning("the upload %s was not kept alive, which is tried again: %s", session.id, error)
        session = session.renewing_in(0.01)
    append.upload = replace(append.upload, session=session)


def save_progress(append: OpenUpload) -> int:
    """Close the upload and keep what this request wrote, for the next request. Returns the upload's size.

    Raises:
        ProtocolError: the storage does not respond.
    """
    with use_case():
        return _save_progress(append)


def _save_progress(append: OpenUpload) -> int:
    offset = append.writer.offset
    append.writer.close()
    uploads.save_progress(append.upload.session, hashed=append.hashes.save(offset))
    return offset


def rollback(append: OpenUpload) -> None:
    """Close the upload and discard what this request wrote; the digest of the rest stays known."""
    with use_case():
        append.hashes.save_at_began()
        append.writer.abandon()


def rehash(append: OpenUpload, claimed: Digest, *, store: BlobStore) -> None:
    """Read an upload whose digest is not known, so that `finish` need not.

    This takes time in proportion to the upload's size: run it in the threads for bytes.

    Raises:
        ProtocolError: the storage does not respond.
    """
    with use_case():
        _rehash(append, claimed, store)


def _rehash(append: OpenUpload, claimed: Digest, store: BlobStore) -> None:
    pieces = store.read_upload(append.upload.id)
    append.hashes.reread(pieces, append.writer.offset, claimed.algorithm)


def finish(append: OpenUpload, claimed: Digest, *, store: BlobStore) -> None:
    """Turn the upload into a blob of its image: verified, durable, recorded, in this order (invariant 4).

    After a wrong digest, what this request wrote is discarded, and the session can be used again (OCI 57).

    Raises:
        ProtocolError: the digest differs, the image or session was deleted, the storage is full or does not
            respond.
    """
    with use_case():
        _finish(append, claimed, store)


def _finish(
    append: OpenUpload, claimed: Digest, store: BlobStore, *, duplicate: ingest.Duplicate | None = None
) -> None:
    try:
        append = _verified(append, claimed, store)
        received = _received(append, claimed, append.writer.offset)
        ingest.store_blob(received, claimed, store=store, duplicate=duplicate)
    finally:
        append.writer.close()


def _received(append: OpenUpload, digest: Digest, size: int) -> ingest.ReceivedBlob:
    upload = append.upload
    return ingest.ReceivedBlob(upload.session.id, upload.image_id, append.writer, digest, size)


def _verified(append: OpenUpload, claimed: Digest, store: BlobStore) -> OpenUpload:
    """Return the upload, open, after its content was found to have the claimed digest.

    A client repeats a closing request with its body if the first attempt stored the body and then failed
    (OCI 72). The upload then has the claimed digest without the second copy of the body, which is discarded.

    Raises:
        DigestMismatch: the content has another digest.
    """
    if (actual := append.digest(claimed.algorithm)) is None:
        _rehash(append, claimed, store)
        actual = append.digest(claimed.algorithm)
    if actual == claimed:
        return append
    hashes, began = append.hashes, append.hashes.began
    had_body = append.writer.offset > began
    append.writer.abandon()
    hashes.save_at_began()
    if began and had_body and hashes.digest_at_began(claimed.algorithm) == claimed:
        with suppress(UploadMoved):  # another request has opened it meanwhile
            return _open(append.upload, at=began, store=store, coming=0)
    raise DigestMismatch(expected=str(claimed), actual=str(actual))


def already_published(append: OpenUpload, claimed: Digest, *, store: BlobStore) -> bool:
    """Whether the upload was published with the claimed digest, so that a repeated body adds nothing.

    Raises:
        ProtocolError: the storage does not respond.
    """
    if not append.writer.is_published:
        return False
    with use_case():
        return store.published_as(append.upload.id) == ingest.published_key(append.upload.id, claimed)


def append_small(chunk: bytes, upload: Upload, *, at: int | None, store: BlobStore) -> int:
    """Append a chunk that has arrived completely, in one step. Returns the upload's size.

    Raises:
        ProtocolError, UploadMoved: as `open_upload` and `save_progress`; nothing of the chunk is kept.
    """
    with use_case():
        append = _open(upload, at=at, store=store, coming=0)
        with _abandon_on_error(append):
            append.hash(chunk)
            append.write(chunk)
        return _save_progress(append)


def finish_small(
    chunk: bytes, claimed: Digest, upload: Upload, *, at: int | None, store: BlobStore
) -> OpenUpload | None:
    """Append a last chunk that has arrived completely, and turn the upload into a blob.

    Returns the upload, still open, if many bytes must be read again: the caller calls `rehash` and `finish`.

    Raises:
        ProtocolError, UploadMoved: as `open_upload` and `finish`; nothing of the chunk is kept.
    """
    with use_case():
        append, duplicate = _open(upload, at=at, store=store, coming=0), None
        with _abandon_on_error(append):
            if not already_published(append, claimed, store=store):
                append.hash(chunk)
                if append.hashes.digest_of_hashed(claimed.algorithm) == claimed:
                    received = _received(append, claimed, append.hashes.hashed)
                    duplicate = ingest.deduplicate(received, store=store)
                    if duplicate.is_leased:
                        return None  # content that the organization has is not even written (ADR 35)
                append.write(chunk)
        if append.writer.offset > CHEAP_TO_REREAD and append.digest(claimed.algorithm) is None:
            return append
        _finish(append, claimed, store, duplicate=duplicate)
        return None


@contextmanager
def _abandon_on_error(append: OpenUpload) -> Iterator[None]:
    try:
        yield
    except BaseException:
        append.writer.abandon()
        raise
