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

_PAUSE: Final = (1.0, 5.0)  # seconds between two misfortunes, at least and at most
_RESTARTS: Final = 0.08  # share of the misfortunes that hit the whole product
_ROLES: Final = 0.08  # share that hit one of its three processes with all its children
_STOPPED: Final = 1.0  # seconds without a product, at most


class Chaos:
    """Must stay in one thread: the product ends with the thread that has started it."""

    def __init__(self, stack: Stack, chance: random.Random, record: Record) -> None:
        self._stack = stack
        self._chance = chance
        self._record = record
        self.most_memory = 0
        """Bytes that the data processes held at the worst moment seen."""

    def rage(self, seconds: float, over: threading.Event) -> None:
        """Do it for so long, or until it is over."""
        deadline = time.monotonic() + seconds
        while not over.wait(min(self._chance.uniform(*_PAUSE), max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return
            self.most_memory = max(self.most_memory, data_memory(self._stack))
            self._misfortune()

    def _misfortune(self) -> None:
        choice = self._chance.random()
        if choice < _RESTARTS:
            self.restart(kindly=self._chance.random() < 0.5)
        elif choice < _RESTARTS + _ROLES:
            self._kill(
                self._chance.choice(list(_children(self._stack, "manage.py serve"))), "kills of a role"
            )
        elif workers := data_processes(self._stack):
            self._kill(self._chance.choice(list(workers)), "kills of a data process")

    def restart(self, *, kindly: bool) -> None:
        """End all of it, by SIGTERM or kill -9, and start it again after a moment."""
        if kindly:
            self._stack.stop()
        else:
            self._stack.kill()
        self._record.count("restarts after SIGTERM" if kindly else "restarts after kill -9 of everything")
        time.sleep(self._chance.uniform(0, _STOPPED))
        self._stack.start()

    def _kill(self, pid: int, what: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self._record.count(what)


def data_processes(stack: Stack) -> dict[int, str]:
    """Those that answer the data plane's requests: what `serve data` has started."""
    return {
        pid: command for main in _children(stack, "serve data") for pid, command in descendants(main).items()
    }


def data_memory(stack: Stack) -> int:
    """Bytes that they hold together."""
    total = 0
    for pid in data_processes(stack):
        with suppress(OSError):
            total += resident_bytes(pid)
    return total


def _children(stack: Stack, words: str) -> list[int]:
    """What `up` itself has started; parents come first, and their children have the same words."""
    found = [pid for pid, command in stack.processes().items() if words in command]
    below = {child for pid in found for child in descendants(pid)}
    return [pid for pid in found if pid not in below]
