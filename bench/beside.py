"""Clients beside background work: the rates and latencies of pulls and pushes at rest and during the work.

Medians of several rounds, because one p99 of a few seconds says little.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from statistics import median
from typing import Final, NamedTuple

from bench.client import Connection, Failure, Steps
from bench.content import MANIFEST, config, fixed, manifest, unique
from bench.measure import Get, Load, Loop, Run, Wrk, measure
from bench.registry import NAMESPACE, Registry
from bench.uploads import authorized, monolithic
from bench.work import KIB

KEPT: Final = 0.85
"""The share of rate and p99 that clients must keep (budget)."""

_PULLED: Final = f"{NAMESPACE}/pulled"
_PUSHED: Final = f"{NAMESPACE}/pushed"
_TITLES: Final = ("requests", "at rest", "p99", "meanwhile", "p99", "kept", "p99 kept")
_CONNECTIONS: Final = {"pulls": 16, "pushes": 4}


class Figures(NamedTuple):
    """Medians of the rounds of one kind of request."""

    rate: float  # requests a second
    p99: float  # seconds


class Pair(NamedTuple):
    """One kind of request at rest and beside the work."""

    name: str
    rest: Figures
    busy: Figures

    @property
    def kept(self) -> float:
        """The share of the rate that is left beside the work."""
        return self.busy.rate / self.rest.rate

    @property
    def kept_p99(self) -> float:
        """The p99 at rest as a share of that beside the work."""
        return self.rest.p99 / self.busy.p99

    @property
    def is_within_budget(self) -> bool:
        return min(self.kept, self.kept_p99) >= KEPT


def pairs(rest: dict[str, Figures], busy: dict[str, Figures]) -> list[Pair]:
    return [Pair(name, rest[name], busy[name]) for name in rest]


def as_markdown(found: Sequence[Pair]) -> str:
    """The pairs as a table."""
    lines = ["| " + " | ".join(_TITLES) + " |", "|---" * len(_TITLES) + "|"]
    lines += [
        f"| {pair.name}, {_CONNECTIONS[pair.name]} connections"
        f" | {pair.rest.rate:,.0f} /s | {pair.rest.p99 * 1000:.1f} ms"
        f" | {pair.busy.rate:,.0f} /s | {pair.busy.p99 * 1000:.1f} ms"
        f" | {_judged(pair.kept)} | {_judged(pair.kept_p99)} |"
        for pair in found
    ]
    return "\n".join(lines)


def _judged(share: float) -> str:
    return f"{share:.2f}" if share >= KEPT else f"{share:.2f}, **missed**"


def seed(registry: Registry) -> None:
    """Push the image that is pulled."""
    layer, configuration = fixed(KIB), config()
    for blob in (layer, configuration):
        registry.put_blob(_PULLED, blob)
    registry.put_manifest(_PULLED, "latest", manifest(configuration, layer))


def rounds(registry: Registry, options: argparse.Namespace) -> dict[str, Figures]:
    """Measure each kind of request `options.rounds` times for `options.seconds`, in turn.

    Raises:
        Failure: a response was not the expected one.
    """
    return _medians([_runs(registry, options.seconds) for _ in range(options.rounds)])


def alternating(
    registry: Registry, options: argparse.Namespace, work: Callable[[int], AbstractContextManager[None]]
) -> list[Pair]:
    """Measure at rest and inside `work` in turn, so that a slower or faster hour changes both.

    `work` is called with the number of the round, from 0.

    Raises:
        Failure: a response was not the expected one.
    """
    rest, busy = [], []
    for number in range(options.rounds):
        rest.append(_runs(registry, options.seconds))
        with work(number):
            busy.append(_runs(registry, options.seconds))
    return pairs(_medians(rest), _medians(busy))


def _medians(runs: Sequence[Mapping[str, Run]]) -> dict[str, Figures]:
    return {
        name: Figures(median(one[name].rate for one in runs), median(one[name].p99 for one in runs))
        for name in runs[0]
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement with clients (10)")
    parser.add_argument("--rounds", type=int, default=5, help="of the measurements with clients (5)")


def _runs(registry: Registry, seconds: float) -> dict[str, Run]:
    registry.forget_tokens()
    registry.take_tokens([_PULLED, _PUSHED])
    size = manifest(config(), fixed(KIB)).size
    loads: dict[str, Load] = {
        "pulls": Wrk([Get(f"/v2/{_PULLED}/manifests/latest", registry.authorization(_PULLED), size)]),
        "pushes": Loop(_pushes(authorized(registry.authorization(_PUSHED)))),
    }
    found = {name: measure(load, registry, _CONNECTIONS[name], seconds) for name, load in loads.items()}
    for run in found.values():
        if run.errors:
            raise Failure(run.first_error)
    return found


def _pushes(headers: str) -> Iterator[partial[Steps]]:
    for number in count():
        yield partial(_push, number=number, headers=headers)


def _push(connection: Connection, *, number: int, headers: str) -> Steps:
    configuration, layer = config(f"{number}-{time.monotonic_ns()}"), unique(8 * KIB)
    for blob in (layer, configuration):
        yield from monolithic(connection, repository=_PUSHED, headers=headers, blob=blob)
    kind = f"Content-Type: {MANIFEST}\r\n"
    target = f"/v2/{_PUSHED}/manifests/tag-{number % 50}"
    body = manifest(configuration, layer).parts
    yield from connection.call("PUT", target, headers + kind, *body, expect=201)
