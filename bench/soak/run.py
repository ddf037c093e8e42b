"""One soak of one product: work and misfortune, then the reckoning."""

import json
import random
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Final
from urllib.request import Request, urlopen

from bench.soak.chaos import Chaos, data_memory
from bench.soak.client import Client
from bench.soak.connection import Connection
from bench.soak.record import Record
from bench.soak.verify import Verifier, steady
from tests.services.child import ServiceError
from tests.services.stack import ROOT, Stack

_NAMESPACE: Final = "soak"
_REPOSITORIES: Final = tuple(f"{_NAMESPACE}/app-{number}" for number in range(8))
_CUTS: Final = 0.03  # share of the requests whose connection is cut
_END: Final = 120.0  # seconds in which the last request of each client ends
_REST: Final = 120.0  # seconds in which the worker has done all there is to do


def soak(stack: Stack, *, clients: int, seconds: float, seed: int) -> Record:
    """Torment a running product for so long, then look at every promise and at what is left.

    The result has all failures; the product still runs.
    """
    record, chance = Record(), random.Random(seed)
    _create_namespace(stack)
    begun_with = data_memory(stack)
    most = _torment(stack, record, chance, clients=clients, seconds=seconds)
    Chaos(stack, chance, record).restart(kindly=False)
    credentials = stack.credentials
    Verifier(lambda: steady(credentials.registry_host, credentials.secret_key), record).run(_REPOSITORIES)
    ended_with = data_memory(stack)
    record.counts.update(
        {
            "MiB in the data processes at the start": begun_with >> 20,
            "MiB in them at the worst moment": most >> 20,
            "MiB in them at the end": ended_with >> 20,
        }
    )
    _let_it_rest(stack, record)
    return record


def _torment(stack: Stack, record: Record, chance: random.Random, *, clients: int, seconds: float) -> int:
    """Returns the most memory that the data processes were seen to have, in bytes."""
    credentials, over = stack.credentials, threading.Event()
    workers = []
    for number in range(clients):
        own = random.Random(chance.random())
        connection = Connection(credentials.registry_host, credentials.secret_key, own, cuts=_CUTS)
        client = Client(number, connection, own, _REPOSITORIES, record, over)
        workers.append(threading.Thread(target=client.run, daemon=True))
        workers[-1].start()
    chaos = Chaos(stack, chance, record)
    try:
        chaos.rage(seconds, over)
    except ServiceError as error:
        record.failed(f"the product itself: {error}")
        if not stack.is_running:
            stack.start()
    over.set()
    deadline = time.monotonic() + _END
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    if stuck := sum(worker.is_alive() for worker in workers):
        record.failed(f"{stuck} clients still wait for an answer after {_END:g} s")
    return chaos.most_memory


def _create_namespace(stack: Stack) -> None:
    credentials = stack.credentials
    headers = {"X-Auth-Token": credentials.secret_key, "Content-Type": "application/json"}
    url = f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces"
    with closing(urlopen(Request(url, json.dumps({"name": _NAMESPACE}).encode(), headers))) as answer:
        answer.read()


def _let_it_rest(stack: Stack, record: Record) -> None:
    """Let every upload be over; soon there must be nothing that has no reason to be."""
    record.counts["uploads left to expire"] = int(_inside(stack, "expire"))
    stack.restart()  # A worker begins with everything that there is to do.
    deadline = time.monotonic() + _REST
    while (left := _left(stack)) and time.monotonic() < deadline:
        time.sleep(1)
    for kind, names in left.items():
        record.failed(f"{len(names)} {kind}: {', '.join(names[:3])}")


def _left(stack: Stack) -> dict[str, list[str]]:
    """What should not be there, by kind."""
    found: dict[str, list[str]] = json.loads(_inside(stack, "look"))
    return {kind: names for kind, names in found.items() if names}


def _inside(stack: Stack, verb: str) -> str:
    command = [sys.executable, "-m", "bench.soak.inside", verb]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
