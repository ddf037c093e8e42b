"""Several threads and workers at once: each piece of work has one claim, and organizations take turns."""

import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models import F

from registry_control.common.clock import database_now, now
from registry_control.common.models import ClockWatch
from registry_control.common.signals import clock_set_back
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims, outcomes, triggers
from registry_control.replication.engine.claims import Work, claim_next, others_wait, start_waiting
from registry_control.replication.engine.keeper import CLAIM, Interrupted
from registry_control.replication.engine.run import run
from registry_control.replication.engine.work import Context, Progress
from registry_control.replication.models import (
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionStatus,
    ItemState,
    Rule,
    Target,
)
from registry_control.replication.remote import registries
from registry_control.replication.services import executions, rules
from registry_control.replication.services.rules import actor_of_rule
from registry_data.storage.base import BlobStore
from tests.clocks import YEARS, check_times, wrong_clock_of_the_node
from tests.factories import TestKey, make_key, make_namespace, push_image
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction
from tests.integration.replication.scene import make_rule, make_target, work_off

pytestmark = pytest.mark.django_db(transaction=True)

NOWHERE = "http://127.0.0.1:9"


def start(owner: TestKey, namespace: Namespace, target: Target) -> Execution:
    rule = make_rule(owner, namespace, target)
    return rules.run(principal=owner.principal, rule_id=rule.pk)


@pytest.fixture
def target(owner: TestKey) -> Target:
    """To list images and to plan them, a push does not connect to its target."""
    return make_target(owner, NOWHERE)


@pytest.fixture
def planned(owner: TestKey, namespace: Namespace, target: Target, store: BlobStore) -> Execution:
    """An execution with six blobs to copy."""
    push_image(owner, namespace, layers=[os.urandom(50) for _ in range(5)], store=store)
    execution = start(owner, namespace, target)
    for _ in range(2):  # the list of images, and the image
        work = claim_next()
        assert work is not None
        run(work)
    assert ExecutionBlob.objects.count() == 6
    return execution


def claimed(calls: int) -> list[Work]:
    found = [claim_next() for _ in range(calls)]
    return [work for work in found if work is not None]


def test_each_piece_of_work_is_claimed_once(planned: Execution) -> None:
    works = claimed(8)
    assert [type(work.item) for work in works] == [ExecutionBlob] * 6
    assert len({work.item.pk for work in works}) == 6


@needs_postgresql
def test_threads_that_claim_at_once_get_different_work(planned: Execution) -> None:
    works = at_once(*[claim_next] * 4)
    assert all(isinstance(work, Work) for work in works)
    assert len({work.item.pk for work in works}) == 4


@needs_postgresql
def test_a_claim_does_not_wait_for_another_transaction(planned: Execution) -> None:
    with open_transaction():
        first = ExecutionBlob.objects.select_for_update().order_by("pk").first()
        assert first is not None
        work = Other(claim_next).end()
        assert work.item.pk != first.pk


def test_invariant_8_the_work_of_a_killed_worker_is_claimed_when_its_claim_has_ended(
    planned: Execution,
) -> None:
    # given claims that nobody renews
    lost = claimed(6)
    assert claim_next() is None
    ExecutionBlob.objects.update(claimed_until=now() - timedelta(seconds=1))

    # then others get the work
    taken = claimed(7)
    assert {work.item.pk for work in taken} == {work.item.pk for work in lost}

    # and the first ones record nothing any more
    outcomes.done(lost[0])
    outcomes.fail(lost[1], "too late")
    outcomes.count_sent(lost[2], 10)
    outcomes.retry(lost[3], "too late")
    outcomes.release(lost[4])
    planned.refresh_from_db()
    assert (planned.errors, planned.trouble, planned.bytes_done) == ([], "", 0)
    assert not ExecutionBlob.objects.exclude(state=ItemState.PENDING).exists()
    assert ExecutionBlob.objects.filter(claimed_until__gt=now()).count() == 6


