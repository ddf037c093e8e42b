"""Local buffer for the bytes of an S3 upload that do not fill a part yet."""

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from registry_data.storage.base import PIECE, InsufficientStorage, Unavailable
from registry_data.storage.free_space import FreeSpace

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool:
    """A file without a name, so the kernel deletes it when the process ends."""

    def __init__(self, free_space: FreeSpace) -> None:
        self._free_space = free_space
        with translate_errors():
            self._file = tempfile.TemporaryFile(dir=free_space.folder, buffering=0)  # noqa: SIM115 - see `close`
        self.size = 0

    def append(self, piece: memoryview) -> None:
        """Write all of a piece, or nothing.

        Raises:
            InsufficientStorage, Unavailable: the file could not be written.
        """
        with translate_errors():
            self._free_space.ensure(len(piece))
            try:
                done = 0
                while done < len(piece):
                    done += os.pwrite(self._file.fileno(), piece[done:], self.size + done)
            except OSError:
                os.ftruncate(self._file.fileno(), self.size)
                raise
        self.size += len(piece)

    def view(self) -> memoryview:
        """All bytes, as a memory map: nothing is read into memory. Valid until the next `clear`."""
        if not self.size:
            return memoryview(b"")
        with translate_errors():
            return memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ))

    def pieces(self) -> Iterator[bytes]:
        """All bytes, in pieces."""
        for start in range(0, self.size, PIECE):
            with translate_errors():
                yield os.pread(self._file.fileno(), min(PIECE, self.size - start), start)

    def clear(self) -> None:
        """Delete all bytes."""
        with translate_errors():
            os.ftruncate(self._file.fileno(), 0)
        self.size = 0

    def close(self) -> None:
        """Delete the file. Idempotent."""
        self._file.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the protocol's errors for the system's."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InsufficientStorage(
                "the folder that buffers parts for S3 is full: set `spool` in the storage URL to another one"
            ) from error
        raise Unavailable(f"the folder that buffers parts for S3 cannot be used: {error}") from error
