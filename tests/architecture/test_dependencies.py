"""What import-linter cannot express: the product contains no test code, and the lock files name no host."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted((*(ROOT / "registry_control").rglob("*.py"), *(ROOT / "registry_data").rglob("*.py")))
READS_THE_ENVIRONMENT = "registry_control/settings/__init__.py"


def test_the_product_contains_no_test_code() -> None:
    test_code = re.compile(r"pytest|PYTEST|unittest|\bmock\b|import tests|from tests")
    assert [str(path.relative_to(ROOT)) for path in PRODUCT if test_code.search(path.read_text())] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_lock_files_pin_hashes_and_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    packages = re.findall(r"^[a-z0-9][^\s]*==\S+", text, re.MULTILINE)
    assert packages
    assert text.count("--hash=sha256:") >= len(packages)


def test_only_one_module_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT)) for path in PRODUCT if any(environment_reads(ast.parse(path.read_text())))
    ]
    assert readers == [READS_THE_ENVIRONMENT]


@pytest.mark.parametrize(
    "source",
    [
        "import os\nx = os.environ['A']",
        "import os\nx = os.environ.get('A')",
        "import os\nx = os.getenv('A')",
        "import os\nx = dict(os.environ)",
        "import os\nx = 'A' in os.environb",
        "import os\nx = os.environ.setdefault('A', 'b')",
        "from os import environ",
        "from os import getenv as read",
    ],
)
def test_every_form_of_reading_the_environment_is_detected(source: str) -> None:
    assert any(environment_reads(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["import os\nos.environ['A'] = 'b'", "import os\nos.environ.setdefault('A', 'b')"]
)
def test_setting_a_variable_for_a_library_is_not_a_read(source: str) -> None:
    assert not any(environment_reads(ast.parse(source)))


def environment_reads(module: ast.Module) -> Iterator[ast.AST]:
    """The places that read a variable. Assignments, and `setdefault` whose result is unused, are writes."""
    writes = {id(target) for statement in ast.walk(module) for target in _written(statement)}
    for node in ast.walk(module):
        match node:
            case ast.Attribute(ast.Name("os"), "environ" | "environb" | "getenv" | "getenvb"):
                if id(node) not in writes:
                    yield node
            case ast.ImportFrom("os", names):
                if any(name.name in ("environ", "environb", "getenv", "getenvb") for name in names):
                    yield node


def _written(statement: ast.AST) -> Iterator[ast.expr]:
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(environment, "setdefault"))):
            yield environment
        case ast.Assign(targets):
            yield from (target.value for target in targets if isinstance(target, ast.Subscript))
