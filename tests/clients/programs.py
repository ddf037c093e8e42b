"""Runs a real program as a user would, with its own home folder."""

import os
import subprocess
from pathlib import Path

from tests.services.tools import require_tool


class Program:
    """`Program("crane", home)("ls", name)`."""

    def __init__(self, name: str, home: Path, *, folder: Path | None = None) -> None:
        """The program runs in `folder`, if that matters to it."""
        self.path = require_tool(name)
        self.folder = folder
        self.environment = {**os.environ, "HOME": str(home), "DOCKER_CONFIG": str(home / "docker")}
        (home / "docker").mkdir(parents=True, exist_ok=True)

    def __call__(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run it; a failure includes its output."""
        done = subprocess.run(
            [str(self.path), *arguments],
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}{done.stderr}"
        return done
