"""How fast background work goes that could use all of a machine: it gives way to clients (ADR 66).

A thread works for a share of the time and sleeps for the rest. The share grows while the machine is idle and
is halved when there are signs of load: a batch takes much longer than the fastest recent ones (the database,
the storage or the machine is busy), or the thread waits for a processor.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry_control.common.background import pause

LEAST_SHARE: Final = 0.05
MOST_SHARE: Final = 0.5
LONGEST_PAUSE: Final = 2.0  # seconds

_FIRST_SHARE: Final = 0.2
_GROWTH: Final = 1.15
_SLOW: Final = 1.6  # times the time of the fastest recent batches
_FORGETTING: Final = 1.002  # for each batch: the fastest batch may have been fast for a reason that is gone
_WAITING: Final = 0.15  # share of the time in which the thread wanted a processor and had none
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
        self.share = self.share / 2 if is_loaded else self.share * _GROWTH
        self.share = min(max(self.share, LEAST_SHARE), MOST_SHARE)
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


def _scheduled() -> tuple[int, int]:
    """Nanoseconds for which this thread ran, and for which it waited for a processor; zeros if unknown."""
    try:
        ran, waited, _ = _SCHEDULER.read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(ran), int(waited)
