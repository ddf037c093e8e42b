"""Ends a process when its parent ends, also when the parent is killed.

Without this, killing `up` would leave servers that hold their ports and answer with old code.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>
_INTERVAL: Final = 0.5  # seconds


def end_with_parent(parent: int | None = None) -> None:
    """Kill this process as soon as its parent has ended. SIGKILL, because a crash must be safe anyway.

    Args:
        parent: the process id of the parent; by default the process that `multiprocessing` forked this one
            from. A process that has neither was started by something else, and is left as it is.
    """
    if parent is None:
        creator = multiprocessing.parent_process()
        if creator is None or creator.pid is None:
            return
        parent = creator.pid
    if not kernel_ends_with_parent():
        threading.Thread(target=end_when_orphaned, args=(parent,), name="parent-death", daemon=True).start()
    if os.getppid() != parent:  # It ended before the kernel was told to signal its end.
        os.kill(os.getpid(), signal.SIGKILL)


def kernel_ends_with_parent() -> bool:
    """Have the kernel kill this process when its parent thread ends; False if it cannot (not Linux)."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def end_when_orphaned(parent: int) -> None:
    """The same for other kernels, by polling."""
    while os.getppid() == parent:
        time.sleep(_INTERVAL)
    os.kill(os.getpid(), signal.SIGKILL)
