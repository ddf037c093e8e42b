"""`make bench`: compare this registry with others on this machine. `make bench ARGS=--help` says how."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.measure import measure
from bench.report import Measured, as_text, tables
from bench.sides import SIDES, NotInstalled, Running, Side, program
from bench.work import Work
from bench.works import WORKS

_FULL: Final = 2 * 2**30  # bytes written after which a side is started anew, so that the disk suffices


def main() -> int:
    """Return what the process ends with: 1 if a run had errors, 2 if a program is missing."""
    options = _options()
    try:
        for side in options.sides:
            for name in (*side.needs, "wrk"):
                program(name)
    except NotInstalled as missing:
        print(f"bench: {missing} is not installed: run make tools", file=sys.stderr)
        return 2
    measured = []
    with (
        tempfile.TemporaryDirectory(prefix="stowage-bench-", dir=options.folder) as folder,
        ExitStack() as stops,
    ):
        running = [Running(side, Path(folder) / side.name) for side in options.sides]
        for one in running:
            stops.callback(one.stop)
        for some in _all(running, options):
            measured += some
            for table in tables(some):
                print(as_text(table), end="\n\n", flush=True)
    options.json.write_text(json.dumps([asdict(one) for one in measured], indent=1) + "\n", encoding="utf-8")
    return int(any(one.run.errors for one in measured))


def _all(running: Sequence[Running], options: argparse.Namespace) -> Iterator[list[Measured]]:
    """The runs of each work and number of connections. Rounds go around all sides, since machines vary."""
    for work in options.works:
        for connections in options.connections or work.connections:
            if connections in work.connections:
                yield [
                    _once(work, connections, one, number, options.seconds)
                    for number in range(options.rounds)
                    for one in running
                    if not (work.writes and one.side.limit)
                ]


def _once(work: Work, connections: int, one: Running, number: int, seconds: float) -> Measured:
    if one.registry.written > _FULL:
        one.fresh()
    one.registry.forget_tokens()
    load = work.load(one.registry, connections)
    os.sync()  # or one side would wait for what another one has left to the kernel
    run = measure(load, one.registry, connections, seconds)
    if work.writes:
        one.registry.written += run.operations * work.writes
    return Measured(work.name, work.size, connections, one.side.name, number, run)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--sides", type=_sides, default=[side for side in SIDES if side.by_default])
    parser.add_argument("--works", type=_works, default=WORKS, help="parts of names of works, with commas")
    parser.add_argument("--connections", type=_numbers, help="only these numbers of them, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="the length of a run")
    parser.add_argument("--folder", type=Path, help="where to keep data meanwhile, on the disk to measure")
    parser.add_argument(
        "--json", type=Path, default=Path(".venv/bench.json"), help="where to write the figures"
    )
    return parser.parse_args()


def _sides(text: str) -> list[Side]:
    known = {side.name: side for side in SIDES}
    if unknown := set(text.split(",")) - known.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return [side for side in SIDES if side.name in text.split(",")]


def _works(text: str) -> list[Work]:
    return [work for work in WORKS if any(part.strip() in work.name for part in text.split(","))]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
