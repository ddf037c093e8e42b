"""The circuit breaker: stops the collector before it removes more than a share of all bytes a day (ADR 65).

The bytes count when a blob is marked as deleting, in the transaction that marks it, under the lock of the
breaker's row. So the limit holds exactly, with any number of workers, across restarts and crashes.
"""

import logging
from typing import Final

from django.db import transaction

from registry_control.access.policy import Principal
from registry_control.access.selectors import require_operator
from registry_control.access.services import actor_of
from registry_control.audit.services import SYSTEM, Actor, Target, record
from registry_control.common import clock_watch
from registry_control.common.clock import database_now
from registry_control.db.sql import execute, time_parameter
from registry_control.gc.models import Breaker, MarkedBytes
from registry_control.gc.policy import Budget
from registry_control.gc.selectors import marked
from registry_control.gc.selectors.breaker import reason_of
from registry_control.gc.selectors.queue import RESOURCE

logger = logging.getLogger(__name__)

_ONLY_ROW: Final = 1
_TARGET: Final = Target("gcbreaker", _ONLY_ROW, "circuit breaker", None)
_CLOCK: Final = Target("gcclock", _ONLY_ROW, "clock", None)
_COUNT: Final = """
INSERT INTO gc_markedbytes (hour, bytes) VALUES (%s, %s)
ON CONFLICT (hour) DO UPDATE SET bytes = gc_markedbytes.bytes + excluded.bytes
"""


def lock() -> Breaker:
    """Lock the breaker's row in the current transaction, before all other rows."""
    found = Breaker.objects.select_for_update().filter(pk=_ONLY_ROW).first()
    if found is None:
        Breaker.objects.bulk_create([Breaker(pk=_ONLY_ROW)], ignore_conflicts=True)
        found = Breaker.objects.select_for_update().get(pk=_ONLY_ROW)
    return found


def count(size: int) -> None:
    """Count bytes that the current transaction marks as deleting."""
    if size:
        hour = database_now().replace(minute=0, second=0, microsecond=0)
        execute(_COUNT, [time_parameter(hour), size])


def stop(breaker: Breaker, found: Budget) -> None:
    """Stop the collector in the current transaction."""
    breaker.stopped_at, breaker.reason = database_now(), reason_of(found)
    breaker.save(update_fields=["stopped_at", "reason"])
    record(actor=SYSTEM, verb="gcbreaker.stop", target=_TARGET, reason=breaker.reason)
    transaction.on_commit(lambda: logger.error("garbage collection has stopped: %s", breaker.reason))


@transaction.atomic
def release(*, actor: Actor) -> None:
    """Let a stopped collector go on, for an actor that has been authorized. Idempotent.

    That also ends a wait after a jump of the clock. All blobs that are in the queue now are removed when
    their grace period is over, whatever their size; the bytes of others are counted from 0.
    """
    breaker = lock()
    if clock_watch.shared_reason():
        clock_watch.end_hold()
        record(actor=actor, verb="gcclock.release", target=_CLOCK)
    if breaker.stopped_at is None:
        return
    reason = breaker.reason
    breaker.stopped_at, breaker.reason, breaker.released_at = None, "", database_now()
    breaker.save(update_fields=["stopped_at", "reason", "released_at"])
    MarkedBytes.objects.all().delete()
    record(actor=actor, verb="gcbreaker.release", target=_TARGET, reason=reason)
    transaction.on_commit(lambda: logger.warning("an operator lets garbage collection go on: %s", actor.name))


def request_release(*, principal: Principal) -> None:
    """Let a stopped collector go on.

    Raises:
        PermissionsDenied: the principal may not operate the installation.
    """
    require_operator(principal, "write", RESOURCE)
    release(actor=actor_of(principal))


@transaction.atomic
def forget_old() -> None:
    """Delete the counts of hours that no limit includes any more."""
    MarkedBytes.objects.filter(hour__lte=database_now() - 2 * marked.DAY).delete()
