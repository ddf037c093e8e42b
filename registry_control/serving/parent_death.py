"""Processes that end with the process that started them, also when that one is killed.

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
    """End this process as soon as its parent has ended, without asking it: a crash must be safe anyway.

    Args:
        parent: the process id of the parent; without it, the process that `multiprocessing` forked this
            one from. A process that has neither was started by somebody else, and stays as it is.
    """
    if parent is None:
        creator = multiprocessing.parent_process()
        if creator is None or creator.pid is None:
            return
        parent = creator.pid
    if not kernel_ends_with_parent():
        threading.Thread(target=end_when_orphaned, args=(parent,), name="lifeline", daemon=True).start()
    if os.getppid() != parent:  # It ended before the kernel was asked to tell us.
        os.kill(os.getpid(), signal.SIGKILL)


def kernel_ends_with_parent() -> bool:
    """Ask the kernel to kill this process when the thread that started it ends; whether it can (Linux)."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def end_when_orphaned(parent: int) -> None:
    """The same for kernels that cannot: look for the parent again and again."""
    while os.getppid() == parent:
        time.sleep(_INTERVAL)
    os.kill(os.getpid(), signal.SIGKILL)
