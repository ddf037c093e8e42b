"""Kills and restarts, at random, while clients work."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from typing import Final

from bench.soak.record import Record
from tests.services.processes import descendants, resident_bytes
from tests.services.stack import Stack

PAUSES: Final = (1.0, 5.0)  # seconds between two disruptions, at least and at most
_RESTARTS: Final = 0.08  # share of the disruptions that affect the whole product
_ROLES: Final = 0.08  # share that affect one of its three processes with all its children
_STOPPED: Final = 1.0  # seconds in which the product is stopped, at most


class Chaos:
    """Use it in one thread only: the product ends with the thread that has started it."""

    def __init__(self, stack: Stack, chance: random.Random, record: Record) -> None:
        self._stack = stack
        self._chance = chance
        self._record = record
        self.peak_memory = 0
        """The highest memory of the data processes that was observed, in bytes."""

    def run(self, seconds: float, stop: threading.Event, *, pauses: tuple[float, float] = PAUSES) -> None:
        """Cause disruptions for this long, or until `stop` is set."""
        deadline = time.monotonic() + seconds
        while not stop.wait(min(self._chance.uniform(*pauses), max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return
            self.peak_memory = max(self.peak_memory, data_memory(self._stack))
            self._disrupt()

    def _disrupt(self) -> None:
        choice = self._chance.random()
        if choice < _RESTARTS:
            self.restart(gracefully=self._chance.random() < 0.5)
        elif choice < _RESTARTS + _ROLES:
            self._kill(
                self._chance.choice(list(_children(self._stack, "manage.py serve"))), "kills of a role"
            )
        elif workers := data_processes(self._stack):
            self._kill(self._chance.choice(list(workers)), "kills of a data process")

    def restart(self, *, gracefully: bool) -> None:
        """Stop the whole product, with SIGTERM or SIGKILL, and start it again after a delay."""
        if gracefully:
            self._stack.stop()
        else:
            self._stack.kill()
        self._record.count("restarts after SIGTERM" if gracefully else "restarts after kill -9 of everything")
        time.sleep(self._chance.uniform(0, _STOPPED))
        self._stack.start()

    def _kill(self, pid: int, what: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self._record.count(what)


def data_processes(stack: Stack) -> dict[int, str]:
    """The worker processes of the data plane: the descendants of `serve data`."""
    return {
        pid: command for main in _children(stack, "serve data") for pid, command in descendants(main).items()
    }


def worker_processes(stack: Stack) -> list[int]:
    """All processes of `serve worker`."""
    mains = _children(stack, "serve worker")
    return [*mains, *(pid for main in mains for pid in descendants(main))]


def data_memory(stack: Stack) -> int:
    """Their resident memory in bytes, in total."""
    total = 0
    for pid in data_processes(stack):
        with suppress(OSError):
            total += resident_bytes(pid)
    return total


def _children(stack: Stack, words: str) -> list[int]:
    """The children of `up`; their own children have the same command line, and are left out."""
    found = [pid for pid, command in stack.processes().items() if words in command]
    below = {child for pid in found for child in descendants(pid)}
    return [pid for pid in found if pid not in below]
