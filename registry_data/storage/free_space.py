"""Room that a disk keeps, so that what must still be written can be: deletions above all, which make more."""

import os
from pathlib import Path
from typing import Final

from registry_data.storage.base import Full

_SHARE: Final = 20  # of the disk: one part of so many
_AT_MOST: Final = 1024 * 1024 * 1024  # bytes


class FreeSpace:
    """The disk that a folder is on, and how much of it stays free."""

    def __init__(self, folder: Path, reserve: int | None) -> None:
        """`reserve` is in bytes; None is a twentieth of the disk, and a GiB at most."""
        self.folder: Final = folder
        self._reserve = reserve

    def require(self, size: int) -> None:
        """See that so many bytes fit beside the reserve.

        Raises:
            Full: they do not.
            OSError: nobody knows.
        """
        disk = os.statvfs(self.folder)
        reserve = self._reserve
        if reserve is None:
            reserve = min(disk.f_blocks * disk.f_frsize // _SHARE, _AT_MOST)
        free = disk.f_bavail * disk.f_frsize
        if free - size < reserve:
            raise Full(f"{free} bytes are free where {self.folder} is, and {reserve} of them stay so")
