"""Recording when images, manifests and tags were last pulled."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import DjangoAssertNumQueries

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.services import tags
from registry_control.catalog.services.pulls import FRESH, Pull, record
from registry_control.common.clock import now
from registry_control.common.models import Change
from registry_control.namespaces.models import Namespace
from tests.factories import Pushed, TestKey, push_image
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SECONDS = timedelta(seconds=10)  # that a test takes at most


@pytest.fixture
def pushed(owner: TestKey, namespace: Namespace) -> Pushed:
    return push_image(owner, namespace, "app", tags=("a", "b"))


def pull_of(pushed: Pushed, tag: str | None) -> Pull:
    manifest = Manifest.objects.get(image=pushed.image_id, digest=pushed.digest)
    return Pull(pushed.image_id, manifest.pk, None if tag is None else pushed.tag(tag).pk)


def last_pulled(pushed: Pushed, tag: str) -> tuple[datetime | None, datetime | None, datetime | None]:
    manifest = Manifest.objects.get(image=pushed.image_id, digest=pushed.digest)
    return pushed.image.last_pulled_at, manifest.last_pulled_at, pushed.tag(tag).last_pulled_at


def store(at: datetime | None) -> None:
    Image.objects.update(last_pulled_at=at)
    Manifest.objects.update(last_pulled_at=at)
    Tag.objects.update(last_pulled_at=at)


def test_a_pull_by_tag_sets_the_time_of_tag_manifest_and_image(pushed: Pushed) -> None:
    record({pull_of(pushed, "a"): 0.0})
    times = last_pulled(pushed, "a")
    assert all(at is not None and abs(now() - at) < SECONDS for at in times)
    assert pushed.tag("b").last_pulled_at is None


def test_a_pull_by_digest_sets_the_time_of_no_tag(pushed: Pushed) -> None:
    record({pull_of(pushed, None): 0.0})
    image, manifest, tag = last_pulled(pushed, "a")
    assert image is not None
    assert manifest is not None
    assert tag is None


def test_the_time_is_that_of_the_pull_and_the_latest_counts(pushed: Pushed) -> None:
    record({pull_of(pushed, "a"): 7200.0, pull_of(pushed, "b"): 300.0})
    image, manifest, tag = last_pulled(pushed, "a")
    assert tag is not None
    assert abs(now() - 2 * HOUR - tag) < SECONDS
    assert image == manifest == pushed.tag("b").last_pulled_at
    assert image is not None
    assert abs(now() - 5 * MINUTE - image) < SECONDS


def test_nothing_is_written_while_the_stored_times_are_fresh(pushed: Pushed) -> None:
    stored = now() - FRESH + MINUTE
    store(stored)
    outcome = record({pull_of(pushed, "a"): 0.0})
    assert last_pulled(pushed, "a") == (stored, stored, stored)

    # and the caller learns until when
    (seconds,) = outcome.fresh_for.values()
    assert abs(seconds - 60) < 10


def test_an_old_time_is_replaced(pushed: Pushed) -> None:
    store(now() - FRESH - MINUTE)
    outcome = record({pull_of(pushed, "a"): 0.0})
    assert all(at is not None and abs(now() - at) < SECONDS for at in last_pulled(pushed, "a"))
    (seconds,) = outcome.fresh_for.values()
    assert abs(seconds - FRESH.total_seconds()) < 10


def test_a_late_record_of_an_earlier_pull_does_not_set_a_time_back(pushed: Pushed) -> None:
    stored = now() - 2 * HOUR
    store(stored)
    record({pull_of(pushed, "a"): 5 * 3600.0})
    assert last_pulled(pushed, "a") == (stored, stored, stored)


def test_a_time_in_the_future_is_replaced_by_the_next_pull(pushed: Pushed) -> None:
    # given times from a clock that was a year ahead; when the image is pulled, then the times are right
    store(now() + timedelta(days=365))
    record({pull_of(pushed, "a"): 0.0})
    assert all(at is not None and abs(now() - at) < SECONDS for at in last_pulled(pushed, "a"))


def test_rows_that_are_deleted_meanwhile_are_ignored(pushed: Pushed) -> None:
    pull = Pull(uuid4(), 2**40, uuid4())
    outcome = record({pull: 0.0, pull_of(pushed, None): 0.0})
    assert outcome.locked == []
    assert pull in outcome.fresh_for
    assert pushed.image.last_pulled_at is not None


def test_it_changes_neither_updated_at_nor_the_change_log_nor_the_audit_log(pushed: Pushed) -> None:
    before = (pushed.image.updated_at, pushed.tag("a").updated_at)
    changes, events = Change.objects.count(), AuditEvent.objects.count()
    record({pull_of(pushed, "a"): 0.0})
    assert (pushed.image.updated_at, pushed.tag("a").updated_at) == before
    assert (Change.objects.count(), AuditEvent.objects.count()) == (changes, events)


def test_the_number_of_statements_does_not_depend_on_the_number_of_pulls(
    owner: TestKey, namespace: Namespace, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    pulls = [pull_of(push_image(owner, namespace, f"app-{each}"), "latest") for each in range(20)]
    # the clock, one read and one update of each table, BEGIN and COMMIT
    with django_assert_max_num_queries(9):
        record(dict.fromkeys(pulls, 0.0))
    assert not Image.objects.filter(last_pulled_at=None).exists()

    # and without anything to write there is no transaction
    with django_assert_max_num_queries(4):
        record(dict.fromkeys(pulls, 0.0))


def test_large_manifests_are_written_too(owner: TestKey, namespace: Namespace, pushed: Pushed) -> None:
    # given a manifest that is so large that it has a transaction to itself: SQLite rewrites its whole row
    other = push_image(owner, namespace, "other")
    Manifest.objects.filter(digest=other.digest).update(size=70_000)
    pulls = {pull_of(pushed, "a"): 0.0, pull_of(other, "latest"): 0.0}
    assert record(pulls).fresh_for.keys() == pulls.keys()
    assert None not in last_pulled(pushed, "a")
    assert None not in last_pulled(other, "latest")


@needs_postgresql
@pytest.mark.parametrize("model", [Image, Manifest, Tag])
def test_rows_that_another_transaction_has_locked_are_left_for_later(
    owner: TestKey, namespace: Namespace, pushed: Pushed, model: Any
) -> None:
    # given a row that a push has locked, for example
    other = push_image(owner, namespace, "other")
    pulls = {pull_of(pushed, "a"): 0.0, pull_of(other, "latest"): 0.0}
    pk = pull_of(pushed, "a")[[Image, Manifest, Tag].index(model)]
    with open_transaction():
        model.objects.select_for_update().get(pk=pk)

        # when pulls are recorded, then that waits for nothing, and the other rows are written
        outcome = Other(lambda: record(pulls)).end()
        assert list(outcome.locked) == [pull_of(pushed, "a")]
        assert None not in last_pulled(other, "latest")
        assert sum(at is None for at in last_pulled(pushed, "a")) == 1

    # and when the lock is gone, then the row is written
    assert record(pulls).locked == []
    assert None not in last_pulled(pushed, "a")


@needs_postgresql
def test_recording_pushing_and_deleting_at_once_end_without_a_deadlock(
    owner: TestKey, namespace: Namespace
) -> None:
    # given images whose tags move and disappear all the time
    names = [f"app-{number}" for number in range(4)]
    for name in names:
        push_image(owner, namespace, name, tags=("a", "b"))

    def push(own: str, order: list[str]) -> None:
        for round_ in range(8):
            for name in order:
                layers = [own.encode(), b"%d" % round_]
                image = push_image(owner, namespace, name, tags=("a", own), layers=layers)
                tags.untag(actor=owner.actor, image_id=image.image_id, name=own)

    # when two processes record pulls of them, each an hour later than the one before
    def record_all() -> None:
        for hours in range(200, 100, -1):
            manifests = Manifest.objects.order_by("?").values_list("image_id", "pk", "tags")
            record({Pull(*row): hours * 3600.0 for row in manifests})

    outcomes = at_once(lambda: push("x", names), lambda: push("y", names[::-1]), record_all, record_all)

    # then nothing fails
    assert outcomes == [None] * 4
    assert not Image.objects.filter(last_pulled_at=None).exists()
