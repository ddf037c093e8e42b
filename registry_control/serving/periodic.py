"""Calls a function periodically in a thread."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from django.db import close_old_connections, connections

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 2.0  # seconds


def _nothing() -> None:
    pass


class Periodic:
    """A thread that calls a function every `interval` seconds, also after a call has failed."""

    def __init__(
        self,
        name: str,
        call: Callable[[], None],
        *,
        interval: float,
        at_end: Callable[[], None] = _nothing,
    ) -> None:
        """Does not start the thread. `at_end` is called by the same thread after the last call."""
        self._name = name
        self._call = call
        self._at_end = at_end
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, which makes the first call immediately."""
        self._thread.start()

    def stop(self) -> None:
        """Stop calling; waits for a running call, but only a few seconds, in case the database hangs."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._guard(self._call)
                self._stopped.wait(self._interval)
            self._guard(self._at_end)
        finally:
            connections.close_all()

    def _guard(self, call: Callable[[], None]) -> None:
        close_old_connections()
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the next call may succeed
            logger.warning("%s failed, next attempt in %g s: %s", self._name, self._interval, error)
