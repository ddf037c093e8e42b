"""Measures the rate of manifest pulls without other load and during pushes: `python -m bench.mixed`.

Every side is measured at rest and during 20 pushes a second of small images to other repositories, one right
after the other, in every round. Ours run on both databases, without rate limits and with limits that are
never reached.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Final
from uuid import uuid4

from bench.client import Connection, Failure, Steps, drive
from bench.content import MANIFEST, config, fixed, manifest, unique
from bench.machine import describe
from bench.measure import Get, Wrk, measure
from bench.registry import NAMESPACE, Registry
from bench.sides import SIDES, NotInstalled, Running, Side, on_postgresql, program, stowage
from bench.uploads import authorized, monolithic
from bench.work import KIB

_PULLED: Final = f"{NAMESPACE}/mixed"
_PUSHED: Final = tuple(f"{NAMESPACE}/mixed-{number}" for number in range(20))
_CONNECTIONS: Final = 16
_PUSHERS: Final = 4
_PUSHES: Final = 20  # a second
_LIMITS: Final = {"REGISTRY_RATE_LIMIT": "100000000", "REGISTRY_RATE_LIMIT_ANONYMOUS": "100000000"}
_REFERENCE: Final = "distribution"
_KEPT, _AHEAD, _LIMITED = 0.85, 3.0, 0.9

_README: Final = Path(__file__).parent / "README.md"
_BEGIN: Final = "<!-- mixed: written by python -m bench.mixed --publish -->\n"
_END: Final = "<!-- end of mixed -->\n"

_MIXED: Final = (
    *(side for side in SIDES if side.name in (_REFERENCE, "sqlite", "postgresql")),
    Side("sqlite-limited", "Stowage, SQLite, rate limits", lambda f, c: stowage(f, c, **_LIMITS), ours=True),
    Side(
        "postgresql-limited",
        "Stowage, PostgreSQL, rate limits",
        lambda f, c: on_postgresql(f, c, **_LIMITS),
        ours=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Round:
    """One side in one round; rates in requests or images a second."""

    rest: float
    busy: float
    pushes: float

    @property
    def kept(self) -> float:
        return self.busy / self.rest if self.rest else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """The medians of a side's rounds."""

    side: Side
    rest: float
    busy: float
    kept: float
    pushes: float


def main() -> int:
    """Return the exit status: 1 if a run had errors, 2 if a program is missing."""
    options = _options()
    sides = [side for side in _MIXED if side.name in options.sides]
    try:
        for name in ("wrk", *(need for side in sides for need in side.needs)):
            program(name)
    except NotInstalled as missing:
        print(f"bench.mixed: {missing} is not installed: run make tools", file=sys.stderr)
        return 2
    try:
        results = _run(sides, options)
    except Failure as failure:
        print(f"bench.mixed: {failure}", file=sys.stderr)
        return 1
    shown = as_markdown(results)
    print(shown, "\n".join(verdicts(results)), sep="\n\n")
    if options.publish:
        _publish(shown, verdicts(results), options)
    return 0


def _run(sides: Sequence[Side], options: argparse.Namespace) -> list[Result]:
    rounds: dict[str, list[Round]] = {side.name: [] for side in sides}
    with (
        tempfile.TemporaryDirectory(prefix="stowage-bench-", dir=options.folder) as folder,
        ExitStack() as stops,
    ):
        running = [Running(side, Path(folder) / side.name) for side in sides]
        for one in running:
            stops.callback(one.stop)
            _seed(one.registry)
        for number in range(options.rounds):
            for one in running:
                done = _round(one.registry, options.seconds)
                rounds[one.side.name].append(done)
                rates = f"{done.rest:,.0f} /s, during pushes {done.busy:,.0f} /s ({done.kept:.2f})"
                said = f"round {number + 1} {one.side.title}: {rates}, {done.pushes:.1f} pushes/s"
                print(said, flush=True)
    return [_result(side, rounds[side.name]) for side in sides]


def _result(side: Side, rounds: Sequence[Round]) -> Result:
    return Result(
        side,
        rest=median(done.rest for done in rounds),
        busy=median(done.busy for done in rounds),
        kept=median(done.kept for done in rounds),
        pushes=median(done.pushes for done in rounds),
    )


def _seed(registry: Registry) -> None:
    layer, configuration = fixed(KIB), config()
    registry.put_blob(_PULLED, layer)
    registry.put_blob(_PULLED, configuration)
    registry.put_manifest(_PULLED, "latest", manifest(configuration, layer))


def _round(registry: Registry, seconds: float) -> Round:
    registry.forget_tokens()
    registry.take_tokens([_PULLED, *_PUSHED])
    size = manifest(config(), fixed(KIB)).size
    load = Wrk([Get(f"/v2/{_PULLED}/manifests/latest", registry.authorization(_PULLED), size)])
    os.sync()
    rest = _rate(load, registry, seconds)
    with _pushing(registry) as pushed:
        began, before = time.monotonic(), pushed.value
        busy = _rate(load, registry, seconds)
        pushes = (pushed.value - before) / (time.monotonic() - began)
    return Round(rest, busy, pushes)


