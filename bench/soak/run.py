"""One soak test of a product: load and disruptions, then the verification."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final
from urllib.request import Request, urlopen

from bench.soak.chaos import PAUSES, Chaos, data_memory
from bench.soak.client import Client
from bench.soak.connection import Connection
from bench.soak.record import Record
from bench.soak.verify import Verifier, steady
from tests.services.child import ServiceError
from tests.services.stack import ROOT, Stack

_NAMESPACE: Final = "soak"
_REPOSITORIES: Final = tuple(f"{_NAMESPACE}/app-{number}" for number in range(8))
_CUTS: Final = 0.03  # share of the requests whose connection is cut
_END: Final = 120.0  # seconds in which the last request of each client must end
_CLEANUP: Final = 120.0  # seconds in which the worker must have completed all tasks


def soak(
    stack: Stack, *, clients: int, seconds: float, seed: int, pauses: tuple[float, float] = PAUSES
) -> Record:
    """Run clients and disruptions for this long, then verify what was acknowledged and what remains.

    The pauses between disruptions have `pauses` seconds, at least and at most. The result contains all
    failures; the product still runs.
    """
    record, chance = Record(), random.Random(seed)
    _create_namespace(stack)
    memory_before = data_memory(stack)
    most = _run_clients(stack, record, chance, clients=clients, seconds=seconds, pauses=pauses)
    Chaos(stack, chance, record).restart(gracefully=False)
    credentials = stack.credentials
    Verifier(lambda: steady(credentials.registry_host, credentials.secret_key), record).run(_REPOSITORIES)
    memory_after = data_memory(stack)
    record.counts.update(
        {
            "MiB in the data processes at the start": memory_before >> 20,
            "MiB in them at the peak": most >> 20,
            "MiB in them at the end": memory_after >> 20,
        }
    )
    _verify_cleanup(stack, record)
    return record


def _run_clients(
    stack: Stack,
    record: Record,
    chance: random.Random,
    *,
    clients: int,
    seconds: float,
    pauses: tuple[float, float],
) -> int:
    """Return the highest memory of the data processes that was observed, in bytes."""
    credentials, stop = stack.credentials, threading.Event()
    workers = []
    for number in range(clients):
        own = random.Random(chance.random())
        connection = Connection(credentials.registry_host, credentials.secret_key, own, cuts=_CUTS)
        client = Client(number, connection, own, _REPOSITORIES, record, stop)
        workers.append(threading.Thread(target=client.run, daemon=True))
        workers[-1].start()
    chaos = Chaos(stack, chance, record)
    try:
        chaos.run(seconds, stop, pauses=pauses)
    except ServiceError as error:
        record.failed(f"the product itself: {error}")
        if not stack.is_running:
            stack.start()
    stop_clients(workers, stop, record)
    return chaos.peak_memory


def stop_clients(clients: Sequence[threading.Thread], stop: threading.Event, record: Record) -> None:
    """Let each client complete its request and end."""
    stop.set()
    deadline = time.monotonic() + _END
    for client in clients:
        client.join(max(0.0, deadline - time.monotonic()))
    if stuck := sum(client.is_alive() for client in clients):
        record.failed(f"{stuck} clients still wait for a response after {_END:g} s")


def _create_namespace(stack: Stack) -> None:
    credentials = stack.credentials
    headers = {"X-Auth-Token": credentials.secret_key, "Content-Type": "application/json"}
    url = f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces"
    with closing(urlopen(Request(url, json.dumps({"name": _NAMESPACE}).encode(), headers))) as response:
        response.read()


def _verify_cleanup(stack: Stack, record: Record) -> None:
    """Expire every upload; soon there must be no temporary rows or files."""
    expire_uploads(stack, record)
    stack.restart()  # A worker starts with all pending tasks.
    deadline = time.monotonic() + _CLEANUP
    while (left := leftovers(stack)) and time.monotonic() < deadline:
        time.sleep(1)
    for kind, names in left.items():
        record.failed(f"{len(names)} {kind}: {', '.join(names[:3])}")


def expire_uploads(stack: Stack, record: Record) -> None:
    """Expire all upload sessions now, so that the worker deletes them."""
    record.counts["uploads left to expire"] = int(_inside(stack, "expire"))


def count_collected(stack: Stack, record: Record) -> None:
    """Count the blobs that garbage collection has removed."""
    record.counts["blobs collected"] = int(_inside(stack, "collected"))


def require_no_deadlocks(stack: Stack, record: Record) -> None:
    """A deadlock is a fault in the order of locks (invariant 11), though the client's request is repeated."""
    if number := int(_inside(stack, "deadlocks")):
        record.failed(f"{number} deadlocks in the database")


def leftovers(stack: Stack) -> dict[str, list[str]]:
    """Temporary rows and files by kind; empty lists are left out."""
    found: dict[str, list[str]] = json.loads(_inside(stack, "leftovers"))
    return {kind: names for kind, names in found.items() if names}


def _inside(stack: Stack, verb: str) -> str:
    command = [sys.executable, "-m", "bench.soak.inside", verb]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
