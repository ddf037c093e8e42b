"""The background tasks of garbage collection."""

import logging
from datetime import timedelta
from typing import Final

from django.conf import settings

from registry_control.common.background import Queue, background_task
from registry_control.common.clock import now
from registry_control.common.store import blob_store
from registry_control.gc.policy import Rules
from registry_control.gc.services import enforcement, requested, runs
from registry_control.gc.services.collector import collect_batch
from registry_data.storage.base import Unavailable

logger = logging.getLogger(__name__)

_BATCH: Final = 200
_SLICE: Final = 10.0  # seconds of work on one namespace, before others get their turn


# One thread of a process collects at a time, so that a long queue leaves the other threads to other tasks.
@background_task(name="gc.collect", queue=Queue.FAST, every=timedelta(seconds=3), at_most=1)
def collect() -> bool:
    """Delete blobs whose grace period is over.

    Raises:
        Unavailable: the storage failed for a whole batch; the next run tries again.
    """
    batch = collect_batch(store=blob_store(), rules=Rules(now(), settings.GC_GRACE), limit=_BATCH)
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


@background_task(name="gc.close_runs", queue=Queue.FAST, every=timedelta(minutes=1))
def close_runs() -> bool:
    """End the runs of past hours."""
    runs.close_old()
    return False
