"""Finds programs that `make tools` installs, or skips the test."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def tools_folder() -> Path:
    """The folder of the programs that tools/install.sh builds or downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("STOWAGE_TOOLS") or Path(cache) / "stowage-tools") / "bin"


def require_tool(name: str) -> Path:
    """A program's path. If it is missing, the test is skipped, or fails if skips are forbidden."""
    # Servers such as dockerd are in sbin, which is not in every user's PATH.
    places = [str(tools_folder()), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(name)
    return Path(found)


def missing(what: str) -> NoReturn:
    """Skip the test because `what` is missing; with CI_FORBID_SKIPS set, fail it."""
    reason = f"needs {what}: run make tools"
    if os.environ.get("CI_FORBID_SKIPS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
