"""Storage driver for files below one folder.

    <root>/uploads/<id>                             bytes received so far; its writer holds flock(2) on it
    <root>/uploads/<id>.<algorithm>:<hex>           records the key under which it is published
    <root>/blobs/<algorithm>/<2 hex>/<hex>.<id>

The last two are hard links to the first, made by `publish`: nothing is copied, and publishing is idempotent
until the upload is discarded. ADR 29 says why the record is a hard link and not a file.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import finalize

from registry_data.storage.base import (
    PIECE,
    Busy,
    InsufficientStorage,
    Key,
    Kind,
    NotStored,
    Page,
    StorageError,
    Unavailable,
    UploadId,
    WrongOffset,
)
from registry_data.storage.disk import open_for_sync, start_writeback, sync_folder
from registry_data.storage.folder_listing import page_of_folder, upload_of
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import blob_key, check_generation, check_key, check_upload

_ALGORITHMS: Final = ("sha256", "sha512")
_SHARDS: Final = 256  # folders below each algorithm
_WRITEBACK: Final = 4 * 1024 * 1024  # bytes of an upload after which write-back is started
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FilesystemStore:
    """The driver. It has no state in memory, so any number of processes may use the same root."""

    def __init__(self, root: Path, *, reserve: int | None = None) -> None:
        """`reserve` is the free space to keep on the disk, in bytes (see FreeSpace)."""
        self._root = root
        self._free_space = FreeSpace(root, reserve)

    def check(self) -> None:
        """Create all folders, the shards included, so that a push has to sync one folder only."""
        with self.translate_errors():
            self._uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
            for algorithm in _ALGORITHMS:
                shards = self._root / "blobs" / algorithm
                if not shards.is_dir() or len([*shards.iterdir()]) < _SHARDS:
                    self._make_shards(shards)
        self.check_exists()

    def check_exists(self) -> None:
        """Check the folders for uploads and blobs."""
        for folder in (self._uploads, *(self._root / "blobs" / algorithm for algorithm in _ALGORITHMS)):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise Unavailable(f"the folder {folder} is missing or not writable for this process")

    def _make_shards(self, shards: Path) -> None:
        for number in range(_SHARDS):
            (shards / f"{number:02x}").mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (shards, shards.parent, self._root):
            sync_folder(folder)

    def ensure_capacity(self, size: int) -> None:
        """Check the free space of the disk."""
        with self.translate_errors():
            self._free_space.ensure(size)

    def create_upload(self, upload: UploadId) -> None:
        """Create an empty file, unless it exists."""
        with self.translate_errors():
            os.close(os.open(self._upload(upload), os.O_WRONLY | os.O_CREAT, 0o600))

    def upload_size(self, upload: UploadId) -> int:
        """The file's size."""
        with self.translate_errors():
            return self._upload(upload).stat().st_size

    def open_upload(self, upload: UploadId, *, at: int | None) -> "_FileWriter":
        """Lock the file. The kernel releases the lock when the process dies."""
        with self.translate_errors():
            descriptor = os.open(self._upload(upload), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                _lock(descriptor)
                found = os.fstat(descriptor)
                # The lock's previous owner may have discarded the upload: then the file is a blob or deleted.
                if not os.path.samestat(found, self._upload(upload).stat()):
                    raise NotStored(f"the upload {upload} was published or discarded")
                if at is not None and at != found.st_size:
                    raise WrongOffset(found.st_size)
            except BaseException:
                os.close(descriptor)
                raise
            return _FileWriter(self, descriptor, found.st_size, is_published=found.st_nlink > 1)

    def read_upload(self, upload: UploadId) -> Iterator[bytes]:
        """Read the file, also while it is written."""
        return self._pieces(self._upload(upload), 0, None)

    def publish(self, upload: UploadId, key: Key) -> None:
        """Link the record, link the key, sync the bytes and the folder, in this order.

        Links are not synced before the bytes, so that there is one wait for the disk. A power failure may
        leave a partial blob, which no row of the database names; `published_as` finds it by the record.
        """
        source, target, record = self._upload(upload), self.path_of(key), self._record(upload, key)
        others = [other for other in self._recorded(upload) if other != key]  # of an interrupted attempt
        with self.translate_errors():
            for other in others:
                self.path_of(other).unlink(missing_ok=True)
                self._record(upload, other).unlink(missing_ok=True)
            with suppress(FileExistsError):
                os.link(source, record)
            try:
                os.link(source, target)
            except FileExistsError:
                if not source.samefile(target):
                    raise Unavailable(f"the key {key} has other content already") from None
            with open_for_sync(target) as file, open_for_sync(target.parent) as folder:
                try:
                    os.fdatasync(file)
                    os.fsync(folder)
                except OSError:
                    # The kernel reports a lost write once: a second fsync would succeed without the data.
                    for path in (target, record, source):
                        with suppress(OSError):
                            path.unlink(missing_ok=True)
                    raise

    def published_as(self, upload: UploadId) -> Key | None:
        """The recorded key."""
        try:
            return next(iter(self._recorded(upload)), None)
        except NotStored:
            return None

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        """Remove the record of the key and then the upload's name.

        A writer that has the file open continues with a file without a name; its result is NotStored.
        """
        key = published if published or held else self.published_as(upload)
        record = [] if key is None else [self._record(upload, key)]
        for path in (*record, self._upload(upload)):
            with suppress(NotStored), self.translate_errors():
                path.unlink()

    def size(self, key: Key) -> int:
        """Ask the file."""
        with self.translate_errors():
            return self.path_of(key).stat().st_size

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open the file now, read it later."""
        return self._pieces(self.path_of(key), start, stop)

    def read_past_cache(self, key: Key) -> Iterator[bytes]:
        """Drop the file from the page cache before it is read, and each piece after it (posix_fadvise(2))."""
        reader = self._pieces(self.path_of(key), 0, None)
        reader.drop_cached()
        return reader

    def delete(self, key: Key) -> None:
        """Remove the file's name; a process that has the file open can read it to its end."""
        with suppress(NotStored), self.translate_errors():
            self.path_of(key).unlink()

    def list_objects(self, cursor: str, *, limit: int) -> Page:
        """Read the folders for uploads and blobs; the cursor is the name of the last file."""
        self.check_exists()
        try:
            return page_of_folder(self._root, cursor, limit=limit)
        except OSError as error:
            raise Unavailable(str(error)) from error

    def remove_object(self, kind: Kind, name: str) -> None:
        """Remove a file's name; other names of the same file stay."""
        if kind is Kind.CONTENT:
            self.delete(check_key(Key(name)))
            return
        if kind is not Kind.UPLOAD:
            raise ValueError(f"not an object of this registry: {name!r}")
        upload_of(name)
        with suppress(NotStored), self.translate_errors():
            (self._root / name).unlink()

    def path_of(self, key: Key) -> Path:
        """Where a key's bytes are."""
        return self._root / check_key(key)

    @property
    def _uploads(self) -> Path:
        return self._root / "uploads"

    def _upload(self, upload: UploadId) -> Path:
        return self._uploads / check_upload(upload)

    def _record(self, upload: UploadId, key: Key) -> Path:
        return self._uploads / f"{upload}.{check_generation(upload, key)}"

    def _recorded(self, upload: UploadId) -> list[Key]:
        """Keys recorded for an upload. The folder is listed only if the file has more than one name.

        Raises:
            NotStored: there is no such upload, so it has no record either.
        """
        with self.translate_errors():
            if self._upload(upload).stat().st_nlink == 1:
                return []
            names = [path.name for path in self._uploads.iterdir() if path.name.startswith(f"{upload}.")]
        digests = [name.partition(".")[2].partition(":") for name in names]
        return [
            blob_key(algorithm, encoded, upload)
            for algorithm, _, encoded in digests
            if algorithm in _ALGORITHMS
        ]

    def _pieces(self, path: Path, start: int, stop: int | None) -> "_FileReader":
        with self.translate_errors():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            end = os.fstat(descriptor).st_size if stop is None else stop
        return _FileReader(self, descriptor, start, end)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise the protocol's errors for the system's."""
        try:
            yield
        except OSError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: OSError) -> StorageError:
        if error.errno in _NO_SPACE:
            return InsufficientStorage(f"the disk of {self._root} is full")
        # On a disk that is not mounted every file is missing: NotStored needs our folders (invariant 7).
        if error.errno == errno.ENOENT and self._uploads.is_dir() and _has_folder(error.filename):
            return NotStored(str(error.filename))
        return Unavailable(str(error))


class _FileWriter:
    """See UploadWriter. Garbage collection closes it: a cancelled request may never receive it."""

    def __init__(self, store: FilesystemStore, descriptor: int, size: int, *, is_published: bool) -> None:
        self._store, self._descriptor, self._initial = store, descriptor, size
        self._close = finalize(self, os.close, descriptor)  # at the first call only
        self.offset, self.is_published = size, is_published

    def write(self, piece: bytes) -> None:
        """Write all of it. If the disk is full, `offset` says how much was written."""
        self._store.ensure_capacity(len(piece))
        previous, left = self.offset, memoryview(piece)
        with self._store.translate_errors():
            while left:
                written = os.write(self._descriptor, left)
                self.offset += written
                left = left[written:]
        self._write_back(previous)

    def _write_back(self, previous: int) -> None:
        """Start write-back of the blocks completed since `previous`, so that the final sync is short."""
        start, stop = previous // _WRITEBACK * _WRITEBACK, self.offset // _WRITEBACK * _WRITEBACK
        if start < stop:
            start_writeback(self._descriptor, start, stop)

    def close(self) -> None:
        """Close the file, which releases its lock."""
        self._descriptor = -1
        with self._store.translate_errors():
            self._close()

    def abandon(self) -> None:
        """Truncate the file to its initial size and close it."""
        if self._close.alive:
            try:
                with self._store.translate_errors():
                    os.ftruncate(self._descriptor, self._initial)
                    self.offset = self._initial
            finally:
                self.close()


class _FileReader:
    """Iterator over a part of a file. The end of the iteration, or garbage collection, closes the file."""

    def __init__(self, store: FilesystemStore, descriptor: int, start: int, stop: int) -> None:
        self._store, self._descriptor, self._offset, self._stop = store, descriptor, start, stop
        self._close = finalize(self, os.close, descriptor)  # at the first call only
        self.piece_size = PIECE
        self._drops_cache = False

    def drop_cached(self) -> None:
        """Read from the disk, and leave nothing in the page cache. Pages that are not yet written stay."""
        self._drops_cache = True
        with self._store.translate_errors():
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def __iter__(self) -> "_FileReader":
        return self

    def __next__(self) -> bytes:
        piece = self._read() if self._offset < self._stop else b""
        if not piece:
            self.close()
            raise StopIteration
        self._offset += len(piece)
        return piece

    def _read(self) -> bytes:
        with self._store.translate_errors():
            piece = os.pread(self._descriptor, min(self.piece_size, self._stop - self._offset), self._offset)
            if self._drops_cache:
                os.posix_fadvise(self._descriptor, self._offset, len(piece), os.POSIX_FADV_DONTNEED)
            return piece

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._descriptor = -1
        with self._store.translate_errors():
            self._close()


def _has_folder(path: object) -> bool:
    """Whether the folder of a missing file exists: `check` has created all of them."""
    return path is not None and Path(str(path)).parent.is_dir()


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("another writer has the upload open") from None
