"""Collects the pulls that a process serves, and records them in the background (ADR 61)."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from django.db import connection

from registry_control.catalog.services import pulls
from registry_control.catalog.services.pulls import Pull as Pull
from registry_control.catalog.services.pulls import Recorded

logger = logging.getLogger(__name__)

CAPACITY: Final = 32_768
"""Different pulls that wait to be recorded; further ones are dropped and counted. As many that were recorded
are remembered. Both together take about 27 MB."""

_INTERVAL: Final = 5.0  # seconds between two flushes: kill -9 loses the pulls of so long at most
_LONGEST: Final = 300.0  # seconds after which a failed flush is repeated
_BATCH: Final = 100  # pulls in one transaction, which takes some milliseconds
_REST: Final = 4  # times the duration of a batch, after it: clients get at least four fifths of the time
_LAST_ATTEMPTS: Final = 3  # at the stop of the process, for rows that are locked
_STOP_TIME: Final = 4.0  # seconds, after which the stop of the process no longer waits for the database


class PullRecorder:
    """The pulls of one process.

    `note` is called on the event loop for each pull and stores one item of a dict. A thread, with a database
    connection that it closes after each flush, records the items. Both use only atomic operations of a dict,
    so they need no lock.
    """

    def __init__(
        self,
        record: Callable[[Mapping[Pull, float]], Recorded] = pulls.record,
        *,
        interval: float = _INTERVAL,
        stop_time: float = _STOP_TIME,
    ) -> None:
        """`record` writes a batch of pulls, given how many seconds ago each happened."""
        self._record = record
        self._interval, self._stop_time = interval, stop_time
        self._pending: dict[Pull, float] = {}  # to the time of the last pull (time.monotonic)
        # Pulls before this time (time.monotonic) need not be recorded. The oldest entries come first.
        self._fresh_until: dict[Pull, float] = {}
        self._dropped = 0
        self._wake = threading.Event()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, pull: Pull) -> None:
        """Note a pull of this moment."""
        pending = self._pending
        if len(pending) < CAPACITY // 2:
            pending[pull] = time.monotonic()
        else:
            self._note_in_crowd(pull)
        if self._thread is None:  # not earlier: a server's processes are forked before their first request
            thread = threading.Thread(target=self._run, name="pulls", daemon=True)
            thread.start()  # If this raises, the next call tries again.
            self._thread = thread

    def _note_in_crowd(self, pull: Pull) -> None:
        self._wake.set()
        if pull in self._pending or len(self._pending) < CAPACITY:
            self._pending[pull] = time.monotonic()
        else:
            self._dropped += 1

    def close(self) -> None:
        """Record what waits, if the database takes it soon, and end the thread."""
        self._is_closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=self._stop_time)

    def _run(self) -> None:
        wait = self._interval
        while not self._is_closed.is_set():
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._flush():
                wait = self._interval
            else:
                wait = min(wait * 2, _LONGEST)
                self._is_closed.wait(wait)
        for _ in range(_LAST_ATTEMPTS):
            if not self._pending or not self._flush():
                return

    def _flush(self) -> bool:
        """Record what is pending now; False if the database does not take it."""
        try:
            for _ in range(0, len(self._pending), _BATCH):
                began = time.monotonic()
                self._record_batch()
                self._is_closed.wait(_REST * (time.monotonic() - began))
        except Exception as error:  # noqa: BLE001 - the thread must go on, whatever the database reports
            logger.warning("last-pulled times are kept for a later attempt to write them: %s", error)
            return False
        finally:
            connection.close()
        dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning("%d pulls were not recorded: too many different ones at once", dropped)
        return True

    def _record_batch(self) -> None:
        batch = self._take_batch()
        if not batch:
            return
        began = time.monotonic()
        try:
            outcome = self._record({pull: began - at for pull, at in batch.items()})
        except BaseException:
            self._put_back(batch)
            raise
        self._put_back({pull: batch[pull] for pull in outcome.locked})
        for pull, seconds in outcome.fresh_for.items():
            self._fresh_until.pop(pull, None)
            self._fresh_until[pull] = began + seconds
        while len(self._fresh_until) > CAPACITY:
            del self._fresh_until[next(iter(self._fresh_until))]

    def _take_batch(self) -> dict[Pull, float]:
        """Remove pulls that need to be recorded from `_pending`, and those before them that do not."""
        batch: dict[Pull, float] = {}
        for _ in range(len(self._pending)):
            pull, at = self._pending.popitem()
            if at >= self._fresh_until.get(pull, 0.0):
                batch[pull] = at
                if len(batch) == _BATCH:
                    break
        return batch

    def _put_back(self, batch: Mapping[Pull, float]) -> None:
        for pull, at in batch.items():
            self._pending.setdefault(pull, at)  # there may be a later pull by now
