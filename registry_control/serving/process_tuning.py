"""Settings of the memory allocator and of the garbage collector for processes that serve."""

import ctypes
import gc
from typing import Final

# <malloc.h> of glibc; other libraries have no `mallopt`.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = 8 * 1024 * 1024  # bytes of free memory that each arena keeps
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


def set_aside_what_stays() -> None:
    """Exclude all present objects (modules, models, settings, the application) from cycle collections.

    They are some hundred thousand objects that a collection would visit each time. Besides, forked processes
    share the pages of objects that no collection writes to.
    """
    gc.collect()
    gc.freeze()
