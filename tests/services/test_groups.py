"""The groups of tests are complete: each test runs somewhere, and where its database is."""

import pytest

from tests import groups

MODULE = """
    import pytest

    @pytest.fixture
    def product(backing): ...

    @pytest.fixture
    def backing(): ...

    def test_of_nothing(tmp_path): ...

    @pytest.mark.django_db
    def test_of_rows(): ...

    def test_of_a_fixture(db): ...

    def test_of_a_product(product): ...

    @pytest.mark.only_on("postgresql")
    @pytest.mark.django_db
    def test_of_one_database(): ...
"""


def names(items: list[pytest.Item]) -> list[str]:
    return [item.name for item in items]


def test_only_tests_that_use_no_database_are_left_out_of_the_second_run(pytester: pytest.Pytester) -> None:
    kept, deselected = groups.select(pytester.getitems(MODULE), database="postgresql")
    once = [item for item in kept if item.get_closest_marker("database_independent")]
    assert names(once) == ["test_of_nothing"]
    assert len(kept) == 5
    assert deselected == []


def test_a_test_of_one_database_runs_on_that_one(pytester: pytest.Pytester) -> None:
    kept, deselected = groups.select(pytester.getitems(MODULE), database="sqlite")
    assert names(deselected) == ["test_of_one_database"]
    assert len(kept) == 4


def test_a_test_that_names_a_database_and_uses_none_would_be_lost(pytester: pytest.Pytester) -> None:
    items = pytester.getitems('import pytest\n@pytest.mark.only_on("postgresql")\ndef test_x(): ...')
    with pytest.raises(pytest.UsageError, match="uses no database"):
        groups.select(items, database="sqlite")


def test_a_slow_test_needs_the_marker(pytester: pytest.Pytester) -> None:
    short, marked = pytester.getitems(
        "import pytest\ndef test_a(): ...\n@pytest.mark.slow\ndef test_b(): ..."
    )
    assert groups.too_slow(short, groups.SLOW) is None
    assert "took 31 s: make it shorter, or mark it slow" in (groups.too_slow(short, 31) or "")
    assert groups.too_slow(marked, 31) is None


def test_time_in_which_the_machine_was_overloaded_does_not_count(pytester: pytest.Pytester) -> None:
    (test,) = pytester.getitems("def test_a(): ...")
    test.stash[groups.OVERLOADED] = 20.0
    assert groups.too_slow(test, 49) is None
    assert groups.too_slow(test, 51)
