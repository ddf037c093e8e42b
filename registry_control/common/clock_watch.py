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

_MOST: Final = timedelta(days=36_500)
_WRITE_EVERY: Final = timedelta(seconds=5)
_ONLY_ROW: Final = 1
_PAUSE: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """The clock at a moment, and the seconds since the machine was started, which no one can set."""

    time: datetime
    ticks: float


@dataclass(frozen=True, slots=True)
class Shared:
    """What the processes of an installation share about the clock."""

    seen: datetime  # the last time that one of them saw
    held_since: datetime | None = None  # when the clock jumped forward, by its new time
    held_until: datetime | None = None  # by so much content from before looks older than it is
    reason: str = ""  # the jump in words
    needs_repair: bool = False  # times in the database may lie in the future
    longest_lease: timedelta = timedelta(0)  # that their settings have ever granted


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process remembers."""

    last: Reading | None = None
    doubted: Shared | None = None  # what the others share, while this process sees another time
    doubted_since: float = 0.0  # ticks


def assess(current: Reading, shared: Shared, memory: Memory) -> tuple[Shared, Memory, str]:
    """Compare a reading with the last one of this process and with what other processes saw.

    Args:
        current: the clock now.
        shared: what the processes share.
        memory: what this process remembers.

    Returns:
        What to share and to remember, and why the time itself is in doubt; empty if it is not. After a jump
        forward it is not, and `held` says for how long nothing may be deleted by its age.
    """
    if memory.last is not None and memory.doubted is None:
        elapsed = timedelta(seconds=current.ticks - memory.last.ticks)
        jump = current.time - memory.last.time - elapsed
        if abs(jump) > TOLERANCE:
            return _after_jump(current, shared, jump), Memory(current), ""
        if shared.seen <= memory.last.time:  # no other process has seen anything since
            return replace(shared, seen=current.time), Memory(current), ""
    difference = current.time - shared.seen
    if abs(difference) <= TOLERANCE:
        return replace(shared, seen=max(current.time, shared.seen)), Memory(current), ""
    if memory.doubted is None or memory.doubted.seen != shared.seen:
        return shared, Memory(current, shared, current.ticks), _doubt(difference)
    if current.ticks - memory.doubted_since < CONFIRMATION:
        return shared, replace(memory, last=current), _doubt(difference)
    if difference < timedelta(0):
        return _after_jump(current, shared, difference), Memory(current), ""
    return replace(shared, seen=current.time), Memory(current), ""


class Hold(NamedTuple):
    """Why nothing may be deleted by its age, and until when."""

    reason: str
    until: datetime


def hold(moment: datetime, shared: Shared, *, longest: timedelta) -> Hold | None:
    """Why nothing may be deleted because it is older than `longest`; None if it may.

    After a jump forward by less than that, content has to wait for as long as the jump; after a longer one,
    for `longest`.
    """
    if shared.held_until is None:
        return None
    until = shared.held_until
    if shared.held_since is not None:
        until = min(until, shared.held_since + longest)
    if moment >= until:
        return None
    return Hold(f"{shared.reason}; nothing is deleted by its age until {until.isoformat()}", until)


def held(moment: datetime, shared: Shared, *, longest: timedelta) -> str:
    """The reason of a hold; empty if there is none."""
    found = hold(moment, shared, longest=longest)
    return found.reason if found is not None else ""


def _after_jump(current: Reading, shared: Shared, jump: timedelta) -> Shared:
    """Add the jump to what content looks older than it is. A jump backward takes it away again."""
    is_known = abs(current.time - shared.seen) <= TOLERANCE  # another process has noticed the same jump
    needs_repair = shared.needs_repair or jump < timedelta(0)
    if is_known and (jump < timedelta(0) or shared.held_until is not None):
        return replace(shared, seen=current.time, needs_repair=needs_repair)
    waiting, lease = timedelta(0), shared.longest_lease
    if shared.held_until is not None:
        waiting = max(shared.held_until - (current.time - jump), timedelta(0))
    older = min(waiting + jump, _MOST)
    if older <= TOLERANCE:
        return Shared(current.time, needs_repair=needs_repair, longest_lease=lease)
    if jump < timedelta(0):
        since = None if shared.held_since is None else shared.held_since + jump
        return Shared(current.time, since, current.time + older, shared.reason, needs_repair, lease)
    reason = f"the clock jumped forward by {_seconds(jump)} s and content looks older than it is"
    return Shared(current.time, current.time, current.time + older, reason, needs_repair, lease)


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
    is_in_doubt: bool = False  # the reason may be that no process has looked for a while


def check(*, longest: timedelta | None = None) -> Status:
    """Read the clock. For processes that call this every few seconds, and for commands.

    `longest` is the age at which the caller deletes; the default is that of unreferenced blobs: the grace
    period and the lease.
    """
    global _memory, _last_reason
    with _lock:
        current = Reading(database_now(), _ticks())
        shared = read()
        found = shared or Shared(current.time)
        found = replace(found, longest_lease=max(found.longest_lease, settings.BLOB_LEASE))
        after, _memory, doubt = assess(current, found, _memory)
        if shared is None or replace(after, seen=shared.seen) != shared or _is_due(after, shared):
            _write(after)
        reason = doubt or held(current.time, after, longest=_collecting(after))
        if reason != _last_reason:
            logger.error("%s", reason) if reason else logger.warning("the clock is taken for right again")
        _last_reason = reason
        if longest is not None:
            reason = doubt or held(current.time, after, longest=longest)
        return Status(reason, after.needs_repair, is_in_doubt=bool(doubt))


def confirm() -> None:
    """Wait until a time after a gap is confirmed, or another process sees another; for commands.

    Without a worker no process has looked at the clock since the last command.
    """
    end = time.monotonic() + CONFIRMATION + _PAUSE
    while check().is_in_doubt and time.monotonic() < end:
        time.sleep(_PAUSE)


def read() -> Shared | None:
    """What the processes share; None before one of them has read the clock."""
    row = ClockWatch.objects.filter(pk=_ONLY_ROW).first()
    if row is None:
        return None
    return Shared(
        row.seen_at, row.held_since, row.held_until, row.reason, row.needs_repair, row.longest_lease
    )


def shared_hold(*, longest: timedelta | None = None) -> Hold | None:
    """Why nothing may be deleted by its age, as far as all processes know; `longest` as for `check`."""
    found, moment = read(), database_now()
    if found is None:
        return None
    return hold(moment, found, longest=_collecting(found) if longest is None else longest)


def shared_reason(*, longest: timedelta | None = None) -> str:
    """The reason of `shared_hold`; empty if there is none."""
    found = shared_hold(longest=longest)
    return found.reason if found is not None else ""


def longest_lease() -> timedelta:
    """The longest lease that may still last: `BLOB_LEASE` of this process, or a longer one of an earlier one.

    No row says when a lease was granted, and nothing shortens what was promised (ADR 66).
    """
    return _longest_lease(read())


def _longest_lease(shared: Shared | None) -> timedelta:
    configured: timedelta = settings.BLOB_LEASE
    return configured if shared is None else max(configured, shared.longest_lease)


def _collecting(shared: Shared) -> timedelta:
    """The age at which the collector deletes unreferenced blobs."""
    grace: timedelta = settings.GC_GRACE
    return grace + _longest_lease(shared)


@transaction.atomic
def end_hold() -> None:
    """Delete by age again, because an operator says that the clock is right. Idempotent."""
    ClockWatch.objects.filter(pk=_ONLY_ROW).update(held_since=None, held_until=None, reason="")


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
            "held_since": shared.held_since,
            "held_until": shared.held_until,
            "reason": shared.reason,
            "needs_repair": shared.needs_repair,
            "longest_lease": shared.longest_lease,
        },
    )


def _ticks() -> float:
    """Seconds since the start of the machine, with the time that it slept where the system counts that."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
