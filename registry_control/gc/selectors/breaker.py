"""The state of the circuit breaker, and what the collector may remove before it stops (ADR 65)."""

from datetime import timedelta
from typing import Final

from django.conf import settings

from registry_control.gc.models import Breaker
from registry_control.gc.policy import MIN_STORED, Budget
from registry_control.gc.selectors import inventory, marked

FRESH: Final = timedelta(minutes=5)
"""The collector stops only on an inventory that is not older, so that new pushes count."""


def budget_of(breaker: Breaker | None) -> Budget:
    """What may be marked now."""
    newest = inventory.newest()
    stored = None if newest is None else newest.live_bytes + newest.marked_before
    age = inventory.age()
    is_fresh = age is not None and age <= FRESH
    released_at = breaker.released_at if breaker is not None else None
    return Budget(settings.GC_BREAKER, marked.of_a_day(), stored, is_fresh, released_at)


def stopped_reason() -> str:
    """Why the collector has stopped; empty if it has not."""
    found = Breaker.objects.filter(stopped_at__isnull=False).first() if settings.GC_BREAKER else None
    return found.reason if found is not None else ""


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
