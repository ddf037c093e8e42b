"""The documents agree with the code."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from registry_control.settings.environment import Environment

ROOT = Path(__file__).parents[2]


class Recorder(Mapping[str, str]):
    """An empty environment that records which variables are read."""

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


def invariants() -> dict[int, list[str]]:
    """The number of each invariant, and the modules that implement it."""
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (ROOT / "docs" / "invariants.md").read_text(), re.MULTILINE)
    return {int(number): re.findall(r"`([a-z0-9_/]+(?:\.py|/))`", where) for number, where in rows}


@pytest.mark.parametrize("number", range(1, 12))
def test_every_invariant_has_a_test_with_an_assertion(number: int) -> None:
    """The test is named after it, is never skipped, and has an assertion of its own."""
    found = [test for test in _tests_of_invariants() if test.name.startswith(f"test_invariant_{number}_")]
    assert found, f"no test is named test_invariant_{number}_..."
    for test in found:
        assert not any("skip" in ast.unparse(decorator) for decorator in test.decorator_list), test.name
        assert any(map(_checks, ast.walk(test))), f"{test.name} asserts nothing"


@cache
def _tests_of_invariants() -> list[ast.FunctionDef]:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    return [
        node
        for text in texts
        if "def test_invariant_" in text
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_invariant_")
    ]


def _checks(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (
        isinstance(node, ast.With) and "raises" in ast.unparse(node.items[0])
    )


def test_the_invariants_page_numbers_them_all_and_names_modules_that_exist() -> None:
    found = invariants()
    assert list(found) == list(range(1, 12))
    for number, paths in found.items():
        assert paths, f"invariant {number} does not say where it is kept"
        missing = [
            p for p in paths if not any((root / p).exists() for root in (ROOT, ROOT / "registry_control"))
        ]
        assert missing == [], f"invariant {number}"


def test_every_decision_is_in_the_list() -> None:
    pages = {path.name for path in (ROOT / "docs" / "adr").glob("0*.md")}
    listed = set(re.findall(r"\((0\d+-[a-z0-9-]+\.md)\)", (ROOT / "docs" / "adr" / "README.md").read_text()))
    assert pages == listed


def test_every_tested_client_is_on_the_clients_page() -> None:
    driving = re.compile(r"\bProgram\(|: DockerClient\b")
    tests = {
        path.name
        for path in (ROOT / "tests" / "clients").glob("test_*.py")
        if driving.search(path.read_text())
    }
    rows = re.findall(r"^\| \[\w+\]\(\S+/(\S+)\)", (ROOT / "docs" / "clients.md").read_text(), re.MULTILINE)
    of_several = {
        "test_replication.py",
        "test_versions.py",
        "test_error_messages.py",
        "test_refresh_tokens.py",
        "test_tls_proxy.py",
    }
    assert set(rows) == tests - of_several


@pytest.mark.parametrize("page", sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))), ids=str)
def test_links_between_the_documents_have_a_target(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
