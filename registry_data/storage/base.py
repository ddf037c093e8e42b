"""Bytes under keys. Digests, repositories and HTTP are somebody else's business.

Every driver promises (tests/contracts/test_blob_store.py holds each one to it):
  1. `publish` shows a key whole or not at all; when it returns, durable. `read` never sees part of one. Of
     one that has not returned a power failure may leave a part, which `published_as` finds.
  2. What `close` has kept outlives the process and can be gone on with by any other. Of what only `write`
     has taken, a crash may lose the end (a disk loses nothing); `upload_size` says what is left.
  3. An upload has one writer at a time, and is free again as soon as that one ends or dies; seconds after,
     where it died on another machine.
  4. Discarding or deleting what is not there succeeds, so callers just retry.
  5. Absent is only what is known to be absent; whatever else goes wrong is `Unavailable` (invariant 7).
  6. Nothing but StorageError leaves a driver.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NewType, Protocol, runtime_checkable

Key = NewType("Key", str)
UploadId = NewType("UploadId", str)

PIECE = 1024 * 1024  # bytes in which contents are read


class StorageError(Exception):
    """The driver could not do as asked."""


class NotStored(StorageError):
    """No such key or upload."""


class WrongOffset(StorageError):
    """The upload does not end where the caller thinks it does."""

    def __init__(self, actual: int) -> None:
        super().__init__(f"the upload ends at byte {actual}")
        self.actual = actual


class Busy(StorageError):
    """Somebody else is writing to the upload."""


class Full(StorageError):
    """There is no room; what was stored before is still there."""


class Unavailable(StorageError):
    """The backend did not answer as it should. The same call may succeed later."""


class UploadWriter(Protocol):
    """An upload held open to append to. Exactly one of `close` and `abandon` ends it; again is no harm.

    Calls come one at a time, from any thread.
    """

    @property
    def offset(self) -> int:
        """Where the upload ends now, in bytes."""
        ...

    @property
    def is_published(self) -> bool:
        """Whether the upload was, or may have been, published before it was opened."""
        ...

    def write(self, piece: bytes) -> None:
        """Append a piece of any size."""
        ...

    def close(self) -> None:
        """Keep what was written and let the upload go."""
        ...

    def abandon(self) -> None:
        """Make the upload what it was when it was opened, and let it go."""
        ...


class BlobStore(Protocol):
    """What a driver can do."""

    def check(self) -> None:
        """Make ready what is missing, and fail now rather than at the first push.

        Raises:
            Full, Unavailable: in words for an operator.
        """
        ...

    def ensure_capacity(self, size: int) -> None:
        """See that so many bytes more would fit, as far as that can be known beforehand.

        Raises:
            Full: they would not, or would leave less than the reserve.
        """
        ...

    def create_upload(self, upload: UploadId) -> None:
        """Begin an upload; again changes nothing."""
        ...

    def upload_size(self, upload: UploadId) -> int:
        """How many bytes an upload has: the only truth about it."""
        ...

    def open_upload(self, upload: UploadId, *, at: int | None) -> UploadWriter:
        """Hold an upload open to append at offset `at`, or (None) at its end.

        Raises:
            NotStored, WrongOffset, Busy: as their names say.
        """
        ...

    def read_upload(self, upload: UploadId) -> Iterator[bytes]:
        """All bytes of an upload, in pieces."""
        ...

    def publish(self, upload: UploadId, key: Key) -> None:
        """Show an upload's bytes under a key, durable; again is no harm. The upload stays until discarded."""
        ...

    def published_as(self, upload: UploadId) -> Key | None:
        """The key that an upload was or may have been published under, until it is discarded."""
        ...

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        """Forget an upload. What was published of it stays.

        Whoever has just published it, and may hold it open still, says under which key: a driver need not
        look for that then. `held` is for whoever holds it open, and knows that it was not published.

        Raises:
            Busy: another writer has it, and would leave bytes that nobody knows of. Its end comes soon.
        """
        ...

    def size(self, key: Key) -> int:
        """How many bytes a key has."""
        ...

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in pieces; the key may be deleted while it is read.

        Raises:
            NotStored: at the call, not at the first piece.
        """
        ...

    def delete(self, key: Key) -> None:
        """Remove a key."""
        ...


@runtime_checkable
class SignsUrls(Protocol):
    """An extra of object stores that clients can reach and may read from: the server only shows the way."""

    def url_for(self, key: Key, *, expires_in: timedelta) -> str:
        """Where a key's bytes can be read, Range included, without further proof until then."""
        ...


@runtime_checkable
class HasPaths(Protocol):
    """An extra of drivers on a disk: the server can send the file itself."""

    def path_of(self, key: Key) -> Path:
        """Where a key's bytes are."""
        ...
