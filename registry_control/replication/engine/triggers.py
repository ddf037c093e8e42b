"""Starts executions by pushes and schedules, and deletes rows that are no longer needed."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, Min, OuterRef

from registry_control.catalog.models import Image, Manifest
from registry_control.catalog.services import blobs, uploads
from registry_control.common.clock import database_now
from registry_control.common.globs import matches, matches_any
from registry_control.common.models import NOT_DELETING
from registry_control.db.functions import DatabaseNow
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import content
from registry_control.replication.engine.listing import destination_of, new_image
from registry_control.replication.models import (
    UNFINISHED,
    Direction,
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionImageBlob,
    ExecutionManifest,
    PushEvent,
    Rule,
    TargetBlob,
    Trigger,
)
from registry_control.replication.policy import next_time
from registry_control.replication.services import executions
from registry_data.client.referrers import is_fallback_tag

KEPT: Final = timedelta(days=30)
"""How long a finished execution is kept, and what is known of a target's blobs."""

_EVENTS: Final = 1000  # of one execution


def start_due(*, limit: int) -> int:
    """Start an execution of each rule whose schedule is due; returns how many.

    A time that passed while no worker ran counts once, however many there were.
    """
    due = (
        Rule.objects.filter(next_run_at__lte=DatabaseNow())
        .order_by("next_run_at")
        .values_list("pk", flat=True)
    )
    return sum(_start_due(pk) for pk in list(due[:limit]))


@transaction.atomic
def _start_due(pk: UUID) -> bool:
    moment = database_now()
    rule = Rule.objects.select_for_update(skip_locked=True).filter(pk=pk, next_run_at__lte=moment).first()
    if rule is None:
        return False
    is_live = rule.enabled and rule.deleted_at is None and bool(rule.cron)
    if is_live:
        executions.start(rule, trigger=Trigger.CRON)
    rule.next_run_at = next_time(rule.cron, after=moment) if is_live else None
    rule.save(update_fields=["next_run_at"])
    return True


def start_pushed(*, limit: int) -> int:
    """Turn recorded pushes into executions, one for each rule; returns how many rules had any.

    The pushes that arrive while an execution of the rule is unfinished wait for its end and become one.
    """
    unfinished = Execution.objects.filter(status__in=UNFINISHED).values("rule")
    waiting = PushEvent.objects.exclude(rule__in=unfinished).values("rule").annotate(first=Min("pk"))
    return sum(
        _start_pushed(pk) for pk in list(waiting.order_by("first").values_list("rule", flat=True)[:limit])
    )


@transaction.atomic
def _start_pushed(rule_id: UUID) -> bool:
    locked = Rule.objects.select_for_update(skip_locked=True, of=("self",)).select_related("namespace")
    rule = locked.filter(pk=rule_id).first()
    if rule is None or Execution.objects.filter(rule=rule, status__in=UNFINISHED).exists():
        return False
    events = list(PushEvent.objects.filter(rule=rule).order_by("pk")[:_EVENTS])
    PushEvent.objects.filter(pk__in=[event.pk for event in events]).delete()
    if not (events and rule.on_push and rule.enabled and rule.namespace):
        return False
    wanted = _images_of(rule, rule.namespace, events)
    if not wanted:
        return True
    execution = executions.create(rule, trigger=Trigger.PUSH, pushed=len(wanted))
    ExecutionImage.objects.bulk_create(
        new_image(execution, source, destination, reference)
        for source, destination, reference in sorted(wanted)
    )
    return True


def _images_of(rule: Rule, namespace: Namespace, events: Iterable[PushEvent]) -> set[tuple[str, str, str]]:
    """Source, destination and tag of what was pushed, as far as the rule matches it."""
    wanted: set[tuple[str, str, str]] = set()
    by_image: dict[UUID, list[PushEvent]] = {}
    for event in events:
        by_image.setdefault(event.image_id, []).append(event)
    for image in Image.objects.filter(NOT_DELETING, pk__in=by_image, namespace=namespace):
        source = f"{namespace.name}/{image.name}"
        destination = destination_of(rule, namespace, source)
        if destination is None or not matches_any(rule.repositories, image.name):
            continue
        tags = {tag for event in by_image[image.pk] if (tag := _tag_of(rule, image, event))}
        wanted |= {(source, destination, tag) for tag in tags}
    return wanted


