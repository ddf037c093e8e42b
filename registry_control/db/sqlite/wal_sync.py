"""Making commits durable after the turn at writing has been given on.

SQLite would wait for the disk while it holds its write lock, and everybody else with it. So transactions
are committed without waiting (`synchronous=NORMAL`), the turn is given on, and only then does whoever
committed wait for the log: many at the same time, whose waiting the kernel makes one. Frames of the log are
in the order of commits, so what is durable never lacks what came before it.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from registry_data.storage.disk import sync_folder


class _File:
    """The log as it was found: another one takes its name when all connections have been closed meanwhile.

    The kernel tells of what it could not write once to each who had the file open then. So each thread has it
    open for itself, and keeps it open.
    """

    def __init__(self, path: Path) -> None:
        # SQLite takes no locks on this file, which to close it would give away.
        self._descriptor: Final = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self._identity: Final = (found.st_dev, found.st_ino)

    def is_at(self, path: Path) -> bool:
        """Whether it is this log that has the name now."""
        found = path.stat()
        return self._identity == (found.st_dev, found.st_ino)

    def sync(self) -> None:
        """Wait until all of it is on the disk.

        Raises:
            OSError: something was not written since this was opened, of which it was not told before.
        """
        os.fdatasync(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)


class _Own(threading.local):
    """What a thread has of its own."""

    file: _File | None = None


class WalSync:
    """The write-ahead log of one database, for all threads of this process."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-wal")
        self._lock = threading.RLock()  # of what is below
        self._own = _Own()
        self._spare: _File | None = None  # for the next thread that comes; nobody has synced it
        self._failures = 0
        self._mended = 0  # of the failures

    def sync(self, checkpoint: Callable[[], bool]) -> None:
        """Wait until everything that was committed before is on the disk.

        After an error the kernel takes what it could not write for written, so nobody may believe it again
        until `checkpoint` has brought all of the log into the database file, and synced that.

        Raises:
            OSError: it is not, and the checkpoint failed as well.
        """
        if self._is_written():
            return
        known = self._failures
        if not checkpoint():
            raise OSError("the log of the database could not be written to the disk")
        with self._lock:
            # Not those of which somebody was told meanwhile: they may be about what came after it.
            self._mended = max(self._mended, known)

    def _is_written(self) -> bool:
        """Wait for the disk; whether what the kernel says of it can be believed."""
        if self._mended != self._failures:
            return False
        own = self._own.file
        try:
            if own is not None and own.is_at(self._path):
                self._sync(own)
            else:
                self._sync_first()
        except OSError:
            return False
        return self._mended == self._failures

    def _sync_first(self) -> None:
        """Wait for the disk in a thread that comes for the first time.

        A file that it opened now would not tell of an error before, of which somebody else was told already
        and has not said so yet. So it takes one that was opened earlier, and leaves another. That one tells
        of all errors from now on; those before are told by this one, and noted when the next thread comes.
        """
        with self._lock:
            own, spare = self._spare, _File(self._path)
            if own is None or not own.is_at(self._path):  # the first thread of all
                own = _File(self._path)
                sync_folder(self._path.parent)
            self._own.file, self._spare = own, spare
            self._sync(own)

    def _sync(self, file: _File) -> None:
        try:
            file.sync()
        except OSError:
            with self._lock:
                self._failures += 1
            raise
