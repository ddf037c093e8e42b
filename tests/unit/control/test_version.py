import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from registry_control.common.version import version

ROOT = Path(__file__).parents[3]


def test_the_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert version() == project["project"]["version"]


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_manage_py_prints_the_version_of_stowage(argument: str) -> None:
    command = [sys.executable, str(ROOT / "manage.py"), argument]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout
    assert printed == f"{version()}\n"
