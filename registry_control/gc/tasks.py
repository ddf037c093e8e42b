"""The background tasks of garbage collection."""

import logging
from datetime import timedelta
from typing import Final

from django.conf import settings

from registry_control.common.background import Queue, background_task
from registry_control.common.clock import database_now
from registry_control.common.pace import Pace
from registry_control.common.store import blob_store
from registry_control.gc.policy import Rules
from registry_control.gc.services import (
    breaker,
    clock_repair,
    enforcement,
    figures,
    inventory,
    requested,
    runs,
)
from registry_control.gc.services.collector import collect_batch
from registry_data.storage.base import Unavailable

logger = logging.getLogger(__name__)

_BATCH: Final = 200
_SLICE: Final = 2.0  # seconds of work on one namespace, before other tasks and namespaces get their turn
_COUNTED: Final = 500
_collecting, _counting, _inventorying = Pace(), Pace(), Pace()


@background_task(name="gc.count_queue", queue=Queue.FAST, every=timedelta(seconds=3), at_most=1)
def count_queue() -> bool:
    """Add new rows of the review queue to its figures, and drop those of blobs with other references."""
    with _counting.batch() as batch:
        batch.rows = figures.count_new(Rules(database_now(), settings.GC_GRACE), limit=_COUNTED)
        batch.has_more = batch.rows == _COUNTED
    return batch.has_more


# One thread of a process collects at a time, so that a long queue leaves the other threads to other tasks.
@background_task(name="gc.collect", queue=Queue.FAST, every=timedelta(seconds=3), at_most=1)
def collect() -> bool:
    """Delete blobs whose grace period is over.

    Raises:
        Unavailable: the storage failed for a whole batch; the next run tries again.
    """
    rules = Rules(database_now(), settings.GC_GRACE)
    with _collecting.batch() as measured:
        batch = collect_batch(store=blob_store(), rules=rules, limit=_BATCH)
        measured.rows, measured.has_more = batch.removed, batch.is_full
    if batch.removed:
        logger.info("garbage collection deleted %d blobs of %d bytes", batch.removed, batch.bytes)
    if batch.storage_is_down:
        raise Unavailable("the storage deletes nothing at present")
    return batch.is_full


@background_task(name="gc.advance_runs", queue=Queue.FAST, every=timedelta(seconds=10), at_most=1)
def advance_runs() -> bool:
    """Advance the runs that the API or the administration requested."""
    return requested.advance_runs(store=blob_store(), limit=_BATCH)


@background_task(name="gc.enforce_retention", queue=Queue.BULK, every=timedelta(seconds=15), at_most=1)
def enforce_retention() -> bool:
    """Remove the tags and untagged manifests that the rules of namespaces do not keep."""
    return enforcement.enforce(seconds=_SLICE)


@background_task(name="gc.take_inventory", queue=Queue.FAST, every=timedelta(minutes=1), at_most=1)
def take_inventory() -> bool:
    """Count the stored bytes by what keeps them, each minute if that is quick, or else each hour."""
    with _inventorying.batch() as batch:
        batch.rows, batch.has_more = 1, inventory.advance()
    return batch.has_more


@background_task(name="gc.repair_times", queue=Queue.FAST, every=timedelta(seconds=15), at_most=1)
def repair_times() -> bool:
    """Correct times that lie in the future after the clock has been set back."""
    clock_repair.repair_if_needed()
    return False


@background_task(name="gc.close_runs", queue=Queue.FAST, every=timedelta(minutes=1))
def close_runs() -> bool:
    """End the runs of past hours, and forget what the circuit breaker counted before yesterday."""
    runs.close_old()
    breaker.forget_old()
    return False
