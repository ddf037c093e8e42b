"""What import-linter cannot say: nothing of the product is for tests, and the lock files name no host."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted((*(ROOT / "registry_control").rglob("*.py"), *(ROOT / "registry_data").rglob("*.py")))


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_product_knows_nothing_of_its_tests(path: Path) -> None:
    assert not re.search(r"pytest|PYTEST|unittest|\bmock\b|import tests|from tests", path.read_text())


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_lock_files_pin_hashes_and_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    packages = re.findall(r"^[a-z0-9][^\s]*==\S+", text, re.MULTILINE)
    assert packages
    assert text.count("--hash=sha256:") >= len(packages)


def test_only_one_module_reads_the_environment() -> None:
    readers = [
        path for path in PRODUCT if re.search(r"os\.environ(?!\.setdefault|\[)|os\.getenv", path.read_text())
    ]
    assert [str(path.relative_to(ROOT)) for path in readers] == ["registry_control/settings/__init__.py"]
