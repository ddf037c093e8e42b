"""Taking turns at writing to one SQLite file.

SQLite has one writer at a time, and lets the others sleep: longer and longer, up to a tenth of a second, in
no order. Where many threads write short transactions, they sleep most of the time, and some starve.
So ours wait for each other instead: threads of a process at a lock of that process, processes at a lock on
a file beside the database, which the kernel takes back when a process dies.
"""

import fcntl
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

_LOOK_AGAIN: Final = 0.0001  # seconds
_locks: Final[defaultdict[Path, threading.Lock]] = defaultdict(threading.Lock)


class Turn:
    """One connection's turn at writing. Whoever takes it gives it back, again is no harm."""

    def __init__(self, database: Path) -> None:
        self._lock = _locks[database]
        self._file = database.with_name(database.name + "-turn")
        self._descriptor = -1
        self._taken = False

    def take(self, *, timeout: float) -> bool:
        """Wait for the turn, this many seconds at most. Returns whether it came."""
        deadline = time.monotonic() + timeout
        self._taken = self._lock.acquire(timeout=timeout)
        if not self._taken:
            return False
        try:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while not self._locked():
                if time.monotonic() > deadline:
                    self.give()
                    return False
                time.sleep(_LOOK_AGAIN)
        except BaseException:
            self.give()
            raise
        return True

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def give(self) -> None:
        """Let the next one write."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._taken:
            self._taken = False
            self._lock.release()
