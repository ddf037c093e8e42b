"""Executions that pushes and schedules start."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from registry_control.common.clock import now
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import triggers
from registry_control.replication.models import (
    Direction,
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionImageBlob,
    ExecutionManifest,
    ExecutionStatus,
    PushEvent,
    Rule,
    Target,
    TargetBlob,
    Trigger,
)
from registry_control.replication.services import rules
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.storage.base import BlobStore
from tests.factories import TestKey, make_namespace, push_image
from tests.integration.replication.content import Local, image_manifest, index_manifest, push_remote
from tests.integration.replication.scene import executions_of, make_rule, make_target, run_rule, work_off

pytestmark = pytest.mark.django_db(transaction=True)


def images_of(execution: Execution) -> list[str]:
    return [str(image) for image in execution.images.order_by("pk")]


def test_a_push_is_replicated(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given rules, of which one replicates pushes
    rule = make_rule(owner, namespace, target, on_push=True)
    make_rule(owner, namespace, target)

    # when an image is pushed, then it is at the target
    push_image(owner, namespace, tags=("v1",), store=store)
    work_off()
    (execution,) = executions_of(rule)
    assert Execution.objects.count() == 1
    assert (execution.trigger, execution.status) == (Trigger.PUSH, ExecutionStatus.SUCCEEDED)
    assert list(remote.tags(f"{namespace.name}/app")) == ["v1"]

    # and the same push again starts nothing
    push_image(owner, namespace, tags=("v1",), store=store)
    assert not PushEvent.objects.exists()


def test_a_push_that_is_rolled_back_is_not_replicated(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    make_rule(owner, namespace, target, on_push=True)
    with transaction.atomic():
        push_image(owner, namespace)
        assert PushEvent.objects.exists()
        transaction.set_rollback(True)
    assert not PushEvent.objects.exists()


def test_pushes_during_an_execution_become_one_execution(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given an execution by a push that has not been worked on
    rule = make_rule(owner, namespace, target, on_push=True)
    push_image(owner, namespace, "first", store=store)
    triggers.start_pushed(limit=10)

    # when more is pushed, then there is one more execution when the first has ended
    for name in ("second", "third"):
        push_image(owner, namespace, name, store=store)
    triggers.start_pushed(limit=10)
    assert len(executions_of(rule)) == 1
    work_off()
    triggers.start_pushed(limit=10)
    first, second = executions_of(rule)
    assert first.status == ExecutionStatus.SUCCEEDED
    assert images_of(second) == [f"{namespace.name}/second:latest", f"{namespace.name}/third:latest"]


def test_a_push_that_no_glob_matches_is_not_replicated(
    owner: TestKey, namespace: Namespace, target: Target
) -> None:
    rule = make_rule(owner, namespace, target, on_push=True, repositories=["web/*"], tags="v*")
    push_image(owner, namespace, "web/app", tags=("latest",))
    push_image(owner, namespace, "db", tags=("v1",))
    push_image(owner, make_namespace(owner), "web/app", tags=("v1",))
    triggers.start_pushed(limit=10)
    assert executions_of(rule) == []
    assert not PushEvent.objects.exists()


@pytest.mark.parametrize("of_child", [False, True])
def test_a_signature_that_is_pushed_later_is_replicated(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    store: BlobStore,
    of_child: bool,
) -> None:
    # given an index that was replicated
    rule = make_rule(owner, namespace, target, on_push=True, tags="v1")
    local = Local(owner, namespace, "app", store)
    child = image_manifest(b"layer")
    index = index_manifest(child)
    local.push(child, b"layer")
    local.push(index, tags=["v1", "other"])
    work_off()

    # when a signature of it, or of its child, is pushed by digest
    subject = child if of_child else index
    signature = image_manifest(b"signature", subject=subject)
    local.push(signature, b"signature")
    work_off()

    # then it is at the target, too
    assert [execution.status for execution in executions_of(rule)] == [ExecutionStatus.SUCCEEDED] * 2
    listed = remote.referrers(f"{namespace.name}/app", Digest.of(subject))
    assert [entry.digest for entry in listed] == [Digest.of(signature)]


def test_a_signature_of_cosign_is_replicated_with_a_rule_for_another_tag(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    make_rule(owner, namespace, target, on_push=True, tags="v1")
    local = Local(owner, namespace, "app", store)
    digest = local.push(image_manifest(b"layer"), b"layer", tags=["v1"])
    work_off()
    tag = digest.replace(":", "-") + ".sig"
    local.push(image_manifest(b"signature"), b"signature", tags=[tag])
    work_off()
    assert sorted(remote.tags(f"{namespace.name}/app")) == [tag, "v1"]


def test_two_registries_that_replicate_to_each_other_come_to_rest(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given a namespace that pushes to the target, and pulls the same from there
    pushing = make_rule(owner, namespace, target, on_push=True)
    pulling = make_rule(owner, namespace, target, Direction.PULL, repositories=[f"{namespace.name}/*"])

    # when an image arrives from the target, then the push of it sends nothing
    push_remote(remote, f"{namespace.name}/app", image_manifest(b"x"), b"x", tag="v1")
    assert run_rule(owner, pulling).status == ExecutionStatus.SUCCEEDED
    work_off()
    (pushed,) = executions_of(pushing)
    assert (pushed.status, pushed.bytes_done) == (ExecutionStatus.SUCCEEDED, 0)

    # and the next pull starts no other push
    assert run_rule(owner, pulling).bytes_done == 0
    work_off()
    assert len(executions_of(pushing)) == 1


def test_a_schedule_starts_executions_and_missed_times_count_once(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given a rule for every minute, and no worker for an hour
    push_image(owner, namespace, store=store)
    rule = make_rule(owner, namespace, target, cron="* * * * *")
    assert triggers.start_due(limit=10) == 0
    Rule.objects.filter(pk=rule.pk).update(next_run_at=now() - timedelta(hours=1))

    # when the worker comes back, then one execution runs, and the next one is due within a minute
    work_off()
    (execution,) = executions_of(rule)
    assert (execution.trigger, execution.status) == (Trigger.CRON, ExecutionStatus.SUCCEEDED)
    rule.refresh_from_db()
    assert rule.next_run_at is not None
    assert timedelta() < rule.next_run_at - now() <= timedelta(minutes=1)
    assert triggers.start_due(limit=10) == 0


def test_times_are_utc(owner: TestKey, namespace: Namespace, target: Target) -> None:
    rule = make_rule(owner, namespace, target, cron="30 2 * * *")
    assert rule.next_run_at is not None
    due = rule.next_run_at.astimezone(UTC)
    assert (due.hour, due.minute, due > datetime.now(UTC)) == (2, 30, True)


def test_a_rule_that_is_disabled_forgets_pushes_and_times(
    owner: TestKey, namespace: Namespace, target: Target
) -> None:
    rule = make_rule(owner, namespace, target, cron="* * * * *", on_push=True)
    push_image(owner, namespace)
    assert PushEvent.objects.exists()
    rules.update(principal=owner.principal, rule_id=rule.pk, changes={"enabled": False})
    assert not PushEvent.objects.exists()
    assert Rule.objects.get().next_run_at is None
    push_image(owner, namespace, "other")
    work_off()
    assert executions_of(rule) == []


def test_rows_of_finished_executions_and_deleted_rules_are_deleted(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given a finished execution
    push_image(owner, namespace, store=store)
    rule = make_rule(owner, namespace, target)
    execution = run_rule(owner, rule)
    assert ExecutionBlob.objects.exists()

    # when the worker cleans up, then the rows of its work are deleted, and it stays
    while triggers.clean_up(limit=10):
        pass
    for model in (ExecutionImage, ExecutionManifest, ExecutionBlob, ExecutionImageBlob):
        assert not model.objects.exists()
    assert Execution.objects.filter(pk=execution.pk).exists()

    # and it goes after 30 days, with what is known of the target
    Execution.objects.update(finished_at=now() - timedelta(days=31))
    TargetBlob.objects.update(seen_at=now() - timedelta(days=31))
    triggers.clean_up(limit=10)
    assert not Execution.objects.exists()
    assert not TargetBlob.objects.exists()

    # and a deleted rule goes with its executions
    run_rule(owner, rule)
    rules.delete(principal=owner.principal, rule_id=rule.pk)
    while triggers.clean_up(limit=10):
        pass
    triggers.clean_up(limit=10)
    assert not Rule.objects.exists()
    assert not Execution.objects.exists()


def test_events_cost_nothing_without_a_rule(owner: TestKey, namespace: Namespace) -> None:
    make_target(owner, "https://registry.example.com")
    push_image(owner, namespace)
    assert not PushEvent.objects.exists()
