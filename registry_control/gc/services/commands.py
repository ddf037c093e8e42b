"""A run of garbage collection in the calling process, for `manage.py gc`. Workers may run beside it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from registry_control.audit.services import SYSTEM
from registry_control.catalog.selectors.holders import deletions_pending, manifests_being_deleted
from registry_control.catalog.selectors.recycled import expired_manifests, recycled_manifests
from registry_control.catalog.services import deletion
from registry_control.common import clock_watch
from registry_control.common.clock import database_now
from registry_control.gc.models import GcRun
from registry_control.gc.policy import Action, Rules, Stop
from registry_control.gc.selectors import planner
from registry_control.gc.selectors.breaker import current_budget, current_stop, stop_of_dry_run
from registry_control.gc.services import runs
from registry_control.gc.services.collector import Batch, collect_batch
from registry_control.recycling.services import emptying
from registry_data.storage.base import BlobStore, StorageError

_BATCH: Final = 200
_PAUSE: Final = 0.2  # seconds between looks at rows that another process has locked
_LONGEST_WAIT: Final = 30.0  # seconds without progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run removed, or in a dry run would remove."""

    blobs: int
    bytes: int
    manifests: int
    errors: tuple[str, ...] = ()
    stop: Stop | None = None  # why blobs that are due stay, or would stay


def rules(*, ignore_grace: bool) -> Rules:
    """The rules at this moment."""
    return Rules(database_now(), settings.GC_GRACE, ignore_grace=ignore_grace)


def dry_run(*, ignore_grace: bool) -> Outcome:
    """Compute what `collect` would remove now. Changes nothing."""
    blobs = size = exempt = 0
    budget, current = current_budget(), rules(ignore_grace=ignore_grace)
    stop = current_stop(ignore_grace=ignore_grace)
    for page in planner.pages(current, only_due=True):
        collectable = page.collectable(stop)
        blobs += len(collectable)
        size += sum(each.size for each in collectable)
        exempt += planner.exempt_bytes(collectable, budget)
    for candidate, verdict in planner.recycled(current) if stop is None else ():
        if verdict.action is Action.COLLECT:
            blobs += 1
            size += candidate.size
    manifests = manifests_being_deleted() + _manifests_leaving_bin(ignore_grace=ignore_grace)
    stop = stop_of_dry_run(size - exempt, ignore_grace=ignore_grace)
    return Outcome(blobs, size, manifests, stop=stop)


def _manifests_leaving_bin(*, ignore_grace: bool) -> int:
    """The manifests that `collect` takes out of the recycle bin."""
    if ignore_grace:
        return recycled_manifests()
    return 0 if clock_watch.shared_reason(longest=settings.RECYCLE_BIN) else expired_manifests()


def collect(*, store: BlobStore, ignore_grace: bool) -> Outcome:
    """Remove expired entries of the recycle bin, finish pending deletions, and delete all blobs that are due.

    `ignore_grace` empties the recycle bin.
    """
    clock_watch.confirm()
    run = runs.start(actor=SYSTEM, kind=GcRun.Kind.COMMAND, dry_run=False)
    with runs.counted_in(run.pk):
        leave_bin = emptying.empty if ignore_grace else emptying.expire
        while leave_bin(limit=_BATCH):
            pass
        errors = [*_finish_deletions(store)]
        while deletion.remove_expired_leases(limit=_BATCH):
            pass
        last = _collect_all(store, ignore_grace=ignore_grace)
        stop = _stop_after(last, ignore_grace=ignore_grace)
    finished = runs.finish(run.pk, is_stopped=stop is not None)
    failed = map(str, last.errors.values()) if last.storage_is_down else ()
    errors = [*finished.errors, *errors, *([last.stopped] if last.stopped else failed)]
    counts = (finished.blobs, finished.bytes, finished.manifests)
    return Outcome(*counts, tuple(dict.fromkeys(errors)), stop)


def _stop_after(last: Batch, *, ignore_grace: bool) -> Stop | None:
    """Why the collector has stopped, after the last batch of a run."""
    found = current_stop(ignore_grace=ignore_grace)
    if found is None and last.stopped:  # this process sees another time than the others
        return Stop(by_breaker=False, reason=last.stopped)
    return found


def _finish_deletions(store: BlobStore) -> Iterator[str]:
    """Remove the rows of deleted namespaces, images and tags, whichever process does it."""
    stuck_at = time.monotonic() + _LONGEST_WAIT
    while deletions_pending():
        progress = False
        try:
            progress = deletion.run_batch(store=store, limit=_BATCH)
        except StorageError as error:
            yield str(error)
            break
        if progress:
            stuck_at = time.monotonic() + _LONGEST_WAIT
        elif time.monotonic() > stuck_at:
            yield "deleted images still have running uploads, or rows that another transaction has locked"
            break
        else:
            time.sleep(_PAUSE)


def _collect_all(store: BlobStore, *, ignore_grace: bool) -> Batch:
    """Delete blobs until none is due, also those that workers have claimed; returns the last batch."""
    stuck_at = time.monotonic() + _LONGEST_WAIT
    while True:
        batch = collect_batch(store=store, rules=rules(ignore_grace=ignore_grace), limit=_BATCH)
        if batch.stopped or batch.storage_is_down:
            return batch
        if batch.removed or batch.kept:
            stuck_at = time.monotonic() + _LONGEST_WAIT
            continue
        # Rows that another process has locked at this moment are left.
        if not planner.is_due(rules(ignore_grace=ignore_grace)) or time.monotonic() > stuck_at:
            return batch
        time.sleep(_PAUSE)
