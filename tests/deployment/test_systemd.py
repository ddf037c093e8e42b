"""The units in deploy/systemd are valid for systemd and confined."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.services.stack import ROOT
from tests.services.tools import require_tool

pytestmark = pytest.mark.clients

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units as an operator installs them, with a program where they expect one."""
    program = tmp_path / "stowage" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    folder = tmp_path / "units"
    folder.mkdir()
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        (folder / unit.name).write_text(text.replace("/opt/stowage", f"{tmp_path}/stowage"), encoding="utf-8")
    return sorted(folder.iterdir())


def test_systemd_accepts_the_units_without_a_warning(units: list[Path]) -> None:
    command = [str(require_tool("systemd-analyze")), "verify", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_rates_the_units_as_confined(units: list[Path]) -> None:
    for unit in units:
        command = [str(require_tool("systemd-analyze")), "security", "--offline=true", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert exposure, done.stdout + done.stderr
        assert float(exposure[1]) <= 2.0, unit.name  # of 10; below 2.5 systemd calls a unit safe


def test_each_role_has_a_unit() -> None:
    assert [unit.stem for unit in UNITS] == [
        "stowage-control",
        "stowage-data",
        "stowage-migrate",
        "stowage-worker",
    ]
