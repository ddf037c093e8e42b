"""Draws a chart of ratios as SVG."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from bench.report import Row, Table
from bench.sides import REFERENCE, SIDES

_LABELS: Final = 330  # pixels left of the bars
_WIDE: Final = 560  # pixels for the bars
_BAR: Final = 11
_LOWEST, _HIGHEST = 0.1, 100.0  # the ends of the logarithmic axis
_COLOURS: Final = {
    "docker-registry": "#9aa5b1",
    "distribution-minio": "#c9b8dd",
    "sqlite": "#1f77b4",
    "postgresql": "#2a9d8f",
    "minio": "#8e6bbf",
    "nginx": "#d9d9d9",
}


def ratios_as_svg(made: Sequence[Table]) -> str:
    """Bars for each table with a budget or with 16 connections; budgets are red ticks."""
    shown = [table for table in made if table.connections == 16 or _has_budget(table)]
    drawn, y = [], 40
    for table in shown:
        rows = [row for row in table.rows if row.ratio is not None and row.side != REFERENCE]
        drawn.append(_text(_LABELS - 8, y + _BAR, f"{table.work}, {table.connections}", "end"))
        for row in rows:
            drawn += _bar(row, y)
            y += _BAR + 1
        y += _BAR
    scale = [part for mark in (0.1, 0.3, 1, 3, 10, 30, 100) for part in _mark(mark, y)]
    width, height = _LABELS + _WIDE + 60, y + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        ' font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        + "\n".join([*_legend(), *scale, *drawn])
        + "\n</svg>\n"
    )


def _has_budget(table: Table) -> bool:
    return any(row.verdicts for row in table.rows)


def _x(ratio: float) -> float:
    within = min(max(ratio, _LOWEST), _HIGHEST)
    return _LABELS + _WIDE * math.log(within / _LOWEST) / math.log(_HIGHEST / _LOWEST)


def _bar(row: Row, y: int) -> Iterator[str]:
    ratio = row.ratio or 0
    start, end = sorted((_x(1), _x(ratio)))
    yield _rectangle(start, y, max(end - start, 1), _COLOURS[row.side])
    yield _text(end + 4, y + _BAR - 2, f"{ratio:.2f}", "start")
    for verdict in row.verdicts:
        # Converted to a ratio of the reference if the budget is relative to another side.
        if verdict.ratio:
            yield _rectangle(_x(verdict.budget.ratio * ratio / verdict.ratio) - 1, y - 1, 2, "#d62728")


def _legend() -> Iterator[str]:
    x = 8
    for side in SIDES:
        if side.name in _COLOURS:
            yield _rectangle(x, 6, _BAR, _COLOURS[side.name])
            yield _text(x + _BAR + 4, 15, side.title, "start")
            x += 24 + 6 * len(side.title)
    yield _text(x, 15, "red: budget", "start")


def _mark(ratio: float, bottom: int) -> Iterator[str]:
    x = _x(ratio)
    colour = "#555" if ratio == 1 else "#ddd"
    yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="36" y2="{bottom}" stroke="{colour}"/>'
    yield _text(x, 32, f"{ratio:g}x", "middle")


def _rectangle(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
