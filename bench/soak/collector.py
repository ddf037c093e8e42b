"""A soak test of garbage collection: shared layers lose and regain references while workers are killed."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from bench.soak.chaos import worker_processes
from bench.soak.connection import Connection
from bench.soak.layers import SharedLayers
from bench.soak.record import PromiseRecord, Record
from bench.soak.run import count_collected, expire_uploads, leftovers, stop_clients
from bench.soak.sharing import ManagementApi, SharingClient
from bench.soak.verify import Verifier, steady
from tests.services.stack import Stack

GRACE: Final = 2  # seconds: REGISTRY_GC_GRACE
LEASE: Final = 8  # seconds: REGISTRY_LEASE
SETTINGS: Final = {"REGISTRY_GC_GRACE": str(GRACE), "REGISTRY_LEASE": str(LEASE)}
"""Of the product that is tested."""

_CUTS: Final = 0.02  # share of the requests whose connection is cut
_REPOSITORIES: Final = 3  # that the clients of one organization share
_BETWEEN_KILLS: Final = 10.0  # seconds, unless the caller says otherwise
_COLLECTED: Final = 90.0  # seconds after which nothing unreferenced may be left


def soak_collector(
    nodes: Sequence[Stack],
    *,
    clients: int,
    seconds: float,
    seed: int,
    between_kills: float = _BETWEEN_KILLS,
) -> Record:
    """Push, mount, pull and delete on the first node while a worker of one of the nodes is killed at times.

    The result contains all failures; the nodes still run.
    """
    chance, stack, total = random.Random(seed), nodes[0], Record()
    layers, stop = SharedLayers(chance, due_after=GRACE + LEASE), threading.Event()
    tenants = [
        _Tenant(stack, secret, number)
        for number, secret in enumerate([stack.credentials.secret_key, _second_organization(stack)])
    ]
    threads = []
    for number in range(clients):
        client = tenants[number % len(tenants)].client(number, random.Random(chance.random()), layers, stop)
        threads.append(threading.Thread(target=client.run, daemon=True))
    for thread in threads:
        thread.start()
    _kill_workers(nodes, chance, total, seconds, between_kills)
    stop_clients(threads, stop, total)
    for tenant in tenants:
        tenant.verify()
        total.add(tenant.record)
    _verify_collection(stack, total)
    return total


class _Tenant:
    """An organization with a namespace, its clients, and what the registry acknowledged to them."""

    def __init__(self, stack: Stack, secret: str, number: int) -> None:
        credentials, namespace = stack.credentials, f"soak-gc-{number}"
        self.record: Final = PromiseRecord()
        self._host, self._secret = credentials.registry_host, secret
        self._api = ManagementApi(credentials.control_url, secret)
        self._api.create_namespace(namespace)
        self._shared = [f"{namespace}/app-{number}" for number in range(_REPOSITORIES)]
        self._repositories = [*self._shared]

    def client(
        self, number: int, chance: random.Random, layers: SharedLayers, stop: threading.Event
    ) -> SharingClient:
        """A client that does not run yet."""
        connection = Connection(self._host, self._secret, chance, cuts=_CUTS)
        made = SharingClient(
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
        self._repositories.append(made.own_repository)
        return made

    def verify(self) -> None:
        """Read everything that must be there."""
        Verifier(lambda: steady(self._host, self._secret), self.record).run(self._repositories)


def _second_organization(stack: Stack) -> str:
    """The secret key of a robot in another organization."""
    printed = stack.manage(
        "create_key", "soak", "robot", "--permission-set", "ContainerRegistryFullAccess"
    ).stdout
    secret: str = json.loads(printed)["secret_key"]
    return secret


def _kill_workers(
    nodes: Sequence[Stack], chance: random.Random, record: Record, seconds: float, between_kills: float
) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(between_kills, left))
        processes = [pid for node in nodes for pid in worker_processes(node)]
        if processes:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(processes), signal.SIGKILL)
                record.count("kills of a worker process")


def _verify_collection(stack: Stack, record: Record) -> None:
    """Once leases and grace are over, database and store contain what manifests list, and nothing else."""
    expire_uploads(stack, record)
    deadline = time.monotonic() + _COLLECTED
    while (left := leftovers(stack)) and time.monotonic() < deadline:
        time.sleep(1)
    count_collected(stack, record)
    for kind, names in left.items():
        record.failed(f"{len(names)} {kind}: {', '.join(names[:3])}")
