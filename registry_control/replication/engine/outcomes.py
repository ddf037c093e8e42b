"""Records what became of a claimed piece of work. Without its claim, a thread changes nothing any more."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet

from registry_control.common.clock import database_now
from registry_control.db.functions import DatabaseNow
from registry_control.replication.engine.claims import Item, Work
from registry_control.replication.engine.keeper import Interrupted
from registry_control.replication.models import (
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionImageBlob,
    ExecutionStatus,
    ItemState,
    TargetBlob,
)
from registry_control.replication.policy import GIVE_UP, retry_delay, with_error
from registry_control.replication.services import executions

_FREE = {"claimed_by": None, "claimed_until": None}


def require_claim(work: Work) -> None:
    """Lock the row of the item, so that its claim cannot end before the current transaction.

    Raises:
        Interrupted: another thread has claimed the work since.
    """
    if not _claimed(work).select_for_update(of=("self",)).exists():
        raise Interrupted


def release(work: Work) -> None:
    """Give the work back, to be continued at once by any worker."""
    with transaction.atomic():
        _claimed(work).update(**_FREE)


def planned(work: Work, *, images: int) -> None:
    """All images of the execution have rows."""
    with transaction.atomic():
        _claimed(work).update(
            is_planned=True, images_total=images, failures=0, failing_since=None, trouble="", **_FREE
        )


def done(work: Work) -> None:
    """The image or blob is at the destination, verified."""
    with transaction.atomic():
        if _claimed(work).update(state=ItemState.DONE, failures=0, failing_since=None, **_FREE):
            added = 1 if isinstance(work.item, ExecutionImage) else 0
            Execution.objects.filter(pk=work.execution.pk).update(
                images_done=F("images_done") + added, failures=0, failing_since=None, trouble=""
            )


def image_planned(work: Work) -> None:
    """All manifests and blobs of the image have rows."""
    with transaction.atomic():
        _claimed(work).update(state=ItemState.PLANNED, failures=0, failing_since=None, **_FREE)


def fail(work: Work, sentence: str) -> None:
    """The item cannot be replicated; the others of the execution continue."""
    with transaction.atomic():
        if isinstance(work.item, Execution):
            _fail_execution(work.execution.pk, sentence)
        elif _claimed(work).update(state=ItemState.FAILED, **_FREE):
            _add_error(work.execution.pk, f"{_name(work.item)}: {sentence}")
            if isinstance(work.item, ExecutionBlob):
                needing = ExecutionImageBlob.objects.filter(blob=work.item).values("image")
                waiting = ExecutionImage.objects.filter(pk__in=needing, state=ItemState.PLANNED)
                waiting.update(state=ItemState.FAILED)


def fail_execution(work: Work, sentence: str) -> None:
    """Nothing of the execution can be replicated, for example because the credentials are refused."""
    with transaction.atomic():
        _claimed(work).update(**_FREE)
        _fail_execution(work.execution.pk, sentence)


def retry(
    work: Work, sentence: str, *, retry_after: float | None = None, attempts: int | None = None
) -> None:
    """Try again later, or give up: after GIVE_UP without success, or after `attempts` failures in a row."""
    moment = database_now()
    with transaction.atomic():
        item = _claimed(work).select_for_update(of=("self",)).first()
        if item is None:
            return
        item.failures += 1
        item.failing_since = item.failing_since or moment
        if attempts is not None and item.failures >= attempts:
            fail(work, f"{sentence} ({item.failures} attempts)")
            return
        if moment - item.failing_since >= GIVE_UP:
            fail(work, f"{sentence}; given up after an hour without success")
            return
        item.next_attempt_at = moment + retry_delay(item.failures, retry_after=retry_after)
        item.claimed_by = item.claimed_until = None
        item.save(
            update_fields=["failures", "failing_since", "next_attempt_at", "claimed_by", "claimed_until"]
        )
        _pause(work, item, sentence, retry_after)


def _pause(work: Work, item: Item, sentence: str, retry_after: float | None) -> None:
    """Show the failure, and pause the whole execution if the target asks for it or fails repeatedly."""
    if isinstance(item, Execution):
        Execution.objects.filter(pk=item.pk).update(trouble=sentence)
        return
    execution = Execution.objects.select_for_update().get(pk=work.execution.pk)
    execution.trouble = sentence
    execution.failures += 1
    moment = database_now()
    execution.failing_since = execution.failing_since or moment
    if retry_after or execution.failures >= 3:
        execution.next_attempt_at = moment + retry_delay(execution.failures - 2, retry_after=retry_after)
    execution.save(update_fields=["trouble", "failures", "failing_since", "next_attempt_at"])
    if moment - execution.failing_since >= GIVE_UP:
        _fail_execution(execution.pk, f"{sentence}; given up after an hour without success")


def again(work: Work, digests: Iterable[str] | None) -> None:
    """The destination has lost these blobs of an image, or None: any of them; they are copied again."""
    image: Any = work.item.pk
    needed = ExecutionImageBlob.objects.filter(image=image).values("blob")
    lost = ExecutionBlob.objects.filter(pk__in=needed, state=ItemState.DONE)
    if digests is not None:
        lost = lost.filter(digest__in=list(digests))
    with transaction.atomic():
        lost.update(state=ItemState.PENDING, upload="")


def remember(target_id: UUID, digest: str, repository: str) -> None:
    """Note that a repository of a target has a blob, so that others can mount it."""
    with transaction.atomic():
        TargetBlob.objects.bulk_create(
            [TargetBlob(target_id=target_id, digest=digest, repository=repository, seen_at=DatabaseNow())],
            update_conflicts=True,
            unique_fields=["target", "digest"],
            update_fields=["repository", "seen_at"],
        )


def forget(target_id: UUID, digest: str) -> None:
    """The repository no longer has the blob."""
    with transaction.atomic():
        TargetBlob.objects.filter(target=target_id, digest=digest).delete()


def save_upload(work: Work, upload: str) -> None:
    """Save what is needed to continue the transfer of a blob."""
    with transaction.atomic():
        _claimed(work).update(upload=upload)


def count_sent(work: Work, sent: int) -> None:
    """Set how many bytes of a blob have been sent, if no earlier attempt came further.

    The execution's sum follows. Progress ends a row of failures: a transfer of many hours may fail from time
    to time. Bytes that are sent again are no progress.
    """
    ended = {"failures": 0, "failing_since": None}
    with transaction.atomic():
        blob = _claimed(work).select_for_update().first()
        if blob is not None and sent > blob.sent:
            Execution.objects.filter(pk=work.execution.pk).update(
                bytes_done=F("bytes_done") + sent - blob.sent, trouble="", **ended
            )
            ExecutionBlob.objects.filter(pk=blob.pk).update(sent=sent, **ended)


def add_error(work: Work, sentence: str) -> None:
    """Record an error of the execution as a whole, which continues and will be `failed` at its end."""
    with transaction.atomic():
        _add_error(work.execution.pk, sentence)


def _claimed(work: Work) -> "QuerySet[Any]":
    """The row of the item, as long as this thread has its claim."""
    pk: Any = work.item.pk
    return type(work.item)._default_manager.filter(pk=pk, claimed_by=work.hold.token)


def _add_error(execution_id: UUID, sentence: str) -> None:
    execution = Execution.objects.select_for_update().get(pk=execution_id)
    execution.errors = with_error(execution.errors, sentence)
    execution.save(update_fields=["errors"])


def _fail_execution(execution_id: UUID, sentence: str) -> None:
    execution = Execution.objects.select_for_update().get(pk=execution_id)
    if execution.status == ExecutionStatus.RUNNING:
        execution.errors = with_error(execution.errors, sentence)
        executions.end(execution, status=ExecutionStatus.FAILED)


def _name(item: ExecutionImage | ExecutionBlob) -> str:
    if isinstance(item, ExecutionImage):
        return str(item)
    return f"the blob {item.digest} of {item.source}"
