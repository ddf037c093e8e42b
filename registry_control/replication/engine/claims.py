"""Chooses the next piece of work of all executions and claims it for one thread (ADR 55).

Organizations take turns: the one with the fewest claims is served first, and among its executions the one
that was served least recently. Within an execution, images whose blobs are all there come first, then blobs,
then images that have not been looked at, so that only a few images have detailed rows at a time.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from registry_control.db.functions import DatabaseNow
from registry_control.replication.engine.keeper import CLAIM, Hold
from registry_control.replication.models import (
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionImageBlob,
    ExecutionStatus,
    ItemState,
    Rule,
)
from registry_control.replication.services import executions

_CONSIDERED: Final = 100  # running executions, the least recently served ones

Item = Execution | ExecutionImage | ExecutionBlob
ItemT = TypeVar("ItemT", Execution, ExecutionImage, ExecutionBlob)


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed item with the claim. An execution as the item: its images are to be listed."""

    item: Item
    execution: Execution
    hold: Hold


def claim_next() -> Work | None:
    """Claim the next piece of work; None if there is none at the moment.

    Starts executions that wait, and ends those that have no work left.
    """
    start_waiting()
    busy = _claims_by_organization()
    candidates = list(_running().order_by("served_at")[:_CONSIDERED])
    for execution in sorted(candidates, key=lambda one: (busy[one.organization_id], one.served_at)):
        work = _claim_in(execution)
        if work is not None:
            return work
    return None


def others_wait(organization_id: UUID) -> bool:
    """Whether another organization has work that no thread does, so that a long transfer should pause."""
    busy = [*_claims_by_organization()]
    free = _running().exclude(organization_id__in=[organization_id, *busy])
    pending: list[Exists] = [
        Exists(model.objects.filter(_due(), execution=OuterRef("pk"), state=ItemState.PENDING))
        for model in (ExecutionImage, ExecutionBlob)
    ]
    return free.filter(Q(is_planned=False) | Q(pending[0]) | Q(pending[1])).exists()


def start_waiting() -> None:
    """Start executions whose rule has none that runs, the oldest of each rule first."""
    running = Execution.objects.filter(rule=OuterRef("rule"), status=ExecutionStatus.RUNNING)
    pending = Execution.objects.filter(~Exists(running), status=ExecutionStatus.PENDING)
    for pk, rule_id in list(pending.order_by("created_at").values_list("pk", "rule_id")[:_CONSIDERED]):
        _start(pk, rule_id)


@transaction.atomic
def _start(pk: UUID, rule_id: UUID) -> None:
    # Under the lock of the rule, two workers do not start two executions of it.
    rule = Rule.objects.select_for_update(skip_locked=True).filter(pk=rule_id).values_list("pk").first()
    if rule is None or Execution.objects.filter(rule=rule_id, status=ExecutionStatus.RUNNING).exists():
        return
    now = DatabaseNow()
    Execution.objects.filter(pk=pk, status=ExecutionStatus.PENDING).update(
        status=ExecutionStatus.RUNNING, started_at=now, served_at=now, next_attempt_at=now
    )


def _running() -> QuerySet[Execution]:
    return Execution.objects.filter(status=ExecutionStatus.RUNNING, next_attempt_at__lte=DatabaseNow())


def _due() -> Q:
    """Items that nobody works on and that need not wait."""
    now = DatabaseNow()
    return Q(next_attempt_at__lte=now) & (Q(claimed_until=None) | Q(claimed_until__lte=now))


def _claims_by_organization() -> Counter[UUID]:
    claimed = {"claimed_by__isnull": False, "claimed_until__gt": DatabaseNow()}
    counts: Counter[UUID] = Counter(
        Execution.objects.filter(**claimed).values_list("organization_id", flat=True)
    )
    for model in (ExecutionImage, ExecutionBlob):
        counts.update(model.objects.filter(**claimed).values_list("execution__organization_id", flat=True))
    return counts


def _claim_in(execution: Execution) -> Work | None:
    if not execution.is_planned:
        return _claim(Execution.objects.filter(pk=execution.pk, is_planned=False), execution)
    work = (
        _claim(_ready_images(execution), execution)
        or _claim(_free_blobs(execution), execution)
        or _claim(_images(execution, ItemState.PENDING), execution)
    )
    if work is None:
        end_if_done(execution.pk)
    return work


def _images(execution: Execution, state: ItemState) -> QuerySet[ExecutionImage]:
    return ExecutionImage.objects.filter(execution=execution, state=state)


def _ready_images(execution: Execution) -> QuerySet[ExecutionImage]:
    missing = ExecutionImageBlob.objects.filter(image=OuterRef("pk")).exclude(blob__state=ItemState.DONE)
    return _images(execution, ItemState.PLANNED).filter(~Exists(missing))


def _free_blobs(execution: Execution) -> QuerySet[ExecutionBlob]:
    """Pending blobs, without those on their way to another repository, from which they can be mounted."""
    own = ExecutionBlob.objects.filter(execution=execution)
    under_way = own.filter(claimed_by__isnull=False, claimed_until__gt=DatabaseNow())
    return own.filter(state=ItemState.PENDING).exclude(
        digest__in=list(under_way.values_list("digest", flat=True))
    )


@transaction.atomic
def _claim(found: QuerySet[ItemT], execution: Execution) -> Work | None:
    # In the order of the index: however many rows wait, one is read.
    free = found.select_for_update(skip_locked=True, of=("self",)).filter(_due())
    item = free.order_by("next_attempt_at").first()
    if item is None:
        return None
    claim, model = uuid4(), type(item)
    model._default_manager.filter(pk=item.pk).update(claimed_by=claim, claimed_until=DatabaseNow() + CLAIM)
    Execution.objects.filter(pk=execution.pk).update(served_at=DatabaseNow())
    return Work(item, execution, Hold(model, claim, execution.pk))


@transaction.atomic
def end_if_done(execution_id: UUID) -> None:
    """Set the final status of an execution when no image is left to copy."""
    execution = Execution.objects.select_for_update().filter(pk=execution_id).first()
    if execution is None or execution.status != ExecutionStatus.RUNNING or not execution.is_planned:
        return
    own = ExecutionImage.objects.filter(execution=execution)
    _fail_images_without_hope(execution)
    if own.filter(state__in=(ItemState.PENDING, ItemState.PLANNED)).exists():
        return
    failed = execution.errors or own.filter(state=ItemState.FAILED).exists()
    executions.end(execution, status=ExecutionStatus.FAILED if failed else ExecutionStatus.SUCCEEDED)


def _fail_images_without_hope(execution: Execution) -> None:
    """Fail images that need a blob which failed before they were planned; its error is recorded."""
    failed = ExecutionBlob.objects.filter(execution=execution, state=ItemState.FAILED).values("pk")
    needing = ExecutionImageBlob.objects.filter(blob__in=failed).values("image")
    _images(execution, ItemState.PLANNED).filter(pk__in=needing).update(state=ItemState.FAILED)
