"""Blobs and uploads as files below one folder.

    <root>/uploads/<id>                             bytes that have come so far; who writes holds a lock on it
    <root>/uploads/<id>.<algorithm>:<hex>           says under which key it is being published
    <root>/blobs/<algorithm>/<2 hex>/<hex>.<id>

Publishing gives the upload's file these further names: all are one file until the upload is discarded, so
nothing is copied and a crash in between can be repeated. No file is made for it that would be deleted soon
after: decision 29 tells what that costs.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from registry_data.storage.base import (
    PIECE,
    Busy,
    Full,
    Key,
    NotStored,
    StorageError,
    Unavailable,
    UploadId,
    WrongOffset,
)
from registry_data.storage.disk import begin_writing, opened, sync_folder
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import blob_key, check_key, check_upload, parse_key

_ALGORITHMS: Final = ("sha256", "sha512")
_STRETCH: Final = 4 * 1024 * 1024  # bytes of an upload that the disk is given at once
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FilesystemStore:
    """The driver; knows nothing but its root, so any number of processes may use the same one."""

    def __init__(self, root: Path, *, reserve: int | None = None) -> None:
        """`reserve` is what stays free of the disk, in bytes (see Room)."""
        self._root = root
        self._room = FreeSpace(root, reserve)

    def check(self) -> None:
        """Make the folders, all shards included, so that a push syncs one folder only."""
        with self._translated():
            self._uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
            for algorithm in _ALGORITHMS:
                shards = self._root / "blobs" / algorithm
                if not (shards / "ff").is_dir():
                    self._make_shards(shards)
            if not os.access(self._uploads, os.W_OK | os.X_OK):
                raise Unavailable(f"{self._uploads} is not writable")

    def _make_shards(self, shards: Path) -> None:
        for number in range(256):
            (shards / f"{number:02x}").mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (shards, shards.parent, self._root):
            sync_folder(folder)

    def ensure_capacity(self, size: int) -> None:
        """Ask the disk."""
        with self._translated():
            self._room.require(size)

    def create_upload(self, upload: UploadId) -> None:
        """Make an empty file, or leave the one that is there."""
        with self._translated():
            os.close(os.open(self._upload(upload), os.O_WRONLY | os.O_CREAT, 0o600))

    def upload_size(self, upload: UploadId) -> int:
        """Ask the file: after a crash nothing else knows."""
        with self._translated():
            return self._upload(upload).stat().st_size

    def open_upload(self, upload: UploadId, *, at: int | None) -> "_FileWriter":
        """Take the file's lock, which the kernel takes back should this process die."""
        with self._translated():
            descriptor = os.open(self._upload(upload), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                _lock(descriptor)
                found = os.fstat(descriptor)
                # Whoever had the lock may have discarded the upload: then this file is a blob, or nothing.
                if not os.path.samestat(found, self._upload(upload).stat()):
                    raise NotStored(f"the upload {upload} has ended")
                if at is not None and at != found.st_size:
                    raise WrongOffset(found.st_size)
            except BaseException:
                os.close(descriptor)
                raise
            return _FileWriter(self, descriptor, found.st_size, is_published=found.st_nlink > 1)

    def read_upload(self, upload: UploadId) -> Iterator[bytes]:
        """Read the file from its beginning."""
        return self._pieces(self._upload(upload), 0, None)

    def publish(self, upload: UploadId, key: Key) -> None:
        """Note the key, link, sync bytes and folder: in this order.

        The disk waits once for all of it. What a power failure leaves of a key before that is found by
        `published_as`, and no row names it.
        """
        source, target, note = self._upload(upload), self.path_of(key), self._note(upload, key)
        others = [other for other in self._noted(upload) if other != key]  # of a try that died
        with self._translated():
            for other in others:
                self.path_of(other).unlink(missing_ok=True)
                self._note(upload, other).unlink(missing_ok=True)
            with suppress(FileExistsError):
                os.link(source, note)
            try:
                os.link(source, target)
            except FileExistsError:
                if not source.samefile(target):
                    raise Unavailable(f"{key} holds something else already") from None
            with opened(target) as file, opened(target.parent) as folder:
                try:
                    os.fdatasync(file)
                    os.fsync(folder)
                except OSError:
                    # The kernel says so once: another try would be told that all is well, and it is not.
                    for path in (target, note, source):
                        with suppress(OSError):
                            path.unlink(missing_ok=True)
                    raise

    def published_as(self, upload: UploadId) -> Key | None:
        """Look for the note that `publish` made before the key."""
        try:
            return next(iter(self._noted(upload)), None)
        except NotStored:
            return None

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        """Remove what says where the upload was published and, last, its own name.

        A writer that has it open goes on with a file that has no name, and ends with `NotStored`.
        """
        key = published if published or held else self.published_as(upload)
        with self._translated():
            if key is not None:
                self._note(upload, key).unlink(missing_ok=True)
            self._upload(upload).unlink(missing_ok=True)

    def size(self, key: Key) -> int:
        """Ask the file."""
        with self._translated():
            return self.path_of(key).stat().st_size

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open the file now, read it later."""
        return self._pieces(self.path_of(key), start, stop)

    def delete(self, key: Key) -> None:
        """Remove the file's name; who reads it reads on."""
        with self._translated():
            self.path_of(key).unlink(missing_ok=True)

    def path_of(self, key: Key) -> Path:
        """Where a key's bytes are."""
        return self._root / check_key(key)

    @property
    def _uploads(self) -> Path:
        return self._root / "uploads"

    def _upload(self, upload: UploadId) -> Path:
        return self._uploads / check_upload(upload)

    def _note(self, upload: UploadId, key: Key) -> Path:
        digest, generation = parse_key(key)
        if generation != upload:
            raise ValueError(f"the key {key} is not one of the upload {upload}")
        return self._uploads / f"{upload}.{digest}"

    def _noted(self, upload: UploadId) -> list[Key]:
        """Keys that were noted for an upload; only where it has more than one name are others looked through.

        Raises:
            NotStored: there is no such upload; its note was removed before it.
        """
        with self._translated():
            if self._upload(upload).stat().st_nlink == 1:
                return []
            names = [path.name for path in self._uploads.iterdir() if path.name.startswith(f"{upload}.")]
        digests = [name.partition(".")[2].partition(":") for name in names]
        return [
            blob_key(algorithm, encoded, upload)
            for algorithm, _, encoded in digests
            if algorithm in _ALGORITHMS
        ]

    def _pieces(self, path: Path, start: int, stop: int | None) -> Iterator[bytes]:
        with self._translated():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            end = os.fstat(descriptor).st_size if stop is None else stop
        return _FileReader(self, descriptor, start, end)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the system's errors into the protocol's."""
        try:
            yield
        except OSError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: OSError) -> StorageError:
        if error.errno in _NO_ROOM:
            return Full(f"no room below {self._root}")
        # A disk that is not mounted has no file either: only below our own folders is absent known (7).
        if error.errno == errno.ENOENT and self._uploads.is_dir():
            return NotStored(str(error.filename))
        return Unavailable(str(error))


class _FileWriter:
    """See UploadWriter."""

    def __init__(self, store: FilesystemStore, descriptor: int, size: int, *, is_published: bool) -> None:
        self._store, self._descriptor, self._began = store, descriptor, size
        self.offset, self.is_published = size, is_published

    def write(self, piece: bytes) -> None:
        """Write all of it; where the disk is full, `offset` says how much there is."""
        self._store.ensure_capacity(len(piece))
        began, left = self.offset, memoryview(piece)
        with self._store._translated():  # noqa: SLF001 - the two are one driver
            while left:
                written = os.write(self._descriptor, left)
                self.offset += written
                left = left[written:]
        self._write_back(began)

    def _write_back(self, began: int) -> None:
        """Have the disk begin with each stretch that is full now, so that the sync at the end is short."""
        start, stop = began // _STRETCH * _STRETCH, self.offset // _STRETCH * _STRETCH
        if start < stop:
            begin_writing(self._descriptor, start, stop)

    def close(self) -> None:
        """Close the file, and so give its lock back."""
        descriptor, self._descriptor = self._descriptor, -1  # closed even where that fails
        if descriptor >= 0:
            with self._store._translated():  # noqa: SLF001 - the two are one driver
                os.close(descriptor)

    def abandon(self) -> None:
        """Cut off what this writer wrote."""
        if self._descriptor >= 0:
            try:
                with self._store._translated():  # noqa: SLF001 - the two are one driver
                    os.ftruncate(self._descriptor, self._began)
                    self.offset = self._began
            finally:
                self.close()

    def __del__(self) -> None:
        # A request that was cancelled while it opened this has nobody to close it, and the lock would stay.
        self.close()


class _FileReader:
    """An iterator over a part of a file, which it closes at the end or when it is forgotten."""

    def __init__(self, store: FilesystemStore, descriptor: int, start: int, stop: int) -> None:
        self._store, self._descriptor, self._at, self._stop = store, descriptor, start, stop

    def __iter__(self) -> "_FileReader":
        return self

    def __next__(self) -> bytes:
        piece = self._read() if self._at < self._stop else b""
        if not piece:
            self.close()
            raise StopIteration
        self._at += len(piece)
        return piece

    def _read(self) -> bytes:
        with self._store._translated():  # noqa: SLF001 - the two are one driver
            return os.pread(self._descriptor, min(PIECE, self._stop - self._at), self._at)

    def close(self) -> None:
        """Close the file; again is no harm."""
        descriptor, self._descriptor = self._descriptor, -1  # closed even where that fails
        if descriptor >= 0:
            with self._store._translated():  # noqa: SLF001 - the two are one driver
                os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("another writer has the upload") from None
