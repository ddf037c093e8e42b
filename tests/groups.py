"""The groups of tests that `make test` runs, computed from what each test uses.

- A test that uses no database, directly or through a fixture, is marked `database_independent`. The run on
  SQLite includes it, and the run on PostgreSQL selects `not database_independent`. So no test can be in no
  group: what is not recognised runs twice.
- `only_on("postgresql")` names the one database of a test; the other run does not select it.
- `serial` tests are in SERIAL_FOLDER, and none of them is a test with other programs: `make test` runs them.
- A test that takes more than SLOW seconds needs the marker `slow`. Time in which the machine had more work
  than processors does not count, so that a loaded machine fails no test.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

SERIAL_FOLDER: Final = Path(__file__).parent / "integration" / "data"  # SERIAL_TESTS in the Makefile
SLOW: Final = 30.0  # seconds
OVERLOADED: Final = pytest.StashKey[float]()  # the seconds of a test that do not count

_CPU_PRESSURE: Final = Path("/proc/pressure/cpu")

# pytest-django's fixtures, and the one that starts the servers, which every running product depends on.
_DATABASE_FIXTURES: Final = {
    "admin_client",
    "admin_user",
    "backing",
    "db",
    "django_db_setup",
    "django_user_model",
    "live_server",
    "transactional_db",
}


def select(items: Iterable[pytest.Item], *, database: str) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Mark the tests that use no database; return the tests of this run and those of the other database.

    Raises:
        pytest.UsageError: a test names one database and uses none, or is marked serial where none may be: no
            run would select it.
    """
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        only_on = item.get_closest_marker("only_on")
        if item.get_closest_marker("serial") and not _may_be_serial(item):
            raise pytest.UsageError(f"{item.nodeid} is marked serial: no target of the Makefile would run it")
        if not uses_database(item):
            if only_on:
                raise pytest.UsageError(f"{item.nodeid} is marked only_on, but uses no database")
            item.add_marker(pytest.mark.database_independent)
        (kept if only_on is None or database in only_on.args else deselected).append(item)
    return kept, deselected


def _may_be_serial(item: pytest.Item) -> bool:
    return item.path.is_relative_to(SERIAL_FOLDER) and item.get_closest_marker("clients") is None


def uses_database(item: pytest.Item) -> bool:
    """Whether the result may depend on TEST_DATABASE."""
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(fixtures & _DATABASE_FIXTURES) or item.get_closest_marker("django_db") is not None


def overloaded_seconds() -> float:
    """For how long, since the machine started, some process has waited for a processor."""
    try:
        some = _CPU_PRESSURE.read_text(encoding="ascii").splitlines()[0]
    except OSError:  # no pressure stall information: Linux before 4.20, or switched off
        return 0.0
    return int(some.rpartition("total=")[2]) / 1_000_000


def too_slow(item: pytest.Item, seconds: float) -> str | None:
    """The message for a test that needs the marker `slow` and does not have it."""
    seconds -= item.stash.get(OVERLOADED, 0.0)
    if seconds <= SLOW or item.get_closest_marker("slow"):
        return None
    return f"{item.nodeid} took {seconds:.0f} s: make it shorter, or mark it slow (limit: {SLOW:g} s)"
