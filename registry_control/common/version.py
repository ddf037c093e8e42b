"""The version of Stowage."""

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

_PROJECT_FILE: Final = Path(__file__).parents[2] / "pyproject.toml"


@cache
def version() -> str:
    """Read the version from `pyproject.toml`, or else from the metadata of the installed package."""
    try:
        project = _PROJECT_FILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        return metadata.version("stowage")
    return str(tomllib.loads(project)["project"]["version"])
