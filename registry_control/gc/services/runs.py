"""The rows of runs: what was removed, by which run, with which errors.

Removals are counted in the transaction that deletes the rows. This is the last lock that such a transaction
takes, so that several workers share the row of an hour without deadlocks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Q

from registry_control.audit.services import Actor, Target, record
from registry_control.common.clock import database_now
from registry_control.db.sql import execute, id_parameter, time_parameter
from registry_control.gc.models import GcRun

HOUR: Final = timedelta(hours=1)
_MAX_ERRORS: Final = 20  # of one run
_ABANDONED_AFTER: Final = timedelta(minutes=10)

_ADD: Final = """
UPDATE gc_gcrun SET blobs = blobs + %s, bytes = bytes + %s, manifests = manifests + %s,
                    updated_at = statement_timestamp()
WHERE id = %s
"""
_ADD_TO_HOUR: Final = """
INSERT INTO gc_gcrun (id, kind, status, dry_run, errors, cursor_blob, hour, started_at, updated_at,
                      blobs, bytes, manifests)
VALUES (%s, 'continuous', 'running', FALSE, '[]', 0, %s, %s, statement_timestamp(), %s, %s, %s)
ON CONFLICT (hour) DO UPDATE SET
    blobs = gc_gcrun.blobs + excluded.blobs, bytes = gc_gcrun.bytes + excluded.bytes,
    manifests = gc_gcrun.manifests + excluded.manifests, updated_at = excluded.updated_at
"""


_run: Final = ContextVar[UUID | None]("run", default=None)


@contextmanager
def counted_in(run_id: UUID) -> Iterator[None]:
    """Count what this thread removes in the body in a run, instead of in the continuous work of the hour."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


def count(*, blobs: int = 0, size: int = 0, manifests: int = 0) -> None:
    """Add removals of the current transaction to the run of this thread, or to those of this hour."""
    run_id = _run.get()
    if run_id is not None:
        execute(_ADD, [blobs, size, manifests, id_parameter(run_id)])
        return
    hour = time_parameter(_this_hour())
    sums = [blobs, size, manifests]
    execute(_ADD_TO_HOUR, [id_parameter(uuid4()), hour, hour, *sums])


def _this_hour() -> datetime:
    return database_now().replace(minute=0, second=0, microsecond=0)


@transaction.atomic
def add_error(text: str) -> None:
    """Add an error to the run of this thread, unless the run has it already."""
    run_id = _run.get()
    if run_id is None:
        count()  # creates the row of this hour
        wanted = Q(hour=_this_hour())
    else:
        wanted = Q(pk=run_id)
    run = GcRun.objects.select_for_update().filter(wanted).first()
    if run is not None and text not in run.errors and len(run.errors) < _MAX_ERRORS:
        run.errors = [*run.errors, text]
        run.save(update_fields=["errors"])


@transaction.atomic
def start(*, actor: Actor, kind: GcRun.Kind, dry_run: bool) -> GcRun:
    """Create a run."""
    moment = database_now()
    run = GcRun.objects.create(kind=kind, dry_run=dry_run, started_at=moment, updated_at=moment)
    record(actor=actor, verb="gcrun.start", target=Target("gcrun", run.pk, str(run), None), dry_run=dry_run)
    return run


@transaction.atomic
def finish(run_id: UUID, *, is_stopped: bool = False) -> GcRun:
    """End a run: it has failed if there were errors, unless the circuit breaker stopped it. Idempotent."""
    run = GcRun.objects.select_for_update().get(pk=run_id)
    if run.status == GcRun.Status.RUNNING:
        run.status = GcRun.Status.FAILED if run.errors else GcRun.Status.SUCCEEDED
        if is_stopped:
            run.status = GcRun.Status.STOPPED
        run.finished_at = run.updated_at = database_now()
        run.save(update_fields=["status", "finished_at", "updated_at"])
    return run


@transaction.atomic
def close_old() -> int:
    """End the runs of past hours, and stop those of commands that were killed. Returns how many."""
    moment = database_now()
    over = Q(kind=GcRun.Kind.CONTINUOUS, hour__lte=moment - HOUR)
    abandoned = Q(kind=GcRun.Kind.COMMAND, updated_at__lt=moment - _ABANDONED_AFTER)
    running = GcRun.objects.select_for_update(skip_locked=True).filter(status=GcRun.Status.RUNNING)
    closed = list(running.filter(over | abandoned)[:100])
    for run in closed:
        if run.kind == GcRun.Kind.COMMAND:
            run.status, run.finished_at = GcRun.Status.STOPPED, run.updated_at
        else:
            run.status = GcRun.Status.FAILED if run.errors else GcRun.Status.SUCCEEDED
            run.finished_at = run.started_at + HOUR
        run.save(update_fields=["status", "finished_at"])
    return len(closed)