def _tag_of(rule: Rule, image: Image, event: PushEvent) -> str | None:
    """The tag to replicate after a push; None if the rule does not match what was pushed.

    A manifest with a subject belongs to the tags that reach the subject: one of them is replicated again, and
    the new referrer with it. A manifest without tag and subject is replicated when an index or tag follows.
    """
    if event.tag and matches(rule.tags, event.tag) and not is_fallback_tag(event.tag):
        return event.tag
    subject = content.subject_of_tag(event.tag)
    if not subject:
        pushed = Manifest.objects.filter(image=image, digest=event.digest)
        subject = pushed.values_list("subject_digest", flat=True).first()
    if not subject:
        return None
    reached = content.tags_reaching(image, subject)
    return next((tag for tag in reached if matches(rule.tags, tag)), None)


def clean_up(*, limit: int) -> bool:
    """Delete a batch of rows of finished executions, old executions and deleted rules.

    Returns whether there may be more.
    """
    deleted = _delete_details(limit) + _delete_old(limit) + _delete_rules(limit)
    old = TargetBlob.objects.filter(seen_at__lt=DatabaseNow() - KEPT).values_list("pk", flat=True)[:limit]
    with transaction.atomic():
        deleted += TargetBlob.objects.filter(pk__in=list(old)).delete()[0]
    return deleted >= limit


def _delete_details(limit: int) -> int:
    """Delete the rows of images, manifests and blobs of finished executions."""
    finished = {"execution__finished_at__isnull": False}
    with transaction.atomic():
        images = list(ExecutionImage.objects.filter(**finished).values_list("pk", flat=True)[: limit // 10])
        needs = ExecutionImageBlob.objects.filter(image__in=images).values_list("pk", flat=True)[:limit]
        deleted = ExecutionImageBlob.objects.filter(pk__in=list(needs)).delete()[0]
        if deleted == limit:
            return deleted
        manifests = ExecutionManifest.objects.filter(image__in=images).values_list("pk", flat=True)[:limit]
        deleted += ExecutionManifest.objects.filter(pk__in=list(manifests)).delete()[0]
        if deleted >= limit:
            return deleted
        deleted += ExecutionImage.objects.filter(pk__in=images).delete()[0]
    return deleted + _delete_blobs(finished, limit)


def _delete_blobs(finished: dict[str, bool], limit: int) -> int:
    unneeded = ExecutionBlob.objects.filter(needed_by__isnull=True, **finished)
    with transaction.atomic():
        rows = list(unneeded.select_related("execution__rule")[:limit])
        pulled = [blob for blob in rows if blob.execution.rule.direction == Direction.PULL]
        for blob in pulled:
            if blob.upload:
                uploads.close(session_id=UUID(blob.upload))  # the worker deletes its bytes
        _end_leases(pulled)
        return ExecutionBlob.objects.filter(pk__in=[blob.pk for blob in rows]).delete()[0]


def _end_leases(pulled: Iterable[ExecutionBlob]) -> None:
    """Let blobs go for which no manifest came; blobs with a manifest stay."""
    by_image: dict[tuple[UUID | None, str], list[str]] = {}
    for blob in pulled:
        place = (blob.execution.rule.namespace_id, blob.destination)
        by_image.setdefault(place, []).append(blob.digest)
    for (namespace_id, name), digests in by_image.items():
        image = content.find_image(namespace_id, name) if namespace_id else None
        if image is not None:
            blobs.end_promises(digests, image_id=image.pk)


def _delete_old(limit: int) -> int:
    """Delete executions that ended long ago or whose rule was deleted, when their rows are gone."""
    empty = Execution.objects.filter(images__isnull=True, blobs__isnull=True, finished_at__isnull=False)
    deleted = 0
    for gone in ({"finished_at__lt": DatabaseNow() - KEPT}, {"rule__deleted_at__isnull": False}):
        with transaction.atomic():
            pks = list(empty.filter(**gone).values_list("pk", flat=True)[:limit])
            deleted += Execution.objects.filter(pk__in=pks).delete()[0]
    return deleted


def _delete_rules(limit: int) -> int:
    with transaction.atomic():
        empty = Rule.objects.filter(deleted_at__isnull=False, executions__isnull=True)
        pks = list(empty.values_list("pk", flat=True)[:limit])
        PushEvent.objects.filter(rule__in=pks).delete()
        # Pushes that committed after the deletion of their rule.
        PushEvent.objects.filter(~Exists(Rule.objects.filter(pk=OuterRef("rule")))).delete()
        return Rule.objects.filter(pk__in=pks).delete()[0]
