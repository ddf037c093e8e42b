"""The rules of scrubbing and reconciling: pure functions of facts, without I/O and without a clock."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

MIB: Final = 1024 * 1024
BLOB_OVERHEAD: Final = 16 * 1024
"""Bytes that opening a blob counts as, so that a million small blobs are not read in one second."""
SLOWEST: Final = 8 * MIB
FASTEST: Final = 512 * MIB
HEADROOM: Final = 2
"""Content is due again after half of the period, and read twice as fast as the period needs."""
LONGEST_GAP: Final = timedelta(seconds=30)
"""After a longer pause, a slice does not make up for all of it at once."""
CONFIRM_AFTER: Final = timedelta(seconds=10)
"""Time from a first look that found content missing to the second one."""
FEWEST_SUSPICIOUS: Final = 10
"""Fewer missing objects than these are plausible, whatever their share is."""

SLOWEST_LOOKS: Final = 50
"""Rows and objects per second that are compared at least, and"""
FASTEST_LOOKS: Final = 2000
"""at most."""
LATER: Final = timedelta(minutes=5)
"""Time until a pass goes on that stopped because the storage or the database is likely the wrong one."""

_FIRST_RETRY: Final = timedelta(seconds=30)
LAST_RETRY: Final = timedelta(hours=1)
LAST_RECHECK: Final = timedelta(days=1)


class Content(StrEnum):
    """What a look at the stored content of a blob found."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    """The content was read to its end, and has another size or digest."""

    MISSING = "missing"
    """The storage says that it has no such content."""

    UNKNOWN = "unknown"
    """The storage failed: nothing follows from it (invariant 7)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one look, with what was found instead, or the storage's error."""

    content: Content
    detail: str = ""


def cost(size: int) -> int:
    """The bytes that reading a blob takes from the budget."""
    return size + BLOB_OVERHEAD


def rate(*, blobs: int, size: int, period: timedelta) -> int:
    """The bytes per second to read so that everything is read within the period, with headroom."""
    needed = HEADROOM * (size + blobs * BLOB_OVERHEAD) / max(period.total_seconds(), 1)
    return int(min(max(needed, SLOWEST), FASTEST))


def budget(bytes_per_second: int, since_last: timedelta) -> int:
    """The bytes to read now, when the last slice began so long ago."""
    gap = min(max(since_last, timedelta(seconds=1)), LONGEST_GAP)
    return int(bytes_per_second * gap.total_seconds())


def is_suspicious(*, missing: int, examined: int) -> bool:
    """Whether so many of the examined objects are missing that the storage itself is likely the wrong one.

    For example a disk that is not mounted, or another bucket.
    """
    return missing >= FEWEST_SUSPICIOUS and missing * 2 > examined


def looks(*, number: int, period: timedelta, since_last: timedelta) -> int:
    """The rows or objects to compare now, so that so many are compared twice within the period."""
    needed = 2 * HEADROOM * number / max(period.total_seconds(), 1)
    gap = min(max(since_last, timedelta(seconds=1)), LONGEST_GAP)
    return int(min(max(needed, SLOWEST_LOOKS), FASTEST_LOOKS) * gap.total_seconds())


def retry_after(attempts: int) -> timedelta:
    """The time until a look that failed is repeated, after `attempts` in all."""
    return min(_FIRST_RETRY * (1 << min(max(attempts - 1, 0), 10)), LAST_RETRY)


def confirm_after(content: Content) -> timedelta:
    """The time from a look that found this until the one that confirms it."""
    return CONFIRM_AFTER if content is Content.MISSING else timedelta(0)


def recheck_after(attempts: int) -> timedelta:
    """The time until quarantined content is looked at again, in case that it was restored."""
    return min(_FIRST_RETRY * (1 << min(2 * max(attempts - 1, 0), 20)), LAST_RECHECK)
