"""Keeps a reserve of free disk space, so that deletions and the database can still write on a full disk."""

import os
import tempfile
from pathlib import Path
from typing import Final

from registry_data.storage.base import InsufficientStorage

_DEFAULT_DIVISOR: Final = 20  # the default reserve is this part of the disk,
_DEFAULT_MAXIMUM: Final = 1024 * 1024 * 1024  # and at most so many bytes


class FreeSpace:
    """Free space of the disk that a folder is on."""

    def __init__(self, folder: Path | None, reserve: int | None) -> None:
        """`reserve` is in bytes; None means a twentieth of the disk, at most 1 GiB.

        `folder` None means the system's folder for temporary files.
        """
        self._folder = folder
        self._reserve = reserve

    @property
    def folder(self) -> Path:
        """The folder.

        Raises:
            OSError: there is no writable folder for temporary files.
        """
        return self._folder or Path(tempfile.gettempdir())

    def ensure(self, size: int) -> None:
        """Check that `size` bytes fit without using the reserve.

        Raises:
            InsufficientStorage: they do not.
            OSError: the folder cannot be inspected.
        """
        disk = os.statvfs(self.folder)
        reserve = self._reserve
        if reserve is None:
            reserve = min(disk.f_blocks * disk.f_frsize // _DEFAULT_DIVISOR, _DEFAULT_MAXIMUM)
        free = disk.f_bavail * disk.f_frsize
        if free - size < reserve:
            raise InsufficientStorage(
                f"{size} bytes do not fit on the disk of {self.folder}: {free} bytes are free, of which"
                f" {reserve} are reserved"
            )
