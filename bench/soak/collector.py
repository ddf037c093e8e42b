"""A soak test of garbage collection: shared layers lose and regain references while processes are killed."""

import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bench.soak.chaos import data_processes, worker_processes
from bench.soak.connection import Connection
from bench.soak.layers import SharedLayers
from bench.soak.management import ManagementApi
from bench.soak.record import PromiseRecord, Record
from bench.soak.run import (
    count_collected,
    expire_uploads,
    leftovers,
    require_no_deadlocks,
    stop_clients,
)
from bench.soak.sharing import SharingClient
from bench.soak.verify import Verifier, steady
from tests.services.stack import Stack

GRACE: Final = 2  # seconds: REGISTRY_GC_GRACE
LEASE: Final = 8  # seconds: REGISTRY_LEASE
RECYCLE_BIN: Final = 6  # seconds: REGISTRY_RECYCLE_BIN
SETTINGS: Final = {
    "REGISTRY_GC_GRACE": str(GRACE),
    "REGISTRY_LEASE": str(LEASE),
    "REGISTRY_RECYCLE_BIN": str(RECYCLE_BIN),
}
"""Of the product that is tested."""

_CUTS: Final = 0.02  # share of the requests whose connection is cut
_REPOSITORIES: Final = 3  # that the clients of one organization share
_BETWEEN_KILLS: Final = 10.0  # seconds, unless the caller says otherwise
_LONGEST: Final = 3600.0  # seconds for a number of events, at least
_REPORT: Final = 30.0  # seconds between two lines of progress
_COLLECTED: Final = 90.0  # seconds after which nothing unreferenced may be left


@dataclass(frozen=True, slots=True)
class Goal:
    """A run ends after this time, but not before so many events and kills."""

    seconds: float
    events: int = 0
    kills: int = 0

    @property
    def longest(self) -> float:
        """Seconds after which a run that has not reached the rest has failed."""
        return self.seconds if self.events == self.kills == 0 else max(self.seconds * 4, _LONGEST)


def soak_collector(
    nodes: Sequence[Stack],
    *,
    clients: int,
    goal: Goal,
    seed: int,
    between_kills: float = _BETWEEN_KILLS,
) -> Record:
    """Let clients do everything that changes references, while processes of the nodes are killed.

    The result contains all failures; the nodes still run.
    """
    chance, total = random.Random(seed), Record()
    layers, stop = SharedLayers(chance, due_after=GRACE + LEASE), threading.Event()
    secrets = [nodes[0].credentials.secret_key, _second_organization(nodes[0])]
    tenants = [_Tenant(nodes, secret, number) for number, secret in enumerate(secrets)]
    threads = []
    for number in range(clients):
        client = tenants[number % len(tenants)].client(number, random.Random(chance.random()), layers, stop)
        threads.append(threading.Thread(target=client.run, daemon=True))
    for thread in threads:
        thread.start()
    _kill_processes(nodes, chance, total, goal, between_kills, lambda: _events(tenants))
    stop_clients(threads, stop, total)
    for tenant in tenants:
        tenant.verify()
        total.add(tenant.record)
    _verify_collection(nodes[0], total)
    return total


class _Tenant:
    """An organization with a namespace, its clients, and what the registry acknowledged to them."""

    def __init__(self, nodes: Sequence[Stack], secret: str, number: int) -> None:
        control_url, namespace = nodes[0].credentials.control_url, f"soak-gc-{number}"
        self.record: Final = PromiseRecord()
        self._hosts, self._secret = [node.data_address for node in nodes], secret
        self._api = ManagementApi(control_url, secret, recycle_bin=RECYCLE_BIN)
        self._api.create_namespace(namespace)
        self._shared = [f"{namespace}/app-{number}" for number in range(_REPOSITORIES)]

    def client(
        self, number: int, chance: random.Random, layers: SharedLayers, stop: threading.Event
    ) -> SharingClient:
        """A client that does not run yet; the clients of an organization take turns with the nodes."""
        host = self._hosts[number // 2 % len(self._hosts)]
        connection = Connection(host, self._secret, chance, cuts=_CUTS)
        return SharingClient(
            number,
            connection,
            chance,
            self._shared,
            self.record,
            stop,
            layers=layers,
            lease=LEASE,
            api=self._api,
        )

    def verify(self) -> None:
        """Read everything that must be there."""
        repositories = {repository for repository, _ in self.record.manifests} | {*self._shared}
        Verifier(lambda: steady(self._hosts[0], self._secret), self.record).run(sorted(repositories))


def _events(tenants: Sequence[_Tenant]) -> int:
    return sum(tenant.record.events for tenant in tenants)


def _second_organization(stack: Stack) -> str:
    """The secret key of a robot in another organization."""
    printed = stack.manage(
        "create_key", "soak", "robot", "--permission-set", "ContainerRegistryFullAccess"
    ).stdout
    secret: str = json.loads(printed)["secret_key"]
    return secret


def _kill_processes(
    nodes: Sequence[Stack],
    chance: random.Random,
    record: Record,
    goal: Goal,
    between: float,
    events: Callable[[], int],
) -> None:
    """Kill a process of a worker, then one of the data plane, and so on, until the goal is reached."""
    began = reported = time.monotonic()
    kinds: Iterator[tuple[str, Callable[[Stack], Iterable[int]]]] = itertools.cycle(
        [("a worker process", worker_processes), ("a data process", data_processes)]
    )
    kills = 0
    while True:
        now = time.monotonic()
        if now - began >= goal.seconds and events() >= goal.events and kills >= goal.kills:
            return
        if now - began >= goal.longest:
            record.failed(f"only {events()} events and {kills} kills in {goal.longest:g} s")
            return
        if now - reported >= _REPORT:
            print(f"{now - began:6.0f} s {events():8} events {kills:4} kills", flush=True)
            reported = now
        left = goal.seconds - (now - began)
        time.sleep(min(between, left) if left > 0 else between)
        what, processes = next(kinds)
        found = [pid for node in nodes for pid in processes(node)]
        if found:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)
                record.count(f"kills of {what}")
                kills += 1


def _verify_collection(stack: Stack, record: Record) -> None:
    """Once leases and grace are over, database and store contain what manifests list, and nothing else."""
    expire_uploads(stack, record)
    deadline = time.monotonic() + _COLLECTED
    while (left := leftovers(stack)) and time.monotonic() < deadline:
        time.sleep(1)
    count_collected(stack, record)
    require_no_deadlocks(stack, record)
    for kind, names in left.items():
        record.failed(f"{len(names)} {kind}: {', '.join(names[:3])}")
