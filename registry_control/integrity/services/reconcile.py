"""Compares database and storage in both directions, in slices that any worker continues (ADR 63).

A pass has two phases. `rows` asks the storage for the content of each blob, and queues blobs that garbage
collection has lost sight of. `objects` lists the storage, and records the objects that no row knows. The
position is in the row of the job, which is saved after each slice: a killed worker repeats one slice, without
harm. A blob for which the storage fails is looked at again later and does not stop the others; several in a
row, or an error of the listing, end the slice. Nothing else follows from an error (invariant 7).
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from registry_control.catalog import references
from registry_control.catalog.models import Blob
from registry_control.common.background import is_stopping
from registry_control.common.clock import database_now
from registry_control.integrity.models import Job
from registry_control.integrity.policy import LATER, Content, Finding, is_suspicious, looks, retry_after
from registry_control.integrity.selectors.comparison import ComparedBlob, blobs_after, unknown
from registry_control.integrity.selectors.due import StoredBlob, totals
from registry_control.integrity.services import checks, jobs
from registry_control.integrity.services import unknown as unknown_objects
from registry_control.integrity.services.reading import glance
from registry_data.storage.base import BlobStore, Kind, StorageError

logger = logging.getLogger(__name__)

ROWS: Final = "rows"
OBJECTS: Final = "objects"
_SLICE: Final = 500
_MAX_FAILURES: Final = 3  # in a row, after which the storage is taken to be down
_MAX_ERROR: Final = 255
_LAST_ID: Final = 2**63 - 1
_SHOWN: Final = 20  # names of foreign objects that are recorded


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice has seen, and where the next one begins; None at the end of the phase."""

    next: str | None
    counts: Mapping[str, int]
    foreign: Sequence[str] = ()
    error: str = ""  # the slice stopped at `next`
    is_grave: bool = False  # the storage is likely the wrong one


def work(store: BlobStore, *, period: timedelta, grace: timedelta) -> None:
    """Go on with the pass, or begin one when a period is over since the last one began."""
    if not _has_work(period, grace):  # without a write to the row of the job
        return
    with jobs.held(Job.Name.RECONCILE) as job:
        if job is None or (job.job.retry_at is not None and job.job.retry_at > database_now()):
            return
        if error := unknown_objects.remove_due(store, grace=grace).error:
            _stop(job, error, is_grave=error == unknown_objects.WRONG_DATABASE)
            return
        if _is_due(job.job, period):
            _begin(job)
        if job.job.phase:
            _go_on(store, job, period)


def _has_work(period: timedelta, grace: timedelta) -> bool:
    job = Job.objects.filter(pk=Job.Name.RECONCILE).first()
    if job is None or job.phase or _is_due(job, period):
        return job is None or job.retry_at is None or job.retry_at <= database_now()
    return unknown_objects.is_due(grace=grace)


def _is_due(job: Job, period: timedelta) -> bool:
    return not job.phase and (job.started_at is None or job.started_at + period <= database_now())


def _begin(job: jobs.Held) -> None:
    found, state = totals(), job.job
    state.phase, state.cursor, state.counts = ROWS, "", {}
    state.started_at, state.finished_at, state.total_blobs = database_now(), None, found.blobs
    job.save(
        phase=ROWS,
        cursor="",
        counts={},
        started_at=state.started_at,
        finished_at=None,
        total_blobs=found.blobs,
        total_bytes=found.bytes,
    )


def _go_on(store: BlobStore, job: jobs.Held, period: timedelta) -> None:
    """Compare as many rows or objects as the pace allows since the last time."""
    state, moment = job.job, database_now()
    left = looks(number=state.total_blobs, period=period, since_last=moment - (state.worked_at or moment))
    job.save(worked_at=moment)
    while left > 0 and state.phase and not is_stopping():
        limit = min(left, _SLICE)
        left -= limit
        done = compare(store, state.phase, state.cursor, limit=limit)
        if not _save(job, done):
            return


