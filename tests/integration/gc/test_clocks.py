"""Clocks of nodes that are wrong, and a clock of the database that jumps."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from django.conf import settings

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from registry_control.catalog.selectors import resolve
from registry_control.catalog.services import blobs, deletion
from registry_control.common import clock, clock_watch
from registry_control.common.clock import database_now
from registry_control.common.models import ClockWatch
from registry_control.gc.policy import Rules
from registry_control.gc.services import breaker, clock_repair
from registry_control.gc.services.collector import collect_batch
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, push_blob, push_image
from tests.integration.control.api import Api
from tests.integration.gc.steps import GRACE, delete_image

pytestmark = pytest.mark.django_db(transaction=True)

DAYS: Final = timedelta(days=3)
_CODE: Final = Path(clock.__file__).parents[1]


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_watch, "_memory", clock_watch.Memory())


def _set_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Let the clock of the database jump, as far as processes that watch it are concerned."""
    monkeypatch.setattr(clock_watch, "database_now", lambda: database_now() + ahead)


def _rules(ahead: timedelta = timedelta(0)) -> Rules:
    return Rules(database_now() + ahead, GRACE)


@pytest.mark.parametrize("name", ["catalog/references.py", "gc/services/collector.py", "gc/tasks.py"])
def test_leases_and_grace_periods_are_not_compared_with_the_clock_of_a_node(name: str) -> None:
    text = (_CODE / name).read_text()
    assert "import now" not in text
    assert "timezone" not in text


def test_a_lease_and_its_reading_have_the_time_of_the_database(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace, tags=(), layers=[b"layer"])
    digest = push_blob(owner, pushed.image_id, b"uploaded")
    until = BlobLease.objects.get(blob__digest=digest).expires_at
    expected = datetime.now(UTC) + settings.BLOB_LEASE + resolve.ANSWER_TIME
    assert abs(until - expected) < timedelta(seconds=30)
    _, found = resolve.blob(namespace.name, pushed.image.name, digest)
    assert found is not None
    assert abs(found.read_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert found.is_held

    # and a longer promise holds longer
    blobs.promise(blob_id=found.id, image_id=pushed.image_id, at_least=timedelta(days=9))
    assert BlobLease.objects.get(blob__digest=digest).expires_at > until + timedelta(days=7)


def test_after_a_jump_forward_no_lease_ends_and_nothing_goes(
    owner: TestKey,
    namespace: Namespace,
    store: FilesystemStore,
    operator: TestKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a deleted image, a blob with a lease, and a worker that watches the clock
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)
    leasing = push_image(owner, namespace, "leasing", layers=[b"kept"], config=b"kept", store=store)
    digest = push_blob(owner, leasing.image_id, b"uploaded", store=store)
    assert clock_watch.check().reason == ""

    # when the clock jumps by days, so that all of it looks old
    _set_clock(monkeypatch, DAYS)
    BlobLease.objects.update(expires_at=database_now() - timedelta(days=1))
    batch = collect_batch(store=store, rules=_rules(DAYS), limit=10)

    # then nothing goes, no lease ends, and everyone can see why
    assert "the clock jumped forward" in batch.stopped
    assert deletion.remove_expired_leases(limit=10) == 0
    assert BlobLease.objects.filter(blob__digest=digest).exists()
    assert Blob.objects.count() == 4
    queue = Api(operator).get("/registry/v1beta1/regions/fr-par/gc/queue").body
    assert "the clock jumped forward" in queue["reason"]
    assert not queue["stopped_by_breaker"]

    # and an operator who knows that the clock is right ends the wait
    breaker.release(actor=owner.actor)
    assert AuditEvent.objects.filter(verb="gcclock.release").count() == 1
    assert collect_batch(store=store, rules=_rules(DAYS), limit=10).removed == 2


def test_a_run_without_the_grace_period_does_not_wait_for_the_clock(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)
    clock_watch.check()
    _set_clock(monkeypatch, DAYS)
    assert clock_watch.check().reason
    rules = Rules(database_now(), GRACE, ignore_grace=True)
    assert collect_batch(store=store, rules=rules, limit=10).removed == 2


def test_a_jump_backward_keeps_nothing_for_longer(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given rows that were written while the clock was ten years ahead
    delete_image(push_image(owner, namespace, layers=[b"a", b"b"], store=store), store)
    leasing = push_image(owner, namespace, "leasing", layers=[b"kept"], config=b"kept", store=store)
    digest = push_blob(owner, leasing.image_id, b"uploaded", store=store)
    ahead = database_now() + timedelta(days=3650)
    BlobReview.objects.update(unreferenced_since=ahead)
    failing = BlobReview.objects.order_by("pk")[0]
    Blob.objects.filter(pk=failing.pk).update(state="deleting")
    BlobReview.objects.filter(pk=failing.pk).update(retry_at=ahead)
    BlobLease.objects.update(expires_at=ahead)
    ClockWatch.objects.create(pk=1, seen_at=ahead)
    monkeypatch.setattr(clock_watch, "CONFIRMATION", 0.0)

    # when a worker sees the right time
    assert "differs" in clock_watch.check().reason
    clock_repair.repair_if_needed()
    later = _rules(GRACE + timedelta(minutes=1))
    removed = sum(collect_batch(store=store, rules=later, limit=10).removed for _ in range(2))

    # then everything goes as if it had been released now
    assert removed == 3
    until = BlobLease.objects.get(blob__digest=digest).expires_at
    assert database_now() + settings.BLOB_LEASE <= until <= database_now() + timedelta(days=1, minutes=1)
    assert not ClockWatch.objects.get().needs_repair


def test_a_process_with_a_wrong_clock_does_not_collect_beside_others(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker with the right time, and a command whose clock is days ahead
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)
    clock_watch.check()
    monkeypatch.setattr(clock_watch, "_memory", clock_watch.Memory())
    monkeypatch.setattr(clock_watch, "CONFIRMATION", 0.0)
    _set_clock(monkeypatch, DAYS)

    # when the worker goes on meanwhile, then the command never takes its own time for right
    for _ in range(3):
        assert "differs" in collect_batch(store=store, rules=_rules(DAYS), limit=10).stopped
        ClockWatch.objects.update(seen_at=database_now())
    assert Blob.objects.count() == 2
