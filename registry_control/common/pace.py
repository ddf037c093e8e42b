"""How fast background work goes that could use all of a machine: it gives way to clients (ADR 66).

A thread works for a share of the time and sleeps for the rest. The share grows while the machine is idle and
is halved when there are signs of load. `Pace` is for batches of rows: a sign is a batch that takes much
longer than the fastest recent ones (the database, the storage or the machine is busy), or that the thread
waits for a processor. `ProcessorShare` is for transfers, whose speed the network decides: it knows the second
sign only, and limits processor time instead of elapsed time.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry_control.common.background import pause

LEAST_SHARE: Final = 0.05
MOST_SHARE: Final = 0.5
LEAST_PROCESSOR: Final = 0.05  # of a processor, for a transfer
LONGEST_PAUSE: Final = 2.0  # seconds

_FIRST_SHARE: Final = 0.2
_GROWTH: Final = 1.15
_SLOW: Final = 1.6  # times the time of the fastest recent batches
_FORGETTING: Final = 1.002  # for each batch: the fastest batch may have been fast for a reason that is gone
_WAITING: Final = 0.15  # share of the time in which the thread wanted a processor and had none
_CROWDED: Final = 0.3  # the same for transfers, whose own target or database may take a processor
_SLICE: Final = 0.05  # seconds between two looks at the processor time
_SCHEDULER: Final = Path("/proc/thread-self/schedstat")


@dataclass(slots=True)
class Pace:
    """The pace of one kind of work in one process. Not thread-safe: one thread works at a time."""

    share: float = _FIRST_SHARE
    fastest: float | None = None  # seconds for a row

    def after(self, *, seconds: float, rows: int, waited: float) -> float:
        """Adapt to a batch of rows, and return for how many seconds to pause after it.

        Args:
            seconds: how long the batch took.
            rows: how many rows it worked on, of the kind that takes the time; 0: do not compare the time.
            waited: the share of its running time in which the thread waited for a processor.
        """
        is_loaded = waited > _WAITING
        if rows:
            each = seconds / rows
            self.fastest = each if self.fastest is None else min(each, self.fastest * _FORGETTING)
            is_loaded |= each > self.fastest * _SLOW
        self.share = _adapted(self.share, is_loaded=is_loaded, least=LEAST_SHARE, most=MOST_SHARE)
        return min(seconds * (1 / self.share - 1), LONGEST_PAUSE)

    @contextmanager
    def batch(self) -> Iterator["Batch"]:
        """Measure a batch, and pause after it if there is more to do."""
        batch = Batch()
        began, ran, waited = time.monotonic(), *_scheduled()
        yield batch
        seconds = time.monotonic() - began
        ran_after, waited_after = _scheduled()
        wanted = ran_after - ran + waited_after - waited
        share = (waited_after - waited) / wanted if wanted > 0 else 0.0
        if batch.has_more:
            pause(self.after(seconds=seconds, rows=batch.rows, waited=share))


@dataclass(slots=True)
class Batch:
    """What the body reports."""

    rows: int = 0
    has_more: bool = False


class ProcessorShare(threading.local):
    """How much of a processor a thread may use: a whole one, less while it has to wait for one.

    Each thread has values of its own.
    """

    def __init__(self) -> None:
        self.share = _FIRST_SHARE
        self._looked_at = time.monotonic()
        self._ran, self._waited = _scheduled()

    def give_way(self) -> None:
        """Pause if the thread has used its share. Cheap: called for each piece of a transfer.

        The caller must hold no lock that a request needs.
        """
        seconds = time.monotonic() - self._looked_at
        if seconds < _SLICE:
            return
        ran, waited = _scheduled()
        pause(self.after(seconds=seconds, ran=(ran - self._ran) / 1e9, waited=(waited - self._waited) / 1e9))
        self._looked_at = time.monotonic()
        self._ran, self._waited = _scheduled()

    def after(self, *, seconds: float, ran: float, waited: float) -> float:
        """Adapt to some work, and return for how many seconds to pause after it.

        Args:
            seconds: how long the work took.
            ran: the seconds of it in which the thread ran.
            waited: the seconds of it in which the thread waited for a processor.
        """
        is_loaded = waited > (ran + waited) * _CROWDED
        self.share = _adapted(self.share, is_loaded=is_loaded, least=LEAST_PROCESSOR, most=1.0)
        return min(max(ran / self.share - seconds, 0.0), LONGEST_PAUSE)


def _adapted(share: float, *, is_loaded: bool, least: float, most: float) -> float:
    return min(max(share / 2 if is_loaded else share * _GROWTH, least), most)


def _scheduled() -> tuple[int, int]:
    """Nanoseconds for which this thread ran, and for which it waited for a processor; zeros if unknown."""
    try:
        ran, waited, _ = _SCHEDULER.read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(ran), int(waited)
