"""Measures what recording pulls costs: `python -m bench.pulls`.

Pushes are measured alone and while a process records pulls of the same images, every one as if it came an
hour after the last one. 100 a second are what a registry writes whose clients pull 360,000 different images
every hour.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Final
from uuid import uuid4

import httpx

from bench.client import Connection, Failure, Operation, Steps
from bench.content import MANIFEST, Content, config, fixed, manifest, unique
from bench.measure import Get, Loop, Run, Wrk, measure
from bench.registry import NAMESPACE, Registry
from bench.uploads import authorized, monolithic
from bench.work import KIB
from tests.services.postgres import running_postgres
from tests.services.processes import descendants
from tests.services.stack import Stack

_API: Final = "/registry/v1/regions/fr-par"
_REPOSITORIES: Final = tuple(f"{NAMESPACE}/pulls-{number}" for number in range(50))
_TAGS: Final = 20  # in each
_CONNECTIONS: Final = 8
_KEPT: Final = 0.85  # of the pushes, and of their p99


@dataclass(frozen=True, slots=True)
class Round:
    """Pushes alone and beside the recording process."""

    rest: Run
    busy: Run
    recorded: dict[str, float]


def main() -> int:
    """Return the exit status: 1 if requests failed."""
    options = _options()
    try:
        for database in options.databases:
            _measure(database, options)
    except Failure as failure:
        print(f"bench.pulls: {failure}", file=sys.stderr)
        return 1
    return 0


def _measure(database: str, options: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="stowage-bench-", dir=options.folder) as folder,
        ExitStack() as cleanup,
    ):
        environment = {}
        if database == "postgresql":
            server = cleanup.enter_context(running_postgres(Path(folder) / "postgres", durable=True))
            environment = {"REGISTRY_DATABASE_URL": server.create_database("registry")}
        stack = cleanup.enter_context(Stack(Path(folder) / "stowage", environment=environment))
        registry = _registry(stack)
        cleanup.callback(registry.http.close)
        _seed(registry)
        get = _seconds_of_get(registry, options.seconds)
        rounds = [_round(stack, registry, options.rate, options.seconds) for _ in range(options.rounds)]
    _print_rounds(database, get, rounds)


def _registry(stack: Stack) -> Registry:
    credentials = stack.credentials
    httpx.post(
        f"{credentials.control_url}{_API}/namespaces",
        json={"name": NAMESPACE},
        headers={"X-Auth-Token": credentials.secret_key},
    ).raise_for_status()
    registry = Registry(credentials.registry_host, credentials.secret_key)
    registry.processes = frozenset(descendants(os.getpid()))  # PostgreSQL included
    return registry


def _seed(registry: Registry) -> None:
    layer, configuration = fixed(KIB), config()
    registry.take_tokens(_REPOSITORIES)
    for repository in _REPOSITORIES:
        registry.put_blob(repository, layer)
        registry.put_blob(repository, configuration)
        for number in range(_TAGS):
            registry.put_manifest(repository, f"tag-{number}", _image(layer, repository, number))


def _image(layer: Content, repository: str, number: int) -> Content:
    return manifest(config(), layer, f"{repository} {number}")


def _seconds_of_get(registry: Registry, seconds: float) -> float:
    """The processor time of a GET of a cached manifest."""
    repository = _REPOSITORIES[0]
    size = _image(fixed(KIB), repository, 0).size
    load = Wrk([Get(f"/v2/{repository}/manifests/tag-0", registry.authorization(repository), size)])
    run = _checked(measure(load, registry, 16, seconds))
    return run.server_cpu / run.operations


def _round(stack: Stack, registry: Registry, rate: int, seconds: float) -> Round:
    registry.forget_tokens()
    registry.take_tokens(_REPOSITORIES)
    rest = _checked(measure(Loop(_pushes(registry)), registry, _CONNECTIONS, seconds))
    with _recording(stack, rate) as recorded:
        busy = _checked(measure(Loop(_pushes(registry)), registry, _CONNECTIONS, seconds))
    return Round(rest, busy, recorded)


def _pushes(registry: Registry) -> Iterator[Operation]:
    """Pushes of a new small image to each repository in turn."""
    headers = {name: authorized(registry.authorization(name)) for name in _REPOSITORIES}
    return (partial(_push, repository=name, headers=headers[name]) for name in cycle(_REPOSITORIES))


def _push(connection: Connection, *, repository: str, headers: str) -> Steps:
    configuration, layer = config(uuid4().hex), unique(4 * KIB)
    for blob in (layer, configuration):
        yield from monolithic(connection, repository=repository, headers=headers, blob=blob)
    target, kind = f"/v2/{repository}/manifests/latest", f"Content-Type: {MANIFEST}\r\n"
    body = manifest(configuration, layer).parts
    yield from connection.call("PUT", target, headers + kind, *body, expect=201)


@contextmanager
def _recording(stack: Stack, rate: int) -> Iterator[dict[str, float]]:
    """Record pulls in a process until the block ends; the figures are there after it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.pulls.recording", str(rate)],
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    figures: dict[str, float] = {}
    try:
        yield figures
    finally:
        process.terminate()
        printed = process.communicate(timeout=60)[0]
    figures.update(json.loads(printed))


def _checked(run: Run) -> Run:
    if run.errors:
        raise Failure(run.first_error)
    return run


def _print_rounds(database: str, get: float, rounds: list[Round]) -> None:
    rate = median(each.rest.rate for each in rounds), median(each.busy.rate for each in rounds)
    p99 = median(each.rest.p99 for each in rounds) * 1000, median(each.busy.p99 for each in rounds) * 1000
    kept = median(each.busy.rate / each.rest.rate for each in rounds)
    cpu = median(_cpu(each.busy) / _cpu(each.rest) for each in rounds)
    slower = median(each.busy.p99 / each.rest.p99 for each in rounds)
    figures = {name: median(each.recorded[name] for each in rounds) for name in rounds[0].recorded}
    print(
        f"{database}: a GET of a cached manifest takes {get * 1e6:.1f} us of processor time, noting its pull"
        f" {figures['note'] * 1e6:.2f} us of it ({figures['note'] / get:.1%})"
    )
    print(f"{database}: alone {rate[0]:.0f} pushes/s, p99 {p99[0]:.0f} ms")
    print(
        f"{database}: while {figures['rate']:.0f} pulls are recorded a second {rate[1]:.0f} pushes/s,"
        f" p99 {p99[1]:.0f} ms; kept {kept:.2f}, {'met' if kept >= _KEPT else 'missed'} ({_KEPT});"
        f" p99 {slower:.2f} times as long, {cpu:.2f} of the processor time for a push"
    )
    print(
        f"{database}: a batch takes {figures['p50'] * 1000:.1f} ms, p99 {figures['p99'] * 1000:.1f} ms;"
        f" {figures['skipped']:.1f} pulls a second were of locked rows",
        flush=True,
    )


def _cpu(run: Run) -> float:
    return run.server_cpu / run.operations


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pulls", description=__doc__)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--rate", type=int, default=100, help="pulls a second that are recorded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--folder", help="for the registries; default: the folder for temporary files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
