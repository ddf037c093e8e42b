"""How a server's process deals with memory that is freed, and with what never is."""

import ctypes
import gc
from typing import Final

# <malloc.h> of glibc; other libraries have no `mallopt`.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 8 * 1024 * 1024  # bytes that each of its arenas may keep
_MAPPED: Final = 4 * 1024 * 1024  # bytes from which a block is mapped alone and given back when it is freed


def keep_freed_memory() -> None:
    """Keep some freed memory for what comes next, in this process and those that it forks (decision 31).

    Left alone, the library gives the pages of nearly every piece of a body back to the kernel, and takes
    them for the next one, cleared anew, at a third of what it costs to read it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED)


def set_aside_what_stays() -> None:
    """Have the cycle collector pass over all that there is now: modules, models, settings, the application.

    They are some hundred thousand objects, which it would look through each time a request leaves enough of
    its own; and of which forked processes share the pages that nobody writes to.
    """
    gc.collect()
    gc.freeze()
