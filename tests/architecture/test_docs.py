"""The documents say what the code does."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from registry_control.settings.environment import Environment

ROOT = Path(__file__).parents[2]


class Recorder(Mapping[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self, **values: str) -> None:
        self._values = values
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def test_the_readme_lists_exactly_the_variables_that_are_read(tmp_path: Path) -> None:
    recorder = Recorder(REGISTRY_STATE_DIR=str(tmp_path))
    Environment.load(recorder)
    read = {name.removesuffix("_FILE") for name in recorder.asked}
    table = re.findall(r"^\| `(REGISTRY_[A-Z_]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(read)


@pytest.mark.parametrize("number", range(1, 12))
def test_every_invariant_has_a_test_that_names_it(number: int) -> None:
    wanted = re.compile(rf"def test_invariant_{number}_")
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if wanted.search(path.read_text())]
    assert found, f"no test is named test_invariant_{number}_..."


def test_the_invariants_page_numbers_them_all() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "invariants.md").read_text(), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 12)]


def test_every_decision_is_in_the_list() -> None:
    pages = {path.name for path in (ROOT / "docs" / "adr").glob("0*.md")}
    listed = set(re.findall(r"\((0\d+-[a-z0-9-]+\.md)\)", (ROOT / "docs" / "adr" / "README.md").read_text()))
    assert pages == listed


def test_every_client_that_is_driven_is_on_the_clients_page() -> None:
    driving = re.compile(r"\bProgram\(|: DockerClient\b")
    tests = {
        path.name
        for path in (ROOT / "tests" / "clients").glob("test_*.py")
        if driving.search(path.read_text())
    }
    rows = re.findall(r"^\| \[\w+\]\(\S+/(\S+)\)", (ROOT / "docs" / "clients.md").read_text(), re.MULTILINE)
    of_several = {"test_versions.py", "test_refusals.py", "test_refresh_tokens.py"}
    assert set(rows) == tests - of_several


@pytest.mark.parametrize("page", sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))), ids=str)
def test_links_between_the_documents_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
