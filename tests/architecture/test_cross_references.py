"""References in code lead to the right target: "ADR 16", "OCI 77" and "invariant 4" (CONTRIBUTING.md)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.oci_checklist import BEHAVIOURS, SECTIONS

ROOT: Final = Path(__file__).parents[2]
PRODUCT: Final = ("registry_control", "registry_data")
CODE: Final = (*PRODUCT, "tests", "bench", "tools")

# The sections of the checklist that each part of the product implements; the longest prefix counts.
SECTIONS_OF: Final = {
    "registry_control/access/": {"Authentication and tokens"},
    "registry_control/catalog/": {
        "Deletion",
        "Pushing manifests",
        "Referrers",
        "Tags and the catalog",
        "Uploads in one request",
        "Uploads in pieces",
        "Starting an upload",
        "At the same time, again, and after a crash",
    },
    "registry_control/db/": {"Tags and the catalog"},
    "registry_control/settings/": {"Uploads in pieces"},
    "registry_data/http/": {"HTTP and routing", "Errors"},
    "registry_data/http/authentication.py": {"HTTP and routing", "Authentication and tokens"},
    "registry_data/http/conditions.py": {"Pulling manifests", "Pulling blobs", "Pushing manifests"},
    "registry_data/http/path_parameters.py": {"Names, tags, digests"},
    "registry_data/http/endpoints/blobs.py": {"Pulling blobs", "Deletion"},
    "registry_data/http/endpoints/extensions.py": {"Mirrors and extensions"},
    "registry_data/http/endpoints/lists.py": {"Tags and the catalog", "Referrers"},
    "registry_data/http/endpoints/manifests.py": {
        "Pulling manifests",
        "Pushing manifests",
        "Deletion",
        "HTTP and routing",
    },
    "registry_data/http/endpoints/service.py": {"The ping", "Authentication and tokens"},
    "registry_data/http/endpoints/uploads.py": {
        "Starting an upload",
        "Uploads in one request",
        "Uploads in pieces",
        "Mounts",
        "At the same time, again, and after a crash",
    },
    "registry_data/oci/": {
        "Names, tags, digests",
        "Pulling blobs",
        "Uploads in pieces",
        "Pushing manifests",
        "Tags and the catalog",
        "Referrers",
        "Errors",
    },
    "registry_data/oci/basic_auth.py": {"Authentication and tokens"},
    "registry_data/oci/scopes.py": {"Authentication and tokens"},
    "registry_data/registry/authorization.py": {"Authentication and tokens", "Starting an upload"},
    "registry_data/registry/blobs.py": {"Pulling blobs", "Deletion"},
    "registry_data/registry/lists.py": {"Tags and the catalog", "Referrers"},
    "registry_data/registry/manifests.py": {
        "Pulling manifests",
        "Pushing manifests",
        "Deletion",
        "At the same time, again, and after a crash",
    },
    "registry_data/registry/mounts.py": {"Mounts"},
    "registry_data/registry/service.py": {"The ping"},
    "registry_data/registry/upload": {
        "Starting an upload",
        "Uploads in one request",
        "Uploads in pieces",
        "Authentication and tokens",
        "At the same time, again, and after a crash",
    },
    "registry_data/registry/use_case.py": {"Errors"},
}

_OTHER_FORMS: Final = re.compile(r"\b(decisions?|checklist) \d|\badr ?\d|docs/adr/\d|\bADR-\d|\bADRs? 0\d")


def _files(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__) and "migrations" not in path.parts:
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def _numbers(kind: str, text: str) -> Iterator[int]:
    """All numbers of references such as `ADR 16`, `OCI 42-45` and `invariants 4 and 7`."""
    for listed in re.findall(rf"\b{kind}s? (\d+(?:(?:-|, | and )\d+)*)", text):
        for first, _, last in (part.partition("-") for part in re.findall(r"\d+(?:-\d+)?", listed)):
            yield from range(int(first), int(last or first) + 1)


def _decisions() -> dict[int, list[str]]:
    """The number of each decision, with the files and folders that it governs."""
    found = {}
    for page in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        title, text = page.read_text(encoding="utf-8").split("\n", 1)
        number = int(page.name[:4])
        assert title.startswith(f"# ADR {number}: "), page.name
        (code,) = re.findall(r"^\*\*Code\.\*\* (.+)$", text, re.MULTILINE) or [""]
        found[number] = re.findall(r"`([^`]+)`", code)
    return found


DECISIONS: Final = _decisions()


@pytest.mark.parametrize("number", DECISIONS)
def test_a_decision_names_code_that_exists(number: int) -> None:
    paths = DECISIONS[number]
    assert paths, f"ADR {number} has no line **Code.** with the files that it governs"
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_references_to_decisions_are_in_code_that_they_govern() -> None:
    wrong = [
        f"{path}: ADR {number}"
        for path, text in _files(*CODE)
        for number in _numbers("ADR", text)
        if number not in DECISIONS
        or (path.startswith(PRODUCT) and not any(path.startswith(code) for code in DECISIONS[number]))
    ]
    assert wrong == []


def test_references_to_the_checklist_are_in_code_that_implements_the_section() -> None:
    wrong = [
        f"{path}: OCI {number}"
        for path, text in _files(*CODE)
        for number in _numbers("OCI", text)
        if number not in BEHAVIOURS or (path.startswith(PRODUCT) and not _implements(path, number))
    ]
    assert wrong == []


def _implements(path: str, number: int) -> bool:
    prefixes = [prefix for prefix in SECTIONS_OF if path.startswith(prefix)]
    sections = SECTIONS_OF[max(prefixes, key=len)] if prefixes else set()
    return any(number in SECTIONS[section] for section in sections)


def test_references_to_invariants_have_a_target() -> None:
    page = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
    known = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    wrong = [
        f"{path}: invariant {number}"
        for path, text in _files(*CODE)
        for number in _numbers("invariant", text)
        if number not in known
    ]
    assert wrong == []


def test_references_have_one_form() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "pyproject.toml"]
    texts = [*_files(*CODE), *((str(page.relative_to(ROOT)), page.read_text("utf-8")) for page in pages)]
    wrong = [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts
        for number, line in enumerate(text.splitlines(), 1)
        if _OTHER_FORMS.search(line)
    ]
    assert wrong == []
