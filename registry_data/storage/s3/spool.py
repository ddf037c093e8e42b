"""Bytes of an upload that fill no part yet, in a local file."""

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from registry_data.storage.base import PIECE, Full, Unavailable
from registry_data.storage.free_space import FreeSpace

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool:
    """A file without a name: it goes with the process, and never needs to outlive it."""

    def __init__(self, room: FreeSpace) -> None:
        self._room = room
        with translated():
            self._file = tempfile.TemporaryFile(dir=room.folder, buffering=0)  # noqa: SIM115 - `close` closes it
        self.size = 0

    def append(self, piece: memoryview) -> None:
        """Take all of it or nothing."""
        with translated():
            self._room.require(len(piece))
            try:
                done = 0
                while done < len(piece):
                    done += os.pwrite(self._file.fileno(), piece[done:], self.size + done)
            except OSError:
                os.ftruncate(self._file.fileno(), self.size)
                raise
        self.size += len(piece)

    def view(self) -> memoryview:
        """All bytes, not read into memory but mapped to it; until the next `clear`."""
        if not self.size:
            return memoryview(b"")
        with translated():
            return memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ))

    def pieces(self) -> Iterator[bytes]:
        """All bytes, in pieces."""
        for start in range(0, self.size, PIECE):
            with translated():
                yield os.pread(self._file.fileno(), min(PIECE, self.size - start), start)

    def clear(self) -> None:
        """Forget all bytes."""
        with translated():
            os.ftruncate(self._file.fileno(), 0)
        self.size = 0

    def close(self) -> None:
        """Remove the file; again is no harm."""
        self._file.close()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the system's errors into the protocol's."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise Full("no room for parts on their way to S3: see `spool` in the storage URL") from error
        raise Unavailable(f"the folder for parts on their way to S3 cannot be used: {error}") from error
