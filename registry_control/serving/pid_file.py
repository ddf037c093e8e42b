"""Files in which a worker process states that it is ready, for its supervisor and for probes."""

import os
from pathlib import Path

from django.conf import settings


class PidFile:
    """The process id of the process that is ready under a name; a killed process leaves an old one."""

    def __init__(self, name: str) -> None:
        self.path = Path(settings.STATE_DIR) / "run" / f"{name}.pid"

    def write(self) -> None:
        """State that this process is ready."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.write_text(str(os.getpid()), encoding="ascii")

    def refresh(self) -> None:
        """State it again: `manage.py probe worker` reads the age of the file."""
        os.utime(self.path)

    def remove(self) -> None:
        """State that no process is ready."""
        self.path.unlink(missing_ok=True)

    def names(self, pid: int) -> bool:
        """Whether the process with this id is ready."""
        try:
            return self.path.read_text(encoding="ascii") == str(pid)
        except (OSError, ValueError):
            return False
