"""docs/clients.md names the versions that were tested."""

import re
from pathlib import Path

import pytest

from tests.clients.programs import Program

pytestmark = pytest.mark.clients

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
ASK = {name: ["version"] for name in ("cosign", "crane", "notation", "oras", "regctl")}
ASK["helm"] = ["version", "--short"]
# Others come from Debian or print their version like these.
USUAL = ["--version"]


@pytest.mark.parametrize(
    "row", re.findall(r"^\| \[(\w+)\]\(\S+\) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
)
def test_the_page_names_the_version_that_is_installed(row: tuple[str, str], tmp_path: Path) -> None:
    name, versions = row
    said = Program(name, tmp_path)(*ASK.get(name, USUAL)).stdout
    number = re.search(r"\d+\.\d+(\.\d+)?", said.replace("containerd/v2", ""))
    assert number, said
    assert number[0] in versions
