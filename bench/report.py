"""Results as tables: medians, their ratios, and whether the budgets are met."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.budgets import Budget, budgets_for
from bench.measure import Run
from bench.sides import REFERENCE, SIDES

HEADINGS: Final = (
    "side",
    "rate",
    "p50",
    "p99",
    "server CPU",
    "client CPU",
    "peak RSS",
    "PSS",
    "errors",
    "ratio",
    "budget",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one work on one side."""

    work: str
    size: int
    connections: int
    side: str
    round: int
    run: Run


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a budget is met."""

    budget: Budget
    ratio: float

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.budget.ratio


@dataclass(frozen=True, slots=True)
class Row:
    """The median of all rounds of one side, its ratio to the reference and its budgets."""

    side: str
    median: Run
    ratio: float | None  # of the reference's rate
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All sides for one work and one number of connections."""

    work: str
    size: int
    connections: int
    rows: tuple[Row, ...]


def tables(measured: Iterable[Measured]) -> Iterator[Table]:
    """Group the runs, in the order in which they were made."""
    grouped: dict[tuple[str, int, int], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for one in measured:
        grouped[one.work, one.size, one.connections][one.side].append(one.run)
    for (work, size, connections), sides in grouped.items():
        medians = {side: median(runs) for side, runs in sides.items()}
        rows = (_row(work, connections, side, medians) for side in medians)
        yield Table(work, size, connections, tuple(rows))


def median(runs: Sequence[Run]) -> Run:
    """The median of each figure, and the sum of all errors."""

    def middle(name: str) -> float:
        return float(statistics.median(getattr(run, name) for run in runs))

    return Run(
        operations=round(middle("operations")),
        rate=middle("rate"),
        p50=middle("p50"),
        p99=middle("p99"),
        calls=round(middle("calls")),
        errors=sum(run.errors for run in runs),
        first_error=next((run.first_error for run in runs if run.first_error), ""),
        server_cpu=middle("server_cpu"),
        client_cpu=middle("client_cpu"),
        peak_rss=round(middle("peak_rss")),
        memory=round(middle("memory")),
    )


def _row(work: str, connections: int, side: str, medians: dict[str, Run]) -> Row:
    # A failed run misses its budget; a side that was not measured has no verdict.
    verdicts = tuple(
        Verdict(budget, _ratio(medians, side, budget.against) or 0)
        for budget in budgets_for(work, side, connections)
        if budget.against in medians
    )
    return Row(side, medians[side], _ratio(medians, side, REFERENCE), verdicts)


def _ratio(medians: dict[str, Run], side: str, against: str) -> float | None:
    """None if one of the two was not measured or has failed."""
    if against not in medians or not medians[against].rate:
        return None
    if medians[side].errors or medians[against].errors:
        return None
    return medians[side].rate / medians[against].rate


def as_text(table: Table) -> str:
    """A table for the terminal."""
    lines = [HEADINGS, *(cells(table, row) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [heading(table)]
    for first, *others in lines:
        padded = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        shown.append("  ".join(["", first.ljust(widths[0]), *padded]).rstrip())
    shown += [f"  FAILED {row.side}: {row.median.first_error}" for row in table.rows if row.median.errors]
    return "\n".join(shown)


def heading(table: Table) -> str:
    return f"{table.work}, {table.connections} connection{'s' if table.connections > 1 else ''}"


def cells(table: Table, row: Row) -> tuple[str, ...]:
    """One row, in the order of the headings."""
    run = row.median
    return (
        title(row.side),
        "failed" if run.errors else rate(run.rate, table.size),
        _time(run.p50),
        _time(run.p99),
        f"{run.server_cpu:.2f} s",
        f"{run.client_cpu:.2f} s",
        f"{run.peak_rss / 2**20:,.0f} MiB",
        f"{run.memory / 2**20:,.0f} MiB",
        str(run.errors),
        "" if row.ratio is None else f"{row.ratio:.2f}x",
        ", ".join(map(_verdict, row.verdicts)),
    )


def title(side: str) -> str:
    return next(known.title for known in SIDES if known.name == side)


def rate(rate: float, size: int) -> str:
    if size:
        return f"{rate * size / 1e6:,.0f} MB/s"
    return f"{rate:,.0f} /s" if rate >= 100 else f"{rate:.1f} /s"


def _verdict(verdict: Verdict) -> str:
    against = "" if verdict.budget.against == REFERENCE else f" of {verdict.budget.against}"
    return f"{verdict.budget.ratio:g}x{against} {'met' if verdict.is_met else 'MISSED'}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"
