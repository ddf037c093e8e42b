"""Writes docs/oci-coverage.md: which tests cover which item of the OCI checklist (make oci-coverage).

Reads the markers `@pytest.mark.oci(36, 46)` from the source of the tests, without importing them.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.oci_checklist import BEHAVIOURS, REASONS, SECTIONS

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "oci-coverage.md"

_HEAD: Final = """# The OCI protocol, item by item

Written by `make oci-coverage` from [the checklist](../tests/oci_checklist.py) and the `oci` markers of the
tests. A test fails when it is old, or when an item has neither a test nor a reason.
"""


class BadMarker(Exception):
    """A marker whose arguments are no numbers of the checklist. The message has its location."""


@dataclass(frozen=True, slots=True, order=True)
class Proof:
    """A test that covers an item: its file, relative to the repository, and its function."""

    path: str
    test: str


def proofs(root: Path = ROOT) -> dict[int, list[Proof]]:
    """Every number named by a marker, with its tests in order.

    Raises:
        BadMarker: a marker's arguments are no numbers of the checklist.
    """
    found: dict[int, list[Proof]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for test, number in _marked(path):
            found.setdefault(number, []).append(Proof(str(path.relative_to(root)), test))
    return found


def _marked(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                if ast.unparse(decorator).startswith("pytest.mark.oci"):
                    yield from ((node.name, number) for number in _numbers(decorator, path, node.name))


def _numbers(decorator: ast.expr, path: Path, test: str) -> list[int]:
    arguments = decorator.args if isinstance(decorator, ast.Call) else []
    numbers = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
    known = [number for number in numbers if isinstance(number, int) and number in BEHAVIOURS]
    if not known or len(known) != len(arguments):
        raise BadMarker(f"{path}: the oci marker of {test} must name numbers of tests/oci_checklist.py")
    return known


def troubles(found: Mapping[int, list[Proof]]) -> list[str]:
    """What is wrong with the checklist: items without any proof or reason, and items with two of them."""
    unproved = [
        f"item {number} has neither a test nor a reason: {behaviour}"
        for number, behaviour in BEHAVIOURS.items()
        if number not in found and number not in REASONS
    ]
    proved = [
        f"item {number} has a test: take it out of REASONS" for number in sorted(REASONS) if number in found
    ]
    return unproved + proved


def document(found: Mapping[int, list[Proof]]) -> str:
    """The text of docs/oci-coverage.md."""
    parts = [_HEAD]
    for title, numbers in SECTIONS.items():
        rows = [f"| {number} | {BEHAVIOURS[number]} | {_shown(number, found)} |" for number in numbers]
        parts.append(f"## {title}\n\n| # | behaviour | shown by |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _shown(number: int, found: Mapping[int, list[Proof]]) -> str:
    if number in found:
        return "<br>".join(_link(proof) for proof in found[number])
    return f"*{REASONS[number]}*"


def _link(proof: Proof) -> str:
    return f"[{proof.test.removeprefix('test_').replace('_', ' ')}](../{proof.path})"


def main() -> int:
    """Write the document, and say what is missing."""
    found = proofs()
    DOCUMENT.write_text(document(found), encoding="utf-8")
    wrong = troubles(found)
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
