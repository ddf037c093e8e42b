"""Group commit for SQLite: many transactions wait for one fdatasync of the write-ahead log (ADR 26).

With `synchronous=FULL` SQLite syncs its write-ahead log (WAL) in every commit, while it holds the only write
lock. Here transactions commit with `synchronous=NORMAL`, release the write lock, and then wait for the disk:
one fdatasync covers all commits that came before it. Frames of the WAL are in commit order, so a durable
commit never lacks an earlier one.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path


class WalSync:
    """The WAL of one database, for all threads of a process."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-wal")
        self._descriptor = -1
        self._inode = (-1, -1)  # device and number of the file that is open
        self._counting = threading.Lock()  # guards _requested
        self._requested = 0  # calls of `sync` so far
        self._syncing = threading.Lock()  # held during fdatasync; guards all other attributes
        self._synced = 0  # calls of `sync` whose commits are durable
        self._has_failed = False

    def open(self) -> None:
        """Open the WAL unless it is open. Called in each transaction, after BEGIN and before its commit.

        Linux reports a write-back error once for each open file description, and only to those opened before
        the error: a descriptor opened after the commit could miss the loss of that commit. SQLite makes
        another file after the last connection was closed.
        """
        if self._inode == (found := _inode(self._path)):
            return
        with self._syncing:
            if self._inode != found:
                # SQLite locks the database and its -shm file, so closing this one releases none of its locks.
                self._close()
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                self._inode = found

    def sync(self, checkpoint: Callable[[], bool]) -> None:
        """Return when every transaction that was committed before the call is durable.

        After a failed fdatasync the kernel treats the lost pages as written, so a later success proves
        nothing. From then on each call needs `checkpoint`, which copies the WAL into the database file and
        syncs that, until one has succeeded.

        Raises:
            OSError: fdatasync failed, and so did the checkpoint.
        """
        with self._counting:
            self._requested += 1
            request = self._requested
        with self._syncing:
            if self._synced >= request:
                return  # the previous owner of the lock began its fdatasync after our commit
            covered = self._requested
            if not self._is_written() and not checkpoint():
                raise OSError("the write-ahead log could not be written to the disk")
            self._has_failed = False
            self._synced = covered

    def _is_written(self) -> bool:
        if not self._has_failed:
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                self._has_failed = True
        return not self._has_failed

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._inode = -1, (-1, -1)


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
