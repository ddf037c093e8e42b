"""Writing small private files that survive a loss of power."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read; its content is on the disk when this returns.

    The entry in its folder is not: rename the file to its final name, then `sync_folder`.

    Raises:
        FileExistsError: there is one.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
