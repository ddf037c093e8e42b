"""Writes what was measured into bench/: results.json, the figures of README.md, and ratios.svg."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.measure import Run
from bench.plot import ratios_as_svg
from bench.report import HEADINGS, Measured, Table, cells, heading, tables, title
from bench.sides import REFERENCE

_FOLDER: Final = Path(__file__).parent
_BEGIN: Final = "<!-- figures: written by make bench ARGS=--publish -->\n"
_END: Final = "<!-- end of figures -->\n"


def save(path: Path, machine: Mapping[str, str], measured: Sequence[Measured]) -> None:
    """Write everything, each run for itself."""
    everything = {"machine": machine, "runs": [asdict(one) for one in measured]}
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[dict[str, str], list[Measured]]:
    """What `save` wrote."""
    everything: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    runs = [Measured(**{**one, "run": Run(**one["run"])}) for one in everything["runs"]]
    return everything["machine"], runs


def publish(machine: Mapping[str, str], measured: Sequence[Measured]) -> None:
    """Put the figures where readers look for them."""
    save(_FOLDER / "results.json", machine, measured)
    made = list(tables(measured))
    (_FOLDER / "ratios.svg").write_text(ratios_as_svg(made), encoding="utf-8")
    page = _FOLDER / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n{_figures(machine, made)}\n{_END}{after}", encoding="utf-8")


def _figures(machine: Mapping[str, str], made: Sequence[Table]) -> str:
    parts = [
        _table(("", ""), machine.items()),
        f"![Rates as ratios to {title(REFERENCE)}](ratios.svg)",
        "### Floors",
        _table(("work", "side", "floor", "measured", ""), _floors(made)),
        *(
            f"### {heading(table)}\n\n{_table(HEADINGS, (cells(table, row) for row in table.rows))}"
            for table in made
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _floors(made: Iterable[Table]) -> Iterable[tuple[str, ...]]:
    for table in made:
        for row in table.rows:
            for verdict in row.verdicts:
                floor = verdict.floor
                yield (
                    heading(table),
                    title(row.side),
                    f"{floor.ratio:g}x of {title(floor.against)}",
                    f"{verdict.ratio:.2f}x",
                    "reached" if verdict.reached else "**missed**",
                )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
