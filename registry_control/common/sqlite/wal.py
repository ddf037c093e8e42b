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
    """The log as it was found: another one takes its name when all connections have been closed meanwhile."""

    def __init__(self, path: Path) -> None:
        # Kept open, since the kernel tells of what it could not write only who had the file open then. SQLite
        # takes no locks on this file, which to close it would give away.
        self.descriptor: Final = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self.descriptor)
        self.identity: Final = (found.st_dev, found.st_ino)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Log:
    """The write-ahead log of one database, for all threads of this process."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-wal")
        self._lock = threading.Lock()
        self._file: _File | None = None
        self._is_sound = True

    def sync(self, checkpoint: Callable[[], bool]) -> None:
        """Wait until everything that was committed before is on the disk.

        After an error the kernel takes what it could not write for written, so nobody may believe it again
        until `checkpoint` has brought all of the log into the database file, and synced that.

        Raises:
            OSError: it is not, and the checkpoint failed as well.
        """
        if self._is_sound:
            try:
                # Held by a name: forgotten while the disk is waited for, it would close its descriptor.
                log = self._current()
                os.fdatasync(log.descriptor)
            except OSError:
                self._is_sound = False
            else:
                return
        if not checkpoint():
            raise OSError("the log of the database could not be written to the disk")
        self._is_sound = True

    def _current(self) -> _File:
        file, found = self._file, self._path.stat()
        if file is not None and file.identity == (found.st_dev, found.st_ino):
            return file
        with self._lock:
            return self._opened()

    def _opened(self) -> _File:
        """The log that has its name now; by the thread that came first, for those that waited."""
        found = self._path.stat()
        if self._file is None or self._file.identity != (found.st_dev, found.st_ino):
            file = _File(self._path)
            sync_folder(self._path.parent)
            self._file = file
        return self._file
