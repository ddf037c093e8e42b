"""Reads all stored content within a period and compares it with its digest (ADR 64).

A worker reads a slice at a time: the longest unverified blobs that are due, as many bytes as the rate allows
since the last slice. Which ones these are follows from `Blob.verified_at`, so a killed worker loses no more
than one slice.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from registry_control.common.clock import database_now
from registry_control.integrity.models import Job
from registry_control.integrity.policy import HEADROOM, Content, budget, cost, rate, retry_after
from registry_control.integrity.selectors.due import StoredBlob, longest_unverified, totals
from registry_control.integrity.services import checks, faults, jobs
from registry_control.integrity.services.reading import Interrupted, Pace, look
from registry_data.storage.base import BlobStore

logger = logging.getLogger(__name__)

_MOST_BLOBS: Final = 200  # of one slice
_STORED_EVERY: Final = 50  # results that are written in one transaction
_COUNTED_EVERY: Final = timedelta(hours=1)
_BURST: Final = 4  # a slice is read so many times faster than the rate
_MAX_ERROR: Final = 255
_MAX_FAILURES: Final = 3  # in a row, after which the storage is taken to be down


def work(store: BlobStore, *, period: timedelta) -> None:
    """Read the next slice, if there is content that was not read for half of the period."""
    if not longest_unverified(until=database_now() - period / HEADROOM, limit=1):
        failed = Job.objects.filter(pk=Job.Name.SCRUB).exclude(error="")
        if failed.exists():  # what cannot be read has rows in the queue of second looks
            failed.update(error="")
        return
    with jobs.held(Job.Name.SCRUB) as job:
        if job is not None and (job.job.retry_at is None or job.job.retry_at <= database_now()):
            _read_slice(store, job, period)


def _read_slice(store: BlobStore, job: jobs.Held, period: timedelta) -> None:
    moment = database_now()
    size = _totals(job, period, moment)
    speed = rate(blobs=size.total_blobs, size=size.total_bytes, period=period)
    left = budget(speed, moment - (size.worked_at or moment))
    job.save(worked_at=moment)
    due: list[StoredBlob] = []
    for blob in longest_unverified(until=moment - period / HEADROOM, limit=_MOST_BLOBS):
        due.append(blob)
        left -= cost(blob.size)
        if left <= 0:
            break
    pace = Pace(speed * _BURST, job.renew)
    result = read(due, store, pace)
    retry_at = database_now() + retry_after(1) if result.is_down else None
    job.save(error=result.error[:_MAX_ERROR], retry_at=retry_at)


class Result(NamedTuple):
    """The storage's last error, or an empty text, and whether it failed too often to go on."""

    error: str
    is_down: bool


def read(blobs: Sequence[StoredBlob], store: BlobStore, pace: Pace) -> Result:
    """Read blobs, and record what was found.

    A blob that cannot be read is looked at again later, and does not stop the others, unless several in a row
    cannot: then the storage is taken to be down.
    """
    whole: dict[int, str] = {}
    failures, error = 0, ""
    try:
        for blob in blobs:
            finding = look(store, key=blob.key, digest=blob.digest, size=blob.size, pace=pace)
            if finding.content is Content.WHOLE:
                whole[blob.id] = blob.key
            else:
                checks.add(blob, finding)
                logger.warning("the blob %s is looked at again: %s", blob.digest, finding.detail)
            failures = failures + 1 if finding.content is Content.UNKNOWN else 0
            if failures:
                error = finding.detail
            if failures == _MAX_FAILURES:
                break
            if len(whole) >= _STORED_EVERY:
                faults.verified(whole)
                whole = {}
    except Interrupted:
        logger.info("scrubbing was interrupted, and continues with the next slice")
    finally:
        faults.verified(whole)
    return Result(error, failures == _MAX_FAILURES)


def _totals(job: jobs.Held, period: timedelta, moment: datetime) -> Job:
    """The job with the number and size of all blobs, which are counted once an hour."""
    stored = job.job
    if stored.counted_at is None or moment - stored.counted_at > min(_COUNTED_EVERY, period / 20):
        stored.total_blobs, stored.total_bytes = totals()
        stored.counted_at = moment
        job.save(total_blobs=stored.total_blobs, total_bytes=stored.total_bytes, counted_at=stored.counted_at)
    return stored