def test_after_the_clock_was_set_back_work_waits_for_no_claim_of_the_future(planned: Execution) -> None:
    # given claims and attempts of a time when the clock was ten years ahead
    lost = claimed(6)
    ahead = now() + timedelta(days=3650)
    ExecutionBlob.objects.update(claimed_until=ahead)
    Execution.objects.update(next_attempt_at=ahead)
    Rule.objects.update(cron="0 3 * * *", next_run_at=ahead)

    # when times are corrected, then the work is claimed again, and the rule runs within a day
    clock_set_back.send(sender=ClockWatch)
    assert {work.item.pk for work in claimed(6)} == {work.item.pk for work in lost}
    next_run_at = Rule.objects.get().next_run_at
    assert next_run_at is not None
    assert now() < next_run_at <= now() + timedelta(days=1)


def test_a_cancelled_execution_has_no_work(planned: Execution, owner: TestKey) -> None:
    work = claim_next()
    executions.cancel(principal=owner.principal, execution_id=planned.pk)
    assert claim_next() is None
    assert work is not None
    run(work)
    planned.refresh_from_db()
    assert planned.status == ExecutionStatus.CANCELLED


def test_executions_of_a_rule_run_one_after_the_other(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given an execution that runs, and another one of the same rule
    first = start(owner, namespace, target)
    start_waiting()
    second = rules.run(principal=owner.principal, rule_id=first.rule_id)
    assert second.pk != first.pk
    start_waiting()
    second.refresh_from_db()
    assert second.status == ExecutionStatus.PENDING

    # when all work is done, then both have run
    work_off()
    for execution in (first, second):
        execution.refresh_from_db()
        assert execution.status == ExecutionStatus.SUCCEEDED
    assert first.finished_at is not None
    assert second.started_at is not None
    assert first.finished_at <= second.started_at


@needs_postgresql
def test_two_workers_start_one_execution_of_a_rule(
    owner: TestKey, namespace: Namespace, target: Target
) -> None:
    first = start(owner, namespace, target)
    Execution.objects.create(rule=first.rule, organization_id=first.organization_id, trigger="cron")
    outcomes_of_starts = at_once(*[start_waiting] * 4)
    assert outcomes_of_starts == [None] * 4
    assert Execution.objects.filter(status=ExecutionStatus.RUNNING).count() == 1


def test_organizations_take_turns(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given a large execution of one organization, and a small one of another
    for number in range(10):
        push_image(owner, namespace, f"app{number}", store=store)
    start(owner, namespace, target)
    work = claim_next()
    assert work is not None
    run(work)
    other = make_key()
    small = start(other, make_namespace(other), make_target(other, NOWHERE))

    # when two threads claim work, then each organization has one
    works = claimed(2)
    assert {work.execution.organization_id for work in works} == {
        owner.organization.pk,
        other.organization.pk,
    }
    for work in works:
        outcomes.release(work)

    # and the small one is done long before the large one
    while (work := claim_next()) is not None and small.status != ExecutionStatus.SUCCEEDED:
        run(work)
        small.refresh_from_db()
    assert ExecutionImage.objects.filter(
        execution__organization_id=owner.organization.pk, state=ItemState.PENDING
    ).exists()


def test_a_long_transfer_gives_way_only_to_organizations_that_have_work(
    planned: Execution, store: BlobStore
) -> None:
    work = claim_next()
    assert work is not None
    assert not others_wait(planned.organization_id)
    other = make_key()
    home = make_namespace(other)
    push_image(other, home, store=store)
    start(other, home, make_target(other, NOWHERE))
    start_waiting()
    assert others_wait(planned.organization_id)
    claims.claim_next()
    assert not others_wait(planned.organization_id)


def test_a_transfer_whose_turn_is_over_is_interrupted_for_others(
    planned: Execution, store: BlobStore, target: Target, namespace: Namespace
) -> None:
    # given a transfer that has had its turn
    work = claim_next()
    assert work is not None

    def sent(turn: float) -> list[bytes]:
        with registries.of(target) as registry:
            rule = work.execution.rule
            context = Context(work, rule, namespace, target, registry, store, actor_of_rule(rule))
            return list(Progress(context, offset=0, turn=turn).counted([b"a", b"b"]))

    # then it goes on as long as nobody waits
    assert sent(turn=0) == [b"a", b"b"]

    # and gives way to another organization
    other = make_key()
    home = make_namespace(other)
    push_image(other, home, store=store)
    start(other, home, make_target(other, NOWHERE))
    start_waiting()
    assert sent(turn=60) == [b"a", b"b"]
    with pytest.raises(Interrupted):
        sent(turn=0)


def test_the_blob_of_two_repositories_is_sent_once_and_mounted(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore, run_until: Callable[[], None]
) -> None:
    # given two images with the same layer, both of which are planned
    layer = os.urandom(1000)
    for name in ("one", "two"):
        push_image(owner, namespace, name, layers=(layer,), config=name.encode(), store=store)
    execution = start(owner, namespace, target)
    run_until()

    # when a thread copies the layer of one, then no other thread gets the same one of the other
    digests = [str(work.item) for work in claimed(10)]
    assert len(digests) == len(set(digests))
    assert ExecutionBlob.objects.filter(execution=execution).count() == 4


@pytest.fixture
def run_until() -> Callable[[], None]:
    """Does all work but that on blobs."""

    def work() -> None:
        start_waiting()
        for execution in Execution.objects.filter(status=ExecutionStatus.RUNNING):
            found = claims.claim_next()
            assert found is not None
            run(found)
            for _ in ExecutionImage.objects.filter(execution=execution):
                ExecutionBlob.objects.update(next_attempt_at=now() + timedelta(hours=1))
                image = claims.claim_next()
                assert image is not None
                run(image)
        ExecutionBlob.objects.update(next_attempt_at=now())

    return work


@pytest.mark.parametrize("error", [YEARS, -YEARS], ids=["ahead", "behind"])
def test_a_node_with_a_wrong_clock_keeps_no_other_from_its_work(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore, error: timedelta
) -> None:
    # given a node with a wrong clock that lists and plans an execution, claims some of it, and then dies
    pushed = push_image(owner, namespace, layers=[os.urandom(50) for _ in range(5)], store=store)
    hourly = make_rule(owner, namespace, target, cron="0 * * * *")
    pushing = make_rule(owner, namespace, target, on_push=True)
    with wrong_clock_of_the_node(error):
        rules.run(principal=owner.principal, rule_id=hourly.pk)
        for _ in range(2):
            work = claim_next()
            assert work is not None
            run(work)
        lost = claimed(1)
        outcomes.retry(claimed(1)[0], "the target is down")
        Rule.objects.filter(pk=hourly.pk).update(next_run_at=database_now())
        triggers.start_due(limit=10)
        push_image(owner, namespace, pushed.image.name, layers=[b"new"], store=store)
        triggers.start_pushed(limit=10)
        assert Execution.objects.filter(rule=pushing).count() == 1

    # then all times are those of the database
    shown = {f"{name}.{when}_at" for name in ("rule", "target") for when in ("created", "updated")}
    check_times("replication", only_shown=shown)

    # and others have the rest at once, and the lost claim when it is over
    again = ExecutionBlob.objects.filter(failures=1)
    again.update(next_attempt_at=F("next_attempt_at") + timedelta(hours=1))  # not due while the test runs
    others = claimed(10)
    assert len([work for work in others if isinstance(work.item, ExecutionBlob)]) == 4
    assert lost[0].item not in [work.item for work in others]
    ExecutionBlob.objects.filter(claimed_by=lost[0].hold.token).update(
        claimed_until=F("claimed_until") - CLAIM
    )
    assert lost[0].item in [work.item for work in claimed(10)]
