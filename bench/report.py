"""What was measured, for people: a table of medians, their ratios, and whether the floors are reached."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.floors import floors_for
from bench.measure import Run
from bench.sides import REFERENCE, SIDES

_HEADINGS = ("", "rate", "p50", "p99", "server CPU s", "client CPU s", "memory", "errors", "ratio", "floor")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, and what it was a run of."""

    work: str
    size: int
    connections: int
    side: str
    round: int
    run: Run


@dataclass(frozen=True, slots=True)
class Row:
    """The median of all rounds of one side, and what that means."""

    side: str
    median: Run
    ratio: float | None  # of the reference's rate
    floors: tuple[tuple[float, bool], ...]  # ratio wanted, and whether it is reached


@dataclass(frozen=True, slots=True)
class Table:
    """All sides at one work and one number of connections."""

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
    """Each figure's own median, but all errors."""

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
        peak_memory=round(middle("peak_memory")),
    )


def _row(work: str, connections: int, side: str, medians: dict[str, Run]) -> Row:
    wanted = [
        (floor.ratio, _ratio(medians, side, floor.against)) for floor in floors_for(work, side, connections)
    ]
    return Row(
        side,
        medians[side],
        _ratio(medians, side, REFERENCE),
        tuple((floor, ratio >= floor) for floor, ratio in wanted if ratio is not None),
    )


def _ratio(medians: dict[str, Run], side: str, against: str) -> float | None:
    """None where one of the two is not there or has failed."""
    if against not in medians or not medians[against].rate:
        return None
    if medians[side].errors or medians[against].errors:
        return None
    return medians[side].rate / medians[against].rate


def as_text(table: Table) -> str:
    """For a terminal."""
    lines = [_HEADINGS, *(cells(table, row) for row in table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    shown = [f"{table.work}, {table.connections} connections"]
    for line in lines:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        shown.append("  ".join(["  " + first, *others]))
    shown += [f"  FAILED {row.side}: {row.median.first_error}" for row in table.rows if row.median.errors]
    return "\n".join(shown)


def cells(table: Table, row: Row) -> tuple[str, ...]:
    """One row, in the order of the headings."""
    run = row.median
    rate = f"{run.rate * table.size / 1e6:,.0f} MB/s" if table.size else f"{run.rate:,.0f} /s"
    return (
        _title(row.side),
        "failed" if run.errors else rate,
        _time(run.p50),
        _time(run.p99),
        f"{run.server_cpu:.2f}",
        f"{run.client_cpu:.2f}",
        f"{run.peak_memory / 2**20:,.0f} MiB",
        str(run.errors),
        "" if row.ratio is None else f"{row.ratio:.2f}x",
        ", ".join(f"{floor:g}x {'reached' if reached else 'MISSED'}" for floor, reached in row.floors),
    )


def _title(side: str) -> str:
    return next(known.title for known in SIDES if known.name == side)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms"
