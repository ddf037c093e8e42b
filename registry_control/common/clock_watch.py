"""Notices when the clock that leases and grace periods are compared with jumps (ADR 66).

That clock is the database server's, or with SQLite the machine's. After a jump forward, content and leases
look older than they are: whoever deletes by age asks `check` first and waits while it has a reason. After a
jump backward, times in the database lie in the future: `needs_repair` says that they have to be corrected.
"""

import logging
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.conf import settings
from django.db import transaction

from registry_control.common.clock import database_now
from registry_control.common.models import ClockWatch

logger = logging.getLogger(__name__)

TOLERANCE: Final = timedelta(seconds=60)
"""Clocks are adjusted in small steps all the time."""

CONFIRMATION: Final = 10.0
"""Seconds without a process that sees another time, after which a time after a gap is taken for right."""

_WRITE_EVERY: Final = timedelta(seconds=5)
_ONLY_ROW: Final = 1


@dataclass(frozen=True, slots=True)
class Reading:
    """The clock at a moment, and the seconds since the machine was started, which no one can set."""

    time: datetime
    ticks: float


@dataclass(frozen=True, slots=True)
class Shared:
    """What the processes of an installation share about the clock."""

    seen: datetime  # the last time that one of them saw
    held_until: datetime | None = None
    reason: str = ""
    needs_repair: bool = False  # times in the database may lie in the future


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process remembers."""

    last: Reading | None = None
    doubted: Shared | None = None  # what the others share, while this process sees another time
    doubted_since: float = 0.0  # ticks


def assess(
    current: Reading, shared: Shared, memory: Memory, *, longest: timedelta
) -> tuple[Shared, Memory, str]:
    """Compare a reading with the last one of this process and with what other processes saw.

    Args:
        current: the clock now.
        shared: what the processes share.
        memory: what this process remembers.
        longest: for how long a jump can make content go too early: the grace period and the lease.

    Returns:
        What to share and to remember, and why nothing may be deleted by its age; empty if it may.
    """
    if memory.last is not None and memory.doubted is None:
        elapsed = timedelta(seconds=current.ticks - memory.last.ticks)
        jump = current.time - memory.last.time - elapsed
        if jump > TOLERANCE:
            shared = _hold(current, shared, jump, longest)
            return shared, Memory(current), shared.reason
        if jump < -TOLERANCE:
            return Shared(current.time, needs_repair=True), Memory(current), ""
        if shared.seen <= memory.last.time:  # no other process has seen anything since
            return replace(shared, seen=current.time), Memory(current), _held(current, shared)
    difference = current.time - shared.seen
    if abs(difference) <= TOLERANCE:
        return (
            replace(shared, seen=max(current.time, shared.seen)),
            Memory(current),
            _held(current, shared),
        )
    if memory.doubted is None or memory.doubted.seen != shared.seen:
        return shared, Memory(current, shared, current.ticks), _doubt(difference)
    if current.ticks - memory.doubted_since < CONFIRMATION:
        return shared, replace(memory, last=current), _doubt(difference)
    if difference < timedelta(0):
        return Shared(current.time, needs_repair=True), Memory(current), ""
    return replace(shared, seen=current.time), Memory(current), _held(current, shared)


def _hold(current: Reading, shared: Shared, jump: timedelta, longest: timedelta) -> Shared:
    until = current.time + min(jump, longest)
    reason = (
        f"the clock jumped forward by {_seconds(jump)} s and content looks older than it is;"
        f" nothing is deleted by its age until {until.isoformat()}"
    )
    if shared.held_until is not None and shared.held_until >= until - TOLERANCE:
        return replace(shared, seen=current.time)  # another process noticed the same jump
    return replace(shared, seen=current.time, held_until=until, reason=reason)


def _held(current: Reading, shared: Shared) -> str:
    return shared.reason if shared.held_until is not None and current.time < shared.held_until else ""


def _doubt(difference: timedelta) -> str:
    return (
        f"the clock differs by {_seconds(difference)} s from the time that the registry saw last;"
        " nothing is deleted by its age until that is confirmed"
    )


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


_lock: Final = threading.Lock()
_memory = Memory()
_last_reason = ""


class Status(NamedTuple):
    """The outcome of a check."""

    reason: str  # why nothing may be deleted by its age at present; empty if it may
    needs_repair: bool


def check() -> Status:
    """Read the clock. For processes that call this every few seconds, and for commands."""
    global _memory, _last_reason
    with _lock:
        current = Reading(database_now(), _ticks())
        shared = read()
        found = shared or Shared(current.time)
        longest = settings.GC_GRACE + settings.BLOB_LEASE
        after, _memory, reason = assess(current, found, _memory, longest=longest)
        if shared is None or replace(after, seen=found.seen) != found or _is_due(after, found):
            _write(after)
        if reason != _last_reason:
            logger.error("%s", reason) if reason else logger.warning("the clock is taken for right again")
        _last_reason = reason
        return Status(reason, after.needs_repair)


def read() -> Shared | None:
    """What the processes share; None before one of them has read the clock."""
    row = ClockWatch.objects.filter(pk=_ONLY_ROW).first()
    return None if row is None else Shared(row.seen_at, row.held_until, row.reason, row.needs_repair)


def shared_reason() -> str:
    """Why nothing may be deleted by its age, as far as all processes know."""
    found = read()
    return "" if found is None else _held(Reading(database_now(), 0.0), found)


@transaction.atomic
def end_hold() -> None:
    """Delete by age again, because an operator says that the clock is right. Idempotent."""
    ClockWatch.objects.filter(pk=_ONLY_ROW).update(held_until=None, reason="")


@transaction.atomic
def repaired() -> None:
    """Times in the database that lay in the future have been corrected."""
    ClockWatch.objects.filter(pk=_ONLY_ROW).update(needs_repair=False)


def _is_due(after: Shared, found: Shared) -> bool:
    return abs(after.seen - found.seen) >= _WRITE_EVERY


@transaction.atomic
def _write(shared: Shared) -> None:
    ClockWatch.objects.update_or_create(
        pk=_ONLY_ROW,
        defaults={
            "seen_at": shared.seen,
            "held_until": shared.held_until,
            "reason": shared.reason,
            "needs_repair": shared.needs_repair,
        },
    )


def _ticks() -> float:
    """Seconds since the start of the machine, with the time that it slept where the system counts that."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
