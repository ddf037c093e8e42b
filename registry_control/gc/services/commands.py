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
from registry_control.common.clock import database_now
from registry_control.gc.models import GcRun
from registry_control.gc.policy import Action, Rules
from registry_control.gc.selectors import planner
from registry_control.gc.selectors.breaker import current_budget, stopped_reason, would_stop
from registry_control.gc.services import runs
from registry_control.gc.services.collector import collect_batch
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
    stopped: str = ""  # why the circuit breaker keeps blobs that are due, or would keep them


def rules(*, ignore_grace: bool) -> Rules:
    """The rules at this moment."""
    return Rules(database_now(), settings.GC_GRACE, ignore_grace=ignore_grace)


def dry_run(*, ignore_grace: bool) -> Outcome:
    """Compute what `collect` would remove now. Changes nothing."""
    blobs = size = exempt = 0
    budget, current = current_budget(), rules(ignore_grace=ignore_grace)
    for page in planner.pages(current, only_due=True):
        blobs += len(page.collectable)
        size += sum(each.size for each in page.collectable)
        exempt += page.exempt_bytes(budget)
    manifests = manifests_being_deleted()
    manifests += recycled_manifests() if ignore_grace else expired_manifests()
    for candidate, verdict in planner.recycled(current):
        if verdict.action is Action.COLLECT:
            blobs += 1
            size += candidate.size
    return Outcome(blobs, size, manifests, stopped=would_stop(size - exempt))


def collect(*, store: BlobStore, ignore_grace: bool) -> Outcome:
    """Remove expired entries of the recycle bin, finish pending deletions, and delete all blobs that are due.

    `ignore_grace` empties the recycle bin.
    """
    run = runs.start(actor=SYSTEM, kind=GcRun.Kind.COMMAND, dry_run=False)
    with runs.counted_in(run.pk):
        leave_bin = emptying.empty if ignore_grace else emptying.expire
        while leave_bin(limit=_BATCH):
            pass
        errors = [*_finish_deletions(store)]
        while deletion.remove_expired_leases(limit=_BATCH):
            pass
        errors += _collect_all(store, ignore_grace=ignore_grace)
        stopped = stopped_reason()
    finished = runs.finish(run.pk, is_stopped=bool(stopped))
    errors = [*finished.errors, *errors]
    counts = (finished.blobs, finished.bytes, finished.manifests)
    return Outcome(*counts, tuple(dict.fromkeys(errors)), stopped)


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


def _collect_all(store: BlobStore, *, ignore_grace: bool) -> Iterator[str]:
    """Delete blobs until none is due, also those that workers have claimed meanwhile."""
    stuck_at = time.monotonic() + _LONGEST_WAIT
    while True:
        batch = collect_batch(store=store, rules=rules(ignore_grace=ignore_grace), limit=_BATCH)
        if batch.stopped:
            yield batch.stopped
            return
        if batch.storage_is_down:
            yield from dict.fromkeys(map(str, batch.errors.values()))
            return
        if batch.removed or batch.kept:
            stuck_at = time.monotonic() + _LONGEST_WAIT
            continue
        # Rows that another process has locked at this moment are left.
        if not planner.is_due(rules(ignore_grace=ignore_grace)) or time.monotonic() > stuck_at:
            return
        time.sleep(_PAUSE)
