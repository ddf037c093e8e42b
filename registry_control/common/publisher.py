"""Sends messages to the broker from a background thread."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.02  # seconds between two messages; a burst of requests for one task becomes one message
_FIRST_RETRY: Final = 0.5  # seconds
_LONGEST_RETRY: Final = 10.0


class Publisher:
    """Publishes names of tasks; each name waits at most once, so an unusable broker costs no memory.

    The thread starts with the first name in each process, forked ones included. It retries with back-off
    for as long as the process lives. The names that wait are lost with the process: the beat enqueues every
    task again.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        """`send` publishes one name; it may block and may raise any exception."""
        self._send = send
        self._changed = threading.Condition()
        self._waiting: dict[str, None] = {}  # an ordered set
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._reset)

    def enqueue(self, name: str) -> None:
        """Publish `name` soon. Returns at once."""
        with self._changed:
            self._waiting[name] = None
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="publisher", daemon=True)
                thread.start()  # If this raises, the next call tries again.
                self._thread = thread
            self._changed.notify()

    def _reset(self) -> None:
        """A forked process has no thread, and perhaps a lock that a thread of its parent held."""
        self._changed = threading.Condition()
        self._waiting = {}
        self._thread = None

    def _run(self) -> None:
        failures = 0
        while True:
            name = self._next()
            try:
                self._send(name)
            except Exception as error:  # noqa: BLE001 - clients of brokers raise many kinds, and no request waits
                failures += 1
                delay = min(_FIRST_RETRY * 2 ** (failures - 1), _LONGEST_RETRY)
                logger.warning("the broker did not accept %s, next attempt in %g s: %s", name, delay, error)
                self._put_back(name)
                time.sleep(delay * random.uniform(0.8, 1))  # noqa: S311 - jitter
            else:
                failures = 0
                time.sleep(_INTERVAL)

    def _next(self) -> str:
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            name = next(iter(self._waiting))
            del self._waiting[name]
            return name

    def _put_back(self, name: str) -> None:
        with self._changed:
            self._waiting[name] = None
