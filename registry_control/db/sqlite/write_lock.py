"""Fair lock for writing to one SQLite file (ADR 18).

SQLite allows one writer at a time. A writer that finds the database locked sleeps for up to 100 ms and
retries, in no order: with many threads writing short transactions, most of the time is spent asleep and some
threads starve. So a transaction first acquires this lock: threads of a process queue at a lock in memory,
processes at a lock on a file beside the database, which the kernel releases when its process dies. Because
other processes can only poll the file lock, a process passes it to a few of its own waiting threads before it
releases it.
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

_POLL_INTERVAL: Final = 0.00025  # seconds
_MAX_HANDOVERS: Final = 8  # transactions of one process for one acquisition of the file lock


class _ProcessLock:
    """What the threads of this process share about one database."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held by the thread that writes
        self.guard = threading.Lock()  # of the attributes below
        self.waiting = 0  # threads
        self.handovers = 0  # since the file lock was acquired
        self.descriptor = -1  # of the lock file; its lock is held as long as it is open


_process_locks: Final[defaultdict[Path, _ProcessLock]] = defaultdict(_ProcessLock)


class WriteLock:
    """The write lock as one connection uses it. Not reentrant; releasing it twice has no effect."""

    def __init__(self, database: Path) -> None:
        self._process = _process_locks[database]
        self._lock_file = database.with_name(database.name + "-write-lock")
        self._queue_file = database.with_name(database.name + "-write-queue")
        self._is_acquired = False

    def acquire(self, *, timeout: float) -> bool:
        """Wait for the lock for at most `timeout` seconds. Returns whether it was acquired.

        Raises:
            OSError: the lock file cannot be opened.
        """
        deadline = time.monotonic() + timeout
        self._is_acquired = self._acquire_in_process(timeout)
        if not self._is_acquired:
            return False
        if self._process.descriptor >= 0:  # handed over by another thread
            return True
        try:
            acquired = self._acquire_file(deadline)
        except BaseException:
            self.release()
            raise
        if not acquired:
            self.release()
        return acquired

    def _acquire_in_process(self, timeout: float) -> bool:
        process = self._process
        if process.lock.acquire(blocking=False):
            return True
        with process.guard:
            process.waiting += 1
        acquired = process.lock.acquire(timeout=timeout)
        with process.guard:
            process.waiting -= 1
            # A thread that released the lock after our timeout saw us waiting and may have left the file lock
            # to us: then we must acquire, or no thread would release the file lock.
            return acquired or process.lock.acquire(blocking=False)

    def _acquire_file(self, deadline: float) -> bool:
        """Acquire the queue's lock, then the file lock.

        One process polls the file lock at a time, so the process that has just released it cannot overtake.
        """
        with _locked(self._queue_file, deadline) as queue:
            if queue < 0:
                return False
            descriptor = _lock(self._lock_file, deadline)
        self._process.descriptor = descriptor
        return descriptor >= 0

    def release(self) -> None:
        """Release the lock: to a waiting thread of this process, or to all processes."""
        if not self._is_acquired:
            return
        self._is_acquired, process = False, self._process
        with process.guard:
            if process.descriptor >= 0 and process.waiting and process.handovers < _MAX_HANDOVERS:
                process.handovers += 1
            elif process.descriptor >= 0:
                os.close(process.descriptor)
                process.descriptor, process.handovers = -1, 0
            process.lock.release()


@contextmanager
def _locked(file: Path, deadline: float) -> Iterator[int]:
    descriptor = _lock(file, deadline)
    try:
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(file: Path, deadline: float) -> int:
    """Lock a file until the returned descriptor is closed; -1 if the deadline passed first."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            os.close(descriptor)
            return -1
        time.sleep(_POLL_INTERVAL)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
