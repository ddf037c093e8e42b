"""Whether the collector has stopped, and what it may remove before the circuit breaker stops it (ADR 65)."""

from datetime import timedelta
from typing import Final

from django.conf import settings

from registry_control.common.clock_watch import shared_hold
from registry_control.gc.models import Breaker
from registry_control.gc.policy import MIN_STORED, Budget, Stop
from registry_control.gc.selectors import inventory, marked

_FRESH: Final = timedelta(minutes=5)
_FEW: Final = 0.1
"""The collector stops, or is exempt from stopping, only by an inventory that is not older than `_FRESH`, and
since which pushes have added less than this share to it."""


def budget_of(breaker: Breaker | None) -> Budget:
    """What may be marked now."""
    released_at = breaker.released_at if breaker is not None else None
    newest, age = inventory.newest(), inventory.age()
    if newest is None or age is None:
        return Budget(settings.GC_BREAKER, marked.of_a_day(), None, is_fresh=False, released_at=released_at)
    pushed = inventory.pushed_since(newest)
    stored = newest.live_bytes + newest.marked_before + pushed
    is_fresh = age <= _FRESH and pushed <= _FEW * stored
    return Budget(settings.GC_BREAKER, marked.of_a_day(), stored, is_fresh, released_at)


def stopped_reason() -> str:
    """Why the collector has stopped; empty if it has not."""
    found = Breaker.objects.filter(stopped_at__isnull=False).first() if settings.GC_BREAKER else None
    return found.reason if found is not None else ""


def current_stop(*, ignore_grace: bool = False) -> Stop | None:
    """Why the collector marks nothing at present; None if it works.

    A collector that passes over the grace period does not wait for the clock.
    """
    if reason := stopped_reason():
        return Stop(by_breaker=True, reason=reason)
    hold = None if ignore_grace else shared_hold()
    return Stop(by_breaker=False, reason=hold.reason, until=hold.until) if hold is not None else None


def stop_of_dry_run(size: int, *, ignore_grace: bool = False) -> Stop | None:
    """Why a run that marks so many bytes would not do so now, or not all of it."""
    if found := current_stop(ignore_grace=ignore_grace):
        return found
    reason = would_stop(size)
    return Stop(by_breaker=True, reason=reason) if reason else None


def current_budget() -> Budget:
    """What may be marked now, for information."""
    return budget_of(Breaker.objects.first())


def would_stop(size: int) -> str:
    """Why a run that marks so many bytes would be stopped, as far as the last inventory tells; or empty."""
    found = current_budget()
    if found.stored is None or found.stored < MIN_STORED or found.limit is None:
        return stopped_reason()
    return stopped_reason() or (reason_of(found) if found.marked + size > found.limit else "")


def reason_of(found: Budget) -> str:
    """Why a budget forbids a removal, and what an operator can do."""
    return (
        f"after {found.marked} bytes in the last 24 hours, a removal would exceed the limit of"
        f" {found.limit or 0} bytes: the share {found.share:g} of {found.stored or 0} stored bytes"
        " (REGISTRY_GC_BREAKER); an operator can let it go on"
    )
