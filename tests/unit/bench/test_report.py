"""Reports of `make bench`."""

import re
from pathlib import Path

import pytest

from bench.budgets import BUDGETS
from bench.measure import Run
from bench.plot import ratios_as_svg
from bench.publish import load, save
from bench.report import Measured, as_text, tables
from bench.sides import SIDES
from bench.works import WORKS

WORK = "manifest GET by tag"


def measured(side: str, rate: float, *, errors: int = 0, number: int = 0) -> Measured:
    run = Run(
        operations=100,
        rate=rate,
        p50=0.001,
        p99=0.002,
        calls=100,
        errors=errors,
        first_error="no" if errors else "",
        server_cpu=1,
        client_cpu=0.1,
        peak_rss=2**20,
        memory=2**20,
    )
    return Measured(WORK, 0, 16, side, number, run)


def test_every_budget_refers_to_defined_works_sides_and_connections() -> None:
    works = {work.name: work for work in WORKS}
    sides = {side.name for side in SIDES}
    for budget in BUDGETS:
        assert set(budget.works) <= works.keys()
        assert {*budget.sides, budget.against} <= sides
        for name in budget.works:
            assert set(budget.connections) <= set(works[name].connections)


def test_names_of_works_are_unique() -> None:
    assert len({work.name for work in WORKS}) == len(WORKS)


@pytest.mark.parametrize(("rate", "met"), [(300, True), (299, False)])
def test_a_budget_is_compared_with_the_ratio_of_medians(rate: float, met: bool) -> None:
    # given three rounds, one of which is an outlier
    runs = [measured("distribution", rate, number=number) for number, rate in enumerate((100, 100, 5))]
    runs += [measured("sqlite", rate, number=number) for number, rate in enumerate((rate, 1, rate))]

    # when they are combined
    (table,) = tables(runs)

    # then the outlier does not change the ratio
    (verdict,) = table.rows[1].verdicts
    assert verdict.ratio == rate / 100
    assert verdict.is_met is met


def test_a_run_with_errors_fails_and_does_not_meet_its_budget() -> None:
    runs = [measured("distribution", 100), measured("sqlite", 5000), measured("sqlite", 5000, errors=1)]
    (table,) = tables(runs)
    assert table.rows[1].ratio is None
    assert [verdict.is_met for verdict in table.rows[1].verdicts] == [False]
    assert re.search(r"FAILED sqlite: no", as_text(table))


def test_saved_results_can_be_loaded_and_drawn(tmp_path: Path) -> None:
    runs = [measured("distribution", 100), measured("sqlite", 5000)]
    save(tmp_path / "bench.json", {"date": "today"}, runs)
    assert load(tmp_path / "bench.json") == ({"date": "today"}, runs)
    assert "50.00" in ratios_as_svg(list(tables(runs)))
