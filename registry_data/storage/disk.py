"""System calls that write cached data to the disk."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: start write-back, do not wait


def start_writeback(descriptor: int, start: int, stop: int) -> None:
    """Start writing the bytes from `start` up to `stop` to the disk, without waiting (sync_file_range(2)).

    Only a hint: it makes nothing durable (ADR 23). Errors are ignored, because the kernel reports a failed
    write to the next fsync.
    """
    _libc.sync_file_range(
        descriptor, ctypes.c_int64(start), ctypes.c_int64(stop - start), _SYNC_FILE_RANGE_WRITE
    )


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable.

    Raises:
        OSError: they could not be written.
    """
    with open_for_sync(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def open_for_sync(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
