"""Programs that the tests drive but do not bring: found, or a reason not to run."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def tools_folder() -> Path:
    """Where tools/install.sh puts the programs that are no Debian packages."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("STOWAGE_TOOLS") or Path(cache) / "stowage-tools") / "bin"


def require_tool(name: str) -> Path:
    """The program's path. Without it the test is skipped, or fails where skips are forbidden."""
    # Servers such as dockerd are in sbin, which is not on every user's path.
    places = [str(tools_folder()), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(name)
    return Path(found)


def missing(what: str) -> NoReturn:
    """Skip the test for want of `what`; with CI_FORBID_SKIPS set, fail it."""
    reason = f"needs {what}: run make tools"
    if os.environ.get("CI_FORBID_SKIPS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
