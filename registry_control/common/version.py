"""The version of Stowage."""

import tomllib
from functools import cache
from importlib import metadata

from registry_control.settings.environment import PROJECT_ROOT


@cache
def version() -> str:
    """Read the version from `pyproject.toml`, or else from the metadata of the installed package."""
    try:
        project = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    except FileNotFoundError:
        return metadata.version("stowage")
    return str(tomllib.loads(project)["project"]["version"])
