"""Settings of the memory allocator and of the garbage collector for server and worker processes."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# <malloc.h> of glibc; other libraries have no `mallopt`.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = 8 * 1024 * 1024  # bytes of free memory that each arena keeps
_RARELY: Final = 100_000  # new objects between two collections; Python's default is 700
_MMAP_THRESHOLD: Final = 4 * 1024 * 1024  # bytes; a larger block is mapped alone and unmapped when freed


def keep_freed_memory() -> None:
    """Let the allocator keep some freed memory, in this process and those that it forks (ADR 31).

    By default glibc returns the pages of nearly every chunk of a body to the kernel and gets zeroed pages for
    the next one, which costs a third of what reading the chunk costs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector run less often in work that creates many objects which stay.

    Imports and migrations create hundreds of thousands of objects. The usual thresholds make the collector
    visit them again and again, which takes a fifth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(_RARELY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def freeze_objects() -> None:
    """Exclude all existing objects (modules, models, settings, the application) from garbage collections.

    There are hundreds of thousands, which each full collection would visit. In addition, forked processes
    share the memory pages of these objects as long as the collector does not write to them.
    """
    gc.collect()
    gc.freeze()
