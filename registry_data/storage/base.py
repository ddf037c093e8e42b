"""Protocol of the storage drivers: blobs under keys, and uploads that become blobs.

A driver knows nothing of repositories and HTTP. Of a digest it knows only that a key contains one
(`keys.py`); it computes and verifies none.

Every driver guarantees (tests/contracts/test_blob_store.py checks each one):
  1. `publish` is atomic: a key is readable completely or not at all, and durable when `publish` returns. If a
     power failure interrupts it, a partial object may remain, which `published_as` reports.
  2. Bytes saved by `UploadWriter.close` survive the process, and any other process can continue the upload. A
     crash may lose the end of what was only written (a file loses nothing); `upload_size` reports the rest.
  3. An upload has one writer at a time. It is released when the writer ends or its process dies; seconds
     later if the process died on another machine.
  4. `discard` and `delete` are idempotent: they succeed if nothing is there.
  5. NotStored means known to be absent. Every other failure is Unavailable (invariant 7).
  6. No exception other than StorageError leaves a driver, except ValueError for a malformed argument.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, NewType, Protocol, runtime_checkable

Key = NewType("Key", str)
UploadId = NewType("UploadId", str)

PIECE = 1024 * 1024  # bytes; the size in which content is read


@runtime_checkable
class SizedReader(Protocol):
    """An iterator over contents in pieces of at most `piece_size` bytes, which may be changed."""

    piece_size: int

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...


class StorageError(Exception):
    """The driver could not do what it was called for."""


class NotStored(StorageError):
    """The key or upload does not exist."""


class WrongOffset(StorageError):
    """The upload's size differs from the offset that the caller passed."""

    def __init__(self, actual: int) -> None:
        super().__init__(f"the upload ends at byte {actual}")
        self.actual = actual


class Busy(StorageError):
    """Another writer has the upload open."""


class InsufficientStorage(StorageError):
    """There is no space left. What was stored before is intact."""


class Unavailable(StorageError):
    """The backend failed. The same call may succeed later."""


class Kind(StrEnum):
    """What a stored object is, as its name tells."""

    CONTENT = "content"
    """The bytes of a blob, or of an upload that may become one."""

    UPLOAD = "upload"
    """A part of an upload."""

    UNFINISHED = "unfinished"
    """A multipart upload of S3 that was neither completed nor aborted."""

    FOREIGN = "foreign"
    """Not of this registry; a folder stands for everything in it."""


class StoredObject(NamedTuple):
    """An object or file, as a listing returns it."""

    kind: Kind
    name: str  # in the bucket, or relative to the root
    upload: str  # the id of the upload that it came with; empty if it is foreign
    size: int  # bytes; 0 if that is not known


class Page(NamedTuple):
    """A part of a listing, and the cursor at which the next one begins; None at the end."""

    objects: Sequence[StoredObject]
    next: str | None


class UploadWriter(Protocol):
    """An upload opened for appending. `close` or `abandon` ends it; calling either again has no effect.

    Not thread-safe: calls may come from different threads, one at a time.
    """

    @property
    def offset(self) -> int:
        """The upload's size in bytes, including what this writer wrote."""
        ...

    @property
    def is_published(self) -> bool:
        """Whether the upload was, or may have been, published before it was opened."""
        ...

    def write(self, piece: bytes) -> None:
        """Append a piece of any size.

        Raises:
            InsufficientStorage: there is no space; `offset` says how much was written.
            Unavailable: the backend failed, or another writer has taken the upload over.
        """
        ...

    def close(self) -> None:
        """Save what was written and release the upload.

        Raises:
            StorageError: it could not be saved.
        """
        ...

    def abandon(self) -> None:
        """Restore the upload as it was when it was opened, and release it."""
        ...


