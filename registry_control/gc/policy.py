"""The rules of garbage collection: pure functions from facts about a blob to a verdict with a reason.

One planner serves the collector, dry runs and `explain`: each loads `Facts` and calls `judge`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

FIRST_RETRY: Final = timedelta(seconds=5)
LAST_RETRY: Final = timedelta(minutes=1)


class Action(StrEnum):
    """What the collector does with a blob."""

    KEEP = "keep"
    """The blob has a reference, or was not released: its row leaves the review queue."""

    RECYCLED = "recycled"
    """Only deleted images in the recycle bin have the blob."""

    WAIT = "wait"
    """The blob has no reference, and its grace period is not over."""

    COLLECT = "collect"
    """The blob can be marked as deleting."""

    DELETE = "delete"
    """The blob is marked as deleting already: its content is deleted, then its row."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a verdict depends on, read while the blob's row is locked or for information only."""

    is_deleting: bool  # the state of the blob
    is_linked: bool  # a manifest lists it
    leased_until: datetime | None  # the end of its last lease, which may be over
    unreferenced_since: datetime | None  # from the review queue; None if it is not in there
    retry_at: datetime | None = None  # the next attempt to delete the content
    recycled_until: datetime | None = None  # when the recycle bin, which alone links it, lets go of it


@dataclass(frozen=True, slots=True)
class Rules:
    """The time of the decision, the grace period, and whether to pass over that and the recycle bin."""

    now: datetime
    grace: timedelta
    ignore_grace: bool = False

    @property
    def released_before(self) -> datetime:
        """Blobs without references since then or longer can be collected."""
        return self.now if self.ignore_grace else self.now - self.grace

    @property
    def retries_before(self) -> datetime:
        """Interrupted and failed deletions whose next attempt is due until then are repeated."""
        return self.now + LAST_RETRY if self.ignore_grace else self.now


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, and the earliest time at which the blob goes; None if that is not known."""

    action: Action
    reason: str
    goes_at: datetime | None = None


def judge(facts: Facts, rules: Rules) -> Verdict:
    """Decide what happens to a blob.

    A lease holds the blob even after its end until the worker has deleted the lease's row. The grace period
    counts from the end of that lease, which is then in the review queue.
    """
    if facts.is_deleting:
        return Verdict(Action.DELETE, "its content is being deleted", facts.retry_at or rules.now)
    if facts.is_linked and facts.recycled_until is None:
        return Verdict(Action.KEEP, "a manifest lists it")
    if facts.leased_until is not None and not _outlived(facts.leased_until, facts, rules):
        return Verdict(Action.KEEP, _lease_reason(facts.leased_until), facts.leased_until + rules.grace)
    if facts.recycled_until is not None:
        return _judge_recycled(facts.recycled_until, rules)
    if facts.unreferenced_since is None:
        return Verdict(Action.KEEP, "it is not in the review queue")
    due = facts.unreferenced_since + rules.grace
    if facts.unreferenced_since <= rules.released_before:
        return Verdict(Action.COLLECT, "nothing refers to it and its grace period is over", due)
    return Verdict(Action.WAIT, f"nothing refers to it; its grace period lasts until {due.isoformat()}", due)


def _outlived(leased_until: datetime, facts: Facts, rules: Rules) -> bool:
    """Whether the recycle bin keeps a blob for longer than its lease does."""
    until = facts.recycled_until
    return until is not None and until > leased_until and not rules.ignore_grace


def _judge_recycled(until: datetime, rules: Rules) -> Verdict:
    if rules.ignore_grace:
        return Verdict(Action.COLLECT, "only the recycle bin has it, which is emptied", rules.now)
    if until <= rules.now:
        return _judge_expired(rules)
    reason = f"only the recycle bin has it, until {until.isoformat()}; its grace period comes after that"
    return Verdict(Action.RECYCLED, reason, until + rules.grace)


def _judge_expired(rules: Rules) -> Verdict:
    """Decide about a blob of which the time in the recycle bin is over; the grace period counts from now."""
    reason = "only the recycle bin has it, and its time there is over"
    if not rules.grace:
        return Verdict(Action.COLLECT, reason, rules.now)
    reason += "; its grace period begins when the entry is removed"
    return Verdict(Action.RECYCLED, reason, rules.now + rules.grace)


def _lease_reason(until: datetime) -> str:
    return f"it is leased to an image until {until.isoformat()}"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the collector marks no more blobs, or would not: the circuit breaker, or a clock that jumped."""

    by_breaker: bool
    reason: str  # that of the breaker has figures of the installation, which only operators may know
    until: datetime | None = None  # None: until an operator lets it go on


def while_stopped(verdict: Verdict, stop: Stop | None) -> Verdict:
    """The verdict on a blob that nothing refers to, if the collector has stopped."""
    if stop is None or verdict.goes_at is None or verdict.action not in (Action.WAIT, Action.COLLECT):
        return verdict
    if stop.until is not None and stop.until <= verdict.goes_at:
        return verdict
    reason = _KEPT_BY_BREAKER if stop.by_breaker else stop.reason
    return Verdict(Action.WAIT, f"{verdict.reason}; {reason}", stop.until)


_KEPT_BY_BREAKER: Final = (
    "the circuit breaker keeps it until an operator lets the collector go on (POST gc/breaker/release)"
)

MIN_STORED: Final = 1 << 30  # bytes; the circuit breaker does not act below


@dataclass(frozen=True, slots=True)
class Budget:
    """How many bytes the collector may mark as deleting before the circuit breaker stops it (ADR 65)."""

    share: float  # of all bytes, in 24 hours; 0 means no limit
    marked: int  # bytes in the last 24 hours
    # Bytes of the last inventory, those marked in the day before, and those pushed since; None: none yet.
    stored: int | None
    is_fresh: bool  # whether that inventory is recent enough to stop the collector on
    released_at: datetime | None = None  # an operator let everything go that was unreferenced then

    @property
    def limit(self) -> int | None:
        """Bytes in 24 hours; None means no limit.

        The share of `MIN_STORED` may go however much is stored: below it there is no limit.
        """
        if not self.share or (self.is_fresh and (self.stored or 0) < MIN_STORED):
            return None
        return int(max(self.stored or 0, MIN_STORED) * self.share)

    def is_released(self, facts: Facts) -> bool:
        """Whether an operator has let this blob go, however large it is."""
        since = facts.unreferenced_since
        return self.released_at is not None and since is not None and since <= self.released_at


@dataclass(frozen=True, slots=True)
class Spending:
    """The blobs that a batch may mark, in the order of the queue, and whether the budget forbids others."""

    allowed: frozenset[int]
    marked: int  # bytes of allowed blobs that count
    exceeds: bool


def spend(budget: Budget, wanted: Iterable[tuple[int, int, Facts]]) -> Spending:
    """Decide which blobs, given by id, size and facts, may be marked without exceeding the budget."""
    allowed, marked, exceeds = set[int](), 0, False
    for blob_id, size, facts in wanted:
        if budget.is_released(facts):
            allowed.add(blob_id)
        elif budget.limit is None or budget.marked + marked + size <= budget.limit:
            allowed.add(blob_id)
            marked += size
        else:
            exceeds = True
    return Spending(frozenset(allowed), marked, exceeds)


def retry_after(attempts: int) -> timedelta:
    """The time from a failed attempt to delete the content until the next one, after `attempts` in all."""
    factor = 1 << min(max(attempts - 1, 0), 10)
    return min(FIRST_RETRY * factor, LAST_RETRY)
