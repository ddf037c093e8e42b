"""Taking turns at writing to one SQLite file.

SQLite has one writer at a time, and lets the others sleep: longer and longer, up to a tenth of a second, in
no order. Where many threads write short transactions, they sleep most of the time, and some starve.
So ours wait for each other instead: threads of a process at a lock of that process, processes at a lock on
a file beside the database, which the kernel takes back when a process dies. A process keeps the file's lock
for a few of its threads that wait already, since others see only by looking again and again that it is free.
"""

import fcntl
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOK_AGAIN: Final = 0.00025  # seconds
_IN_A_ROW: Final = 8  # turns of one process


class _Process:
    """This process among those that write to one database."""

    def __init__(self) -> None:
        self.turn = threading.Lock()  # among the threads
        self.counts = threading.Lock()  # of what is below
        self.waiting = 0  # threads
        self.in_a_row = 0
        self.descriptor = -1  # of the file, whose lock is held as long as it is open


_processes: Final[defaultdict[Path, _Process]] = defaultdict(_Process)


class WriteLock:
    """One connection's turn at writing. Whoever takes it gives it back, again is no harm."""

    def __init__(self, database: Path) -> None:
        self._process = _processes[database]
        self._file = database.with_name(database.name + "-turn")
        self._next = database.with_name(database.name + "-next")
        self._taken = False

    def take(self, *, timeout: float) -> bool:
        """Wait for the turn, this many seconds at most. Returns whether it came."""
        deadline = time.monotonic() + timeout
        self._taken = self._among_threads(timeout)
        if not self._taken:
            return False
        if self._process.descriptor >= 0:  # handed on by another thread
            return True
        try:
            came = self._among_processes(deadline)
        except BaseException:
            self.give()
            raise
        if not came:
            self.give()
        return came

    def _among_threads(self, timeout: float) -> bool:
        process = self._process
        if process.turn.acquire(blocking=False):
            return True
        with process.counts:
            process.waiting += 1
        came = process.turn.acquire(timeout=timeout)
        with process.counts:
            process.waiting -= 1
            # Whoever gave it meanwhile counted on us, and may have kept the file for us.
            return came or process.turn.acquire(blocking=False)

    def _among_processes(self, deadline: float) -> bool:
        """Wait to be the next one, then for the turn: so none is passed over by one that was just here."""
        with _locked(self._next, deadline) as following:
            if following < 0:
                return False
            descriptor = _lock(self._file, deadline)
        self._process.descriptor = descriptor
        return descriptor >= 0

    def give(self) -> None:
        """Let the next one write."""
        if not self._taken:
            return
        self._taken, process = False, self._process
        with process.counts:
            if process.descriptor >= 0 and process.waiting and process.in_a_row < _IN_A_ROW:
                process.in_a_row += 1
            elif process.descriptor >= 0:
                os.close(process.descriptor)
                process.descriptor, process.in_a_row = -1, 0
            process.turn.release()


@contextmanager
def _locked(file: Path, deadline: float) -> Iterator[int]:
    descriptor = _lock(file, deadline)
    try:
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(file: Path, deadline: float) -> int:
    """Wait for a file's lock, which is held as long as the descriptor is open; -1 when it did not come."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while not _is_locked(descriptor):
        if time.monotonic() > deadline:
            os.close(descriptor)
            return -1
        time.sleep(_LOOK_AGAIN)
    return descriptor


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
