"""The queue of blobs to look at again, and what follows from a second look.

One look never changes a blob: a storage may answer wrongly for a moment. Scrubbing, reconciling and failed
downloads only insert rows here. A later look at the whole content confirms the finding or refutes it. Rows of
quarantined blobs stay, at growing intervals: content that an operator restores is found without a push.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db.models import QuerySet

from registry_control.catalog.services.plausibility import lacks_most
from registry_control.common.clock import database_now
from registry_control.db.sql import execute, time_parameter
from registry_control.integrity.models import BlobCheck, Job
from registry_control.integrity.policy import (
    SLOWEST,
    Content,
    Finding,
    confirm_after,
    recheck_after,
    retry_after,
)
from registry_control.integrity.selectors.due import StoredBlob, blob_with_id
from registry_control.integrity.services import faults, jobs
from registry_control.integrity.services.reading import Interrupted, Pace, glance, look
from registry_data.storage.base import BlobStore

logger = logging.getLogger(__name__)

_BATCH: Final = 50
_DROPPED: Final = 500  # findings of deleted blobs that end at once
_MAX_FAILURES: Final = 3  # in a row, after which the storage is taken to be down
_LONGEST: Final = 255  # characters of a reason
_CHECK_SPEED: Final = 8 * SLOWEST  # bytes per second of one look of a worker
WRONG_STORE: Final = (
    "most content seems to be missing, so nothing was marked: check that the storage is the right one and"
    " completely mounted; if the content is lost, run `manage.py scrub --accept-losses`"
)
# A row for another key is about content that the blob no longer has.
_ADD: Final = """
INSERT INTO integrity_blobcheck (blob_id, storage_key, found, reason, due_at, attempts, created_at)
VALUES (%s, %s, %s, %s, %s, 0, %s)
ON CONFLICT (blob_id) DO UPDATE SET storage_key = excluded.storage_key, found = excluded.found,
    reason = excluded.reason, due_at = excluded.due_at, attempts = 0, created_at = excluded.created_at
WHERE integrity_blobcheck.storage_key <> excluded.storage_key
"""


def add(blob: StoredBlob, finding: Finding) -> None:
    """Look at a blob again, after a first look that did not find its content whole."""
    moment = database_now()
    what = [finding.content.value, finding.detail[:_LONGEST]]
    due = time_parameter(moment + confirm_after(finding.content))
    execute(_ADD, [blob.id, blob.key, *what, due, time_parameter(moment)])


@dataclass(frozen=True, slots=True)
class Looks:
    """Which second looks to take, and how; by default as workers do."""

    only: Collection[int] | None = None  # ids of blobs
    accept_losses: bool = False  # else no blob is found missing while most of the content seems to be
    bytes_per_second: int = _CHECK_SPEED

    def queue(self) -> QuerySet[BlobCheck]:
        """The blobs to look at again, due or not."""
        return BlobCheck.objects.all() if self.only is None else BlobCheck.objects.filter(pk__in=self.only)

    def refused(self) -> QuerySet[BlobCheck]:
        """Blobs whose content is missing, but which are not marked because most content seems to be."""
        return self.queue().filter(found=Content.MISSING.value, failed_at__isnull=False)


_AS_WORKERS_DO: Final = Looks()


def work(store: BlobStore, looks: Looks = _AS_WORKERS_DO) -> bool:
    """Take the second look at blobs that are due; returns whether there may be more."""
    faults.drop_of_deleted(limit=_DROPPED)
    # Without a write to the row of the job.
    if not looks.queue().filter(due_at__lte=database_now()).exists():
        return False
    with jobs.held(Job.Name.CHECKS) as job:
        if job is None:
            return False
        due = list(looks.queue().filter(due_at__lte=database_now()).order_by("due_at")[:_BATCH])
        try:
            responds = _check(due, store, job, looks)
        except Interrupted:
            return False
        return responds and len(due) == _BATCH


def _check(due: list[BlobCheck], store: BlobStore, job: jobs.Held, looks: Looks) -> bool:
    """Look at the content of some blobs; returns False if the storage is down, and the rest stays due."""
    missing: list[tuple[BlobCheck, StoredBlob, Finding]] = []
    failures = 0
    for check in due:
        if failures == _MAX_FAILURES:
            break
        blob = blob_with_id(check.blob_id)
        if blob is None or blob.key != check.storage_key:
            _forget(check)  # deleted, or healed by an upload
            continue
        finding = _second_look(blob, store, Pace(looks.bytes_per_second, job.renew))
        job.renew()
        failures = failures + 1 if finding.content is Content.UNKNOWN else 0
        if finding.content is Content.MISSING:
            missing.append((check, blob, finding))
        else:
            _settle(check, blob, finding)
    is_trusted = looks.accept_losses or _is_trusted(store, missing=len(missing))
    job.save(error="" if is_trusted else WRONG_STORE)
    for check, blob, finding in missing:
        if is_trusted:
            _settle(check, blob, finding)
        else:
            after = retry_after(check.attempts + 1)
            _postpone(check, finding.content, reason=WRONG_STORE, after=after, is_failure=True)
    if not is_trusted:
        logger.error("%s", WRONG_STORE)
    return failures < _MAX_FAILURES


def _second_look(blob: StoredBlob, store: BlobStore, pace: Pace) -> Finding:
    """Content of another size needs not be read to be found damaged again."""
    finding = glance(store, key=blob.key, size=blob.size)
    if finding.content is Content.WHOLE:
        return look(store, key=blob.key, digest=blob.digest, size=blob.size, pace=pace)
    return finding


def _settle(check: BlobCheck, blob: StoredBlob, finding: Finding) -> None:
    """Give the blob its state if this look found the same as the last one, and set the time of the next."""
    content, attempts = finding.content, check.attempts + 1
    if content is Content.UNKNOWN:
        logger.warning("the content of the blob %s cannot be read now: %s", blob.digest, finding.detail)
        _postpone(check, content, reason=finding.detail, after=retry_after(attempts), is_failure=True)
        return
    is_confirmed = content in (Content.WHOLE, check.found)
    if is_confirmed:
        faults.settle(blob.id, key=blob.key, finding=finding)
    if content is Content.WHOLE:
        _forget(check)
    else:
        after = recheck_after(attempts) if is_confirmed else confirm_after(content)
        _postpone(check, content, reason=finding.detail, after=after, is_failure=False)


def _postpone(check: BlobCheck, found: Content, *, reason: str, after: timedelta, is_failure: bool) -> None:
    moment = database_now()
    BlobCheck.objects.filter(pk=check.pk, storage_key=check.storage_key).update(
        attempts=check.attempts + 1,
        found=found.value,
        reason=reason[:_LONGEST],
        due_at=moment + after,
        failed_at=moment if is_failure else None,
    )


def _forget(check: BlobCheck) -> None:
    BlobCheck.objects.filter(pk=check.pk, storage_key=check.storage_key).delete()


def _is_trusted(store: BlobStore, *, missing: int) -> bool:
    """Whether missing content is lost, and the storage not likely the wrong one.

    A sample of all content decides, because blobs become due one by one, too.
    """
    return missing == 0 or lacks_most(store) is False
