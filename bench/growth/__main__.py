"""Compares the response times of a registry with many rows with those of a small one: `make growth`.

Two products, one with few and one with many rows, get the same requests in turn, so that other load on
the machine affects both alike.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.growth.side import Side, filled
from bench.growth.tables import Size
from bench.growth.works import WORKS, Work
from tests.services.postgres import running_postgres

# Enough repositories for a different one in every round: repeated requests would be served from caches.
_SMALL: Final = Size(manifests=10_500, giant_tags=500)
_ALLOWED: Final = 2.0  # ratio of the medians, grown to small


def main() -> int:
    arguments = _arguments()
    grown = Size(arguments.manifests, arguments.giant_tags)
    slow = [work for name in arguments.databases for work in _compare(name, grown, arguments.rounds)]
    print(f"\nSlower by more than a factor of {_ALLOWED:g}: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make growth", description=__doc__)
    parser.add_argument("--manifests", type=int, default=1_000_000)
    parser.add_argument("--giant-tags", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=100, help="requests of each kind")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    return parser.parse_args()


def _compare(database: str, grown: Size, rounds: int) -> list[str]:
    """Print one table; return the operations that exceed the limit."""
    folder = Path(tempfile.mkdtemp(prefix="stowage-growth-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        environments: list[dict[str, str]] = [{}, {}]
        if database == "postgresql":
            server = cleanup.enter_context(running_postgres(folder / "postgres"))
            names = ("small", "grown")
            environments = [{"REGISTRY_DATABASE_URL": server.create_database(name)} for name in names]
        sides = [
            cleanup.enter_context(filled(folder / f"side-{number}", size, environments[number]))
            for number, size in enumerate((_SMALL, grown))
        ]
        print(f"\n{database}: {grown.manifests} manifests were generated in {sides[1][1]:.0f} s\n")
        print(f"| {'ms, median of ' + str(rounds):30} | small | grown | ratio | grown p99 |")
        print("|---|---|---|---|---|", flush=True)
        return [
            f"{name} ({database})"
            for name, work in WORKS.items()
            if _timed(name, work, sides[0][0], sides[1][0], rounds) > _ALLOWED
        ]


def _timed(name: str, work: Work, small: Side, grown: Side, rounds: int) -> float:
    """Print one line; return the ratio of the medians, grown to small."""
    chance = random.Random(name)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, taken in zip((small, grown), times, strict=True):
            taken.append(side.call(work(side, chance)).seconds * 1000)
    before, after = map(statistics.median, times)
    p99 = sorted(times[1])[int(rounds * 0.99)]
    print(f"| {name:30} | {before:5.2f} | {after:5.2f} | {after / before:5.2f} | {p99:9.2f} |", flush=True)
    return after / before


if __name__ == "__main__":
    sys.exit(main())
