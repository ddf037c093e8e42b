"""What the kernel is asked to do about bytes that it holds for the disk."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: begin, wait for nothing


def begin_writing(descriptor: int, start: int, stop: int) -> None:
    """Have the bytes from `start` up to `stop` begin their way to the disk (sync_file_range(2)).

    A hint that makes nothing durable. What goes wrong is for a sync to say: the kernel keeps an error of
    writing until somebody who syncs was told of it.
    """
    _libc.sync_file_range(
        descriptor, ctypes.c_int64(start), ctypes.c_int64(stop - start), _SYNC_FILE_RANGE_WRITE
    )


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk.

    Raises:
        OSError: they are not.
    """
    with opened(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder, to sync it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
