"""Writes the results into bench/: results.json, the figures of README.md, and ratios.svg."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.measure import Run
from bench.plot import ratios_as_svg
from bench.report import Measured, Row, Table, heading, rate, tables, title
from bench.sides import REFERENCE

_FOLDER: Final = Path(__file__).parent
_BEGIN: Final = "<!-- figures: written by make bench ARGS=--publish -->\n"
_END: Final = "<!-- end of figures -->\n"
_RATES: Final = f"""### Rates

In parentheses the ratio to {title(REFERENCE)}. Latencies, processor time and memory of every run are in
`results.json`."""


def save(path: Path, machine: Mapping[str, str], measured: Sequence[Measured]) -> None:
    """Write every run."""
    everything = {"machine": machine, "runs": [asdict(one) for one in measured]}
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[dict[str, str], list[Measured]]:
    """What `save` wrote."""
    everything: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    runs = [Measured(**{**one, "run": Run(**one["run"])}) for one in everything["runs"]]
    return everything["machine"], runs


def publish(machine: Mapping[str, str], measured: Sequence[Measured]) -> None:
    """Write the results, the chart and the figures of the page."""
    save(_FOLDER / "results.json", machine, measured)
    made = list(tables(measured))
    (_FOLDER / "ratios.svg").write_text(ratios_as_svg(made), encoding="utf-8")
    page = _FOLDER / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n{_figures(machine, made)}\n{_END}{after}", encoding="utf-8")


def _figures(machine: Mapping[str, str], made: Sequence[Table]) -> str:
    sides = list(dict.fromkeys(row.side for table in made for row in table.rows))
    parts = [
        _table(("", ""), machine.items()),
        f"![Rates as ratios to {title(REFERENCE)}](ratios.svg)",
        "### Budgets",
        _table(("work", "side", "budget", "measured", ""), _budgets(made)),
        _RATES,
        _table(("work", *map(title, sides)), (_rates(table, sides) for table in made)),
    ]
    return "\n\n".join(parts) + "\n"


def _rates(table: Table, sides: Sequence[str]) -> tuple[str, ...]:
    rows = {row.side: row for row in table.rows}
    return (heading(table), *(_rate(table, rows[side]) if side in rows else "" for side in sides))


def _rate(table: Table, row: Row) -> str:
    if row.median.errors:
        return "failed"
    shown = rate(row.median.rate, table.size)
    return shown if row.ratio is None or row.side == REFERENCE else f"{shown} ({row.ratio:.2f}x)"


def _budgets(made: Iterable[Table]) -> Iterable[tuple[str, ...]]:
    for table in made:
        for row in table.rows:
            for verdict in row.verdicts:
                budget = verdict.budget
                yield (
                    heading(table),
                    title(row.side),
                    f"{budget.ratio:g}x of {title(budget.against)}",
                    f"{verdict.ratio:.2f}x",
                    "met" if verdict.is_met else "**missed**",
                )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