def _rate(load: Wrk, registry: Registry, seconds: float) -> float:
    run = measure(load, registry, _CONNECTIONS, seconds)
    if run.errors:
        raise Failure(run.first_error)
    return run.rate


class Pushed:
    """Counts the images that were pushed by the other process."""

    def __init__(self) -> None:
        self._count = multiprocessing.Value("i", 0)

    @property
    def value(self) -> int:
        return int(self._count.value)

    def add(self) -> None:
        with self._count.get_lock():
            self._count.value += 1


@contextmanager
def _pushing(registry: Registry) -> Iterator[Pushed]:
    """Push in a separate process until the block ends."""
    pushed, end = Pushed(), multiprocessing.Event()
    headers = {name: authorized(registry.authorization(name)) for name in _PUSHED}
    process = multiprocessing.Process(target=_push_all, args=(registry.host, headers, pushed, end))
    process.start()
    time.sleep(1)  # until the first push to each repository is done
    try:
        yield pushed
    finally:
        end.set()
        process.join(timeout=60)
    if process.exitcode:
        raise Failure("the pushing process failed")


def _push_all(host: str, headers: dict[str, str], pushed: Pushed, end: Event) -> None:
    names = list(headers)
    threads = [
        Thread(
            target=_push_some,
            args=(host, {name: headers[name] for name in names[first::_PUSHERS]}, pushed, end),
        )
        for first in range(_PUSHERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _push_some(host: str, headers: dict[str, str], pushed: Pushed, end: Event) -> None:
    """Push to some repositories in turn, at this thread's share of the rate if the registry can follow."""
    began, names = time.monotonic(), list(headers)
    for number in count():
        name = names[number % len(names)]
        if end.wait(max(0.0, began + number * _PUSHERS / _PUSHES - time.monotonic())):
            return

        def push(connection: Connection, name: str = name) -> Steps:
            return _push(connection, repository=name, headers=headers[name])

        outcome = drive(host, iter([push]), 1, seconds=60)
        if outcome.errors:
            raise Failure(outcome.first_error)
        pushed.add()


def _push(connection: Connection, *, repository: str, headers: str) -> Steps:
    configuration, layer = config(uuid4().hex), unique(8 * KIB)
    yield from monolithic(connection, repository=repository, headers=headers, blob=layer)
    yield from monolithic(connection, repository=repository, headers=headers, blob=configuration)
    target, kind = f"/v2/{repository}/manifests/latest", f"Content-Type: {MANIFEST}\r\n"
    yield from connection.call(
        "PUT", target, headers + kind, *manifest(configuration, layer).parts, expect=201
    )


def as_markdown(results: Sequence[Result]) -> str:
    """The results as a table."""
    reference = _find(results, _REFERENCE)
    lines = [
        "| side | at rest | during pushes | kept | to distribution v3, during pushes | pushes |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        ratio = f"{result.busy / reference.busy:.1f}x" if reference and reference.busy else ""
        lines.append(
            f"| {result.side.title} | {result.rest:,.0f} /s | {result.busy:,.0f} /s | {result.kept:.2f}"
            f" | {ratio} | {result.pushes:.1f} /s |"
        )
    return "\n".join(lines)


def verdicts(results: Sequence[Result]) -> list[str]:
    """The budgets, each met or missed."""
    reference, found = _find(results, _REFERENCE), []
    for result in results:
        if not result.side.ours:
            continue
        name = result.side.title
        found.append(_verdict(f"{name}: kept during pushes", result.kept, _KEPT))
        if reference is not None and reference.busy:
            found.append(_verdict(f"{name}: to distribution v3", result.busy / reference.busy, _AHEAD))
        without = _find(results, result.side.name.removesuffix("-limited"))
        if without is not None and without is not result and without.busy:
            found.append(_verdict(f"{name}: to no limits", result.busy / without.busy, _LIMITED))
    return found


def _find(results: Sequence[Result], name: str) -> Result | None:
    return next((result for result in results if result.side.name == name), None)


def _verdict(what: str, ratio: float, budget: float) -> str:
    return f"- {what}: {ratio:.2f} of {budget:g}, {'met' if ratio >= budget else '**missed**'}"


def _publish(table: str, budgets: Sequence[str], options: argparse.Namespace) -> None:
    machine = describe()
    what = f"{machine['date']}, {machine['processor']}, {machine['stowage']}"
    of = f"{what}; medians of {options.rounds} rounds of {options.seconds:g} s."
    text = f"{of}\n\n{table}\n\n" + "\n".join(budgets) + "\n"
    page = _README.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    _README.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.mixed", description=__doc__)
    known = [side.name for side in _MIXED]
    parser.add_argument("--sides", type=lambda text: text.split(","), default=known, help=",".join(known))
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured (5)")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long a measurement takes (6)")
    parser.add_argument("--folder", type=Path, help="where to keep data meanwhile: on the disk to measure")
    parser.add_argument("--publish", action="store_true", help="write the figures into bench/README.md")
    return parser.parse_args()


if __name__ == "__main__":
    # On SIGTERM the sides are stopped and their folders removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