class BlobStore(Protocol):
    """Required methods of a driver."""

    def check(self) -> None:
        """Create what is missing (folders, bucket) and report a configuration error at the start.

        Raises:
            InsufficientStorage, Unavailable: with a message for the operator.
        """
        ...

    def check_exists(self) -> None:
        """Check that the backend responds, has what `check` creates, and is writable. Creates nothing.

        Raises:
            Unavailable: with a message for the operator.
        """
        ...

    def ensure_capacity(self, size: int) -> None:
        """Check that `size` more bytes would fit, as far as that can be known beforehand.

        Raises:
            InsufficientStorage: they would not, or would use the reserve.
        """
        ...

    def create_upload(self, upload: UploadId) -> None:
        """Create an empty upload. An existing one is not changed."""
        ...

    def upload_size(self, upload: UploadId) -> int:
        """Size of an upload in bytes. The storage is the only authority on it (ADR 5).

        Raises:
            NotStored: there is no such upload.
        """
        ...

    def open_upload(self, upload: UploadId, *, at: int | None) -> UploadWriter:
        """Open an upload for appending at offset `at`, or at its end for None.

        Raises:
            NotStored: there is no such upload.
            WrongOffset: the upload does not end at `at`.
            Busy: another writer has it open.
        """
        ...

    def read_upload(self, upload: UploadId) -> Iterator[bytes]:
        """All bytes of an upload, in pieces.

        A process may read an upload that it has open itself: it gets what was written so far. If another
        process has it open, a driver may return what that one has saved so far, or raise Busy.

        Raises:
            NotStored: there is no such upload.
            Busy: another process has it open, and the driver cannot read it meanwhile.
        """
        ...

    def publish(self, upload: UploadId, key: Key) -> None:
        """Make an upload's bytes readable under a key, durably. Idempotent until the upload is discarded.

        The key's generation has to be the upload's id: a driver finds an upload's key, or a key's object, by
        it. Publishing under another digest replaces the earlier key. The upload stays until it is discarded.

        Raises:
            ValueError: the key's generation is not the upload's id.
            NotStored: there is no such upload.
            Busy: another process has it open.
        """
        ...

    def published_as(self, upload: UploadId) -> Key | None:
        """The key that an upload was, or may have been, published under. None after it was discarded."""
        ...

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        """Delete an upload, but not the blob that it was published as. Idempotent.

        `published` is the key of that blob, if the caller knows it. Without it a driver looks for the key in
        the upload, which may lack it: a request to create an upload that was delayed creates the upload again
        after it was discarded. `held` says that the caller has the upload open and that it was not published.
        With either, the caller may still have the upload open.

        Raises:
            Busy: another writer has it open and would leave bytes without an upload. Retry later.
        """
        ...

    def size(self, key: Key) -> int:
        """Size of a key's content in bytes.

        Raises:
            NotStored: the key does not exist.
        """
        ...

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in pieces. The key may be deleted meanwhile.

        Raises:
            NotStored: the key does not exist. Raised by the call, not by the iteration; a key deleted
                meanwhile may raise it later.
        """
        ...

    def delete(self, key: Key) -> None:
        """Delete a key. Idempotent."""
        ...

    def list_objects(self, cursor: str, *, limit: int) -> Page:
        """About `limit` objects of the storage; the first page has the cursor "".

        The memory needed does not depend on the number of objects. An object that exists during the whole
        listing is on one of its pages.

        Raises:
            Unavailable: the backend failed; the same call may succeed later.
        """
        ...

    def remove_object(self, kind: Kind, name: str) -> None:
        """Delete an object that a listing returned. Idempotent. The caller knows that nothing refers to it.

        Content goes only as an object of the kind CONTENT, never together with an upload.

        Raises:
            ValueError: it is foreign, or its name has not the form of its kind.
            Busy: a writer has the upload open. Retry later.
        """
        ...


@runtime_checkable
class DeletesMany(Protocol):
    """Optional: one request deletes many keys."""

    def delete_many(self, keys: Sequence[Key]) -> Mapping[Key, StorageError]:
        """Delete keys. Returns an error for each key that may still have content; raises none.

        Only an explicit confirmation counts as deleted, or as absent (invariant 7).
        """
        ...


@runtime_checkable
class ReadsPastCache(Protocol):
    """Optional: content can be read from the medium itself, which is what has to be verified."""

    def read_past_cache(self, key: Key) -> Iterator[bytes]:
        """All bytes, not from a cache of the operating system, and without leaving them in it.

        Raises:
            NotStored: as `read`.
        """
        ...


@runtime_checkable
class SignsUrls(Protocol):
    """Optional: clients may read from the object store directly, and the server redirects them."""

    def url_for(self, key: Key, *, expires_in: timedelta) -> str:
        """A presigned URL for a key's content. It supports Range and needs no other credentials."""
        ...


@runtime_checkable
class HasPaths(Protocol):
    """Optional: content is in files, whose size can be had without a request to a server."""

    def path_of(self, key: Key) -> Path:
        """The file with a key's content."""
        ...
