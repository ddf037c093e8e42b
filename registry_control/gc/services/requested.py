"""Runs that the API or the administration requests. A run is a row; workers advance it (invariant 8)."""

from typing import Final

from django.conf import settings
from django.db import transaction

from registry_control.access.policy import Principal
from registry_control.access.selectors import require_operator
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor
from registry_control.catalog.selectors.holders import manifests_being_deleted
from registry_control.catalog.services import deletion
from registry_control.common.clock import database_now
from registry_control.common.signals import collection_requested
from registry_control.gc.models import GcRun
from registry_control.gc.policy import Rules
from registry_control.gc.selectors import planner
from registry_control.gc.selectors.breaker import current_budget, current_stop, stop_of_dry_run
from registry_control.gc.selectors.planner import Cursor
from registry_control.gc.selectors.queue import RESOURCE
from registry_control.gc.services import runs
from registry_control.gc.services.collector import Batch, collect_batch
from registry_data.storage.base import BlobStore, StorageError

_COUNTED: Final = ("blobs", "bytes", "exempt_bytes", "updated_at")


@transaction.atomic
def request_run(*, principal: Principal, dry_run: bool) -> GcRun:
    """Start a run for a principal.

    Raises:
        PermissionsDenied: it may not operate the installation.
    """
    require_operator(principal, "write", RESOURCE)
    return start_run(actor=actor_of(principal), dry_run=dry_run)


@transaction.atomic
def start_run(*, actor: Actor, dry_run: bool) -> GcRun:
    """Start a run for an actor that has been authorized."""
    run = runs.start(actor=actor, kind=GcRun.Kind.REQUESTED, dry_run=dry_run)
    collection_requested.send(sender=GcRun)
    return run


def advance_runs(*, store: BlobStore, limit: int) -> bool:
    """Advance the oldest requested run by one batch; returns whether there may be more to do.

    A run ends when the storage fails: what is left is due to the continuous work.
    """
    requested = GcRun.objects.filter(kind=GcRun.Kind.REQUESTED, status=GcRun.Status.RUNNING)
    run = requested.order_by("started_at").first()
    if run is None:
        return False
    if run.dry_run:
        return _advance_dry_run(run, limit)
    _advance(run, store, limit)
    return True


def _advance(run: GcRun, store: BlobStore, limit: int) -> None:
    with runs.counted_in(run.pk):
        try:
            if deletion.run_batch(store=store, limit=limit) or deletion.remove_expired_leases(limit=limit):
                return
            batch = collect_batch(store=store, rules=Rules(database_now(), settings.GC_GRACE), limit=limit)
        except StorageError as error:
            runs.add_error(str(error))
            batch = Batch()
        if batch.stopped:
            runs.add_error(batch.stopped)
    if not batch.is_full or batch.storage_is_down:
        runs.finish(run.pk, is_stopped=bool(batch.stopped))


@transaction.atomic
def _advance_dry_run(run: GcRun, limit: int) -> bool:
    """Count the next part of the queue, by the rules of the time when the run was requested.

    At the end it has stopped if the collector has, or if the circuit breaker would stop such a run.
    """
    locked = GcRun.objects.select_for_update(skip_locked=True).filter(pk=run.pk)
    current = locked.filter(status=GcRun.Status.RUNNING).first()
    if current is None:
        return False  # another worker advances it
    after = Cursor(current.cursor_since, current.cursor_blob)
    rules = Rules(current.started_at, settings.GC_GRACE)
    page = planner.review(rules, after=after, limit=limit, only_due=True)
    collectable = page.collectable(current_stop())
    current.blobs += len(collectable)
    current.bytes += sum(each.size for each in collectable)
    current.exempt_bytes += planner.exempt_bytes(collectable, current_budget())
    current.updated_at = database_now()
    if page.next is not None:
        current.cursor_since, current.cursor_blob = page.next
        current.save(update_fields=[*_COUNTED, "cursor_since", "cursor_blob"])
        return True
    current.manifests = manifests_being_deleted()
    stop = stop_of_dry_run(current.bytes - current.exempt_bytes)
    if stop is not None:
        current.errors = [stop.reason]
    current.save(update_fields=[*_COUNTED, "manifests", "errors"])
    runs.finish(run.pk, is_stopped=stop is not None)
    return True
