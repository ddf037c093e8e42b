"""Compare the speed of this registry with others on this machine, in one run."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.budgets import BUDGETS
from bench.machine import describe, limits
from bench.measure import measure
from bench.publish import load, publish, save
from bench.report import Measured, as_text, tables
from bench.sides import SIDES, NotInstalled, Running, Side, program
from bench.work import Work
from bench.works import WORKS

_FULL: Final = 2 * 10**9  # bytes written after which a side is restarted, to bound disk usage

Cell = tuple[Work, int]  # and its number of connections


def main() -> int:
    """Returns the exit code: 1 if a run had errors, 2 if a program is missing."""
    options = _options()
    if options.of:
        machine, measured = _read(options.of)
    else:
        try:
            _look_for_programs(options.sides)
        except NotInstalled as missing:
            print(f"bench: {missing} is not installed: run make tools", file=sys.stderr)
            return 2
        machine, measured = _run(options)
        save(options.json, machine, measured)
    if options.publish:
        publish(machine, measured)
    return int(any(one.run.errors for one in measured))


def _look_for_programs(sides: Sequence[Side]) -> None:
    for name in ("wrk", *(need for side in sides for need in side.needs)):
        program(name)


def _read(paths: Sequence[Path]) -> tuple[dict[str, str], list[Measured]]:
    """Merge the runs of several files; the machine is the first file's."""
    loaded = [load(path) for path in paths]
    measured = [one for _, runs in loaded for one in runs]
    for table in tables(measured):
        print(as_text(table), end="\n\n")
    return loaded[0][0], measured


def _run(options: argparse.Namespace) -> tuple[dict[str, str], list[Measured]]:
    measured: list[Measured] = []
    with (
        tempfile.TemporaryDirectory(prefix="stowage-bench-", dir=options.folder) as folder,
        ExitStack() as stops,
    ):
        machine = {**describe(), **limits(Path(folder)), "runs": f"{options.rounds} of {options.seconds:g} s"}
        print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n", flush=True)
        running = [Running(side, Path(folder) / side.name) for side in options.sides]
        for one in running:
            stops.callback(one.stop)
        for work, connections in _cells(options):
            runs = list(_rounds(work, connections, running, options))
            measured += runs
            for table in tables(runs):
                print(as_text(table), end="\n\n", flush=True)
    return machine, measured


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    with_budgets = {name for budget in BUDGETS for name in budget.works}
    for work in options.works:
        if not options.quick:
            wanted = options.connections or work.connections
        elif work.name in with_budgets:
            wanted = options.connections or (min(work.connections) if work.size else 16,)
        else:
            wanted = ()
        yield from ((work, number) for number in work.connections if number in wanted)


def _rounds(
    work: Work, connections: int, running: Sequence[Running], options: argparse.Namespace
) -> Iterator[Measured]:
    """Visit all sides in every round, because the speed of a machine varies."""
    for number in range(options.rounds):
        for one in running:
            if not (one.side.limit and (work.writes or work.needs_registry)):
                yield _once(work, connections, one, number, options.seconds)


def _once(work: Work, connections: int, one: Running, number: int, seconds: float) -> Measured:
    if one.registry.written > _FULL:
        one.fresh()
    one.registry.forget_tokens()
    load_to_put = work.load(one.registry, connections)
    os.sync()  # otherwise a side waits for dirty pages that another one left
    run = measure(load_to_put, one.registry, connections, seconds)
    one.registry.written += run.operations * work.writes
    return Measured(work.name, work.size, connections, one.side.name, number, run)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    add = parser.add_argument
    known = ",".join(side.name for side in SIDES)
    add("--sides", type=_sides, default=list(SIDES), help=f"some of {known}")
    add("--works", type=_works, default=WORKS, help="parts of names of works, with semicolons between them")
    add("--connections", type=_numbers, help="only these numbers of connections, with commas")
    add("--rounds", type=int, help="how often each run is made (3); medians are shown")
    add("--seconds", type=float, help="how long a run takes (4)")
    add("--quick", action="store_true", help="only the works with a budget, once, for a second")
    add("--folder", type=Path, help="where to keep data meanwhile: on the disk to measure")
    add("--json", type=Path, default=Path(".venv/bench.json"), help="where to write every run")
    add("--publish", action="store_true", help="write the figures into bench/README.md")
    add("--of", type=Path, nargs="+", help="measure nothing: show or publish what these files hold")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 4)
    return options


def _sides(text: str) -> list[Side]:
    known = {side.name for side in SIDES}
    if unknown := set(text.split(",")) - known:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return [side for side in SIDES if side.name in text.split(",")]


def _works(text: str) -> list[Work]:
    found = [work for work in WORKS if any(part.strip() in work.name for part in text.split(";"))]
    if not found:
        raise argparse.ArgumentTypeError("no such work; there are: " + "; ".join(work.name for work in WORKS))
    return found


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    # On SIGTERM the sides are stopped and their folders removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