def _save(job: jobs.Held, done: Slice) -> bool:
    """Save the progress; False if the pass cannot go on now."""
    state = job.job
    counts = Counter({key: value for key, value in state.counts.items() if isinstance(value, int)})
    counts.update(done.counts)
    names = [*state.counts.get("foreign_names", []), *done.foreign][:_SHOWN]
    state.counts = {**counts, "foreign_names": names}
    if done.next is not None:
        state.cursor = done.next
    else:
        state.phase, state.cursor = (OBJECTS, "") if state.phase == ROWS else ("", "")
    finished_at = None if state.phase else database_now()
    saved = job.save(
        phase=state.phase,
        cursor=state.cursor,
        counts=state.counts,
        finished_at=finished_at,
        leased_until=jobs.lease_end(),
    )
    if done.error:
        _stop(job, done.error, is_grave=done.is_grave)
    elif state.error:
        state.error = ""
        job.save(error="", retry_at=None)
    if finished_at is not None:
        logger.info("database and storage were compared: %s", dict(counts))
    return saved and not done.error


def _stop(job: jobs.Held, error: str, *, is_grave: bool) -> None:
    job.job.error = error[:_MAX_ERROR]
    job.save(error=job.job.error, retry_at=database_now() + (LATER if is_grave else retry_after(1)))
    logger.log(
        logging.ERROR if is_grave else logging.WARNING, "comparing database and storage stopped: %s", error
    )


def compare(store: BlobStore, phase: str, cursor: str, *, limit: int, accept_losses: bool = False) -> Slice:
    """Compare the next rows or objects; saves no progress.

    Unless `accept_losses` is set, the slice stops without any effect if most content seems to be missing.
    """
    if phase == ROWS:
        return _compare_rows(store, int(cursor or 0), limit, accept_losses=accept_losses)
    return _compare_objects(store, cursor, limit)


def _compare_rows(store: BlobStore, after: int, limit: int, *, accept_losses: bool) -> Slice:
    blobs = blobs_after(after, limit=limit)
    suspects: list[tuple[ComparedBlob, Finding]] = []
    last, failures, error = after, 0, ""
    for blob in blobs:
        finding = glance(store, key=blob.key, size=blob.size)
        last, failures = blob.id, failures + 1 if finding.content is Content.UNKNOWN else 0
        if finding.content is not Content.WHOLE or blob.state != Blob.State.LIVE:
            suspects.append((blob, finding))
        if failures == _MAX_FAILURES:
            error = finding.detail
            break
    lost = [blob for blob, finding in suspects if finding.content is Content.MISSING]
    lost = [blob for blob in lost if blob.state == Blob.State.LIVE]
    if not accept_losses and is_suspicious(missing=len(lost), examined=len(blobs)):
        return Slice(str(after), {}, error=checks.WRONG_STORE, is_grave=True)
    for blob, finding in suspects:
        checks.add(StoredBlob(blob.id, blob.digest, blob.size, blob.key, database_now()), finding)
    is_end = len(blobs) < limit and not error
    queued = references.queue_forgotten(after=after, until=_LAST_ID if is_end else last)
    compared = sum(blob.id <= last for blob in blobs)
    counts = {"rows": compared, "suspects": len(suspects), "queued": queued}
    return Slice(None if is_end else str(last), counts, error=error)


def _compare_objects(store: BlobStore, cursor: str, limit: int) -> Slice:
    try:
        page = store.list_objects(cursor, limit=limit)
    except StorageError as error:
        return Slice(cursor, {}, error=str(error))
    # Queried after the listing: see `unknown`.
    found = unknown(page.objects)
    unknown_objects.note(found)
    foreign = [each.name for each in page.objects if each.kind is Kind.FOREIGN]
    counts = {"objects": len(page.objects), "unknown": len(found), "foreign": len(foreign)}
    return Slice(page.next, counts, foreign=foreign[:_SHOWN])
