"""Clocks of nodes that are wrong, and a clock of the database that jumps."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from registry_control.catalog.selectors import resolve
from registry_control.catalog.services import blobs, deletion
from registry_control.common import clock, clock_watch
from registry_control.common.clock import database_now
from registry_control.common.models import ClockWatch
from registry_control.common.store import blob_store
from registry_control.gc.models import GcRun
from registry_control.gc.policy import Rules
from registry_control.gc.services import breaker, clock_repair
from registry_control.gc.services.collector import collect_batch
from registry_control.gc.services.requested import advance_runs, start_run
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, push_blob, push_image
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


def _gc(*arguments: str) -> dict[str, Any]:
    """The document of the command, whether or not it fails."""
    out = StringIO()
    with suppress(CommandError):
        call_command("gc", "--json", *arguments, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


@pytest.fixture
def due(owner: TestKey, namespace: Namespace) -> Pushed:
    """A deleted image with two blobs that are due."""
    store = blob_store()
    store.check()
    pushed = push_image(owner, namespace, layers=[b"layer"], store=store)
    delete_image(pushed, store)
    BlobReview.objects.update(unreferenced_since=database_now() - DAYS)
    return pushed


@pytest.fixture
def held(due: Pushed, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A clock that has jumped by an hour; returns until when nothing is deleted by its age."""
    clock_watch.check()
    _set_clock(monkeypatch, timedelta(hours=1))
    assert clock_watch.check().reason
    until = ClockWatch.objects.get().held_until
    assert until is not None
    return until


def test_explain_does_not_promise_what_the_clock_holds(due: Pushed, owner: TestKey, held: datetime) -> None:
    for each in BlobReview.objects.select_related("blob"):
        digest = each.blob.digest
        for found in (_explain(owner, digest), _gc("--explain", digest)):
            assert (found["state"], datetime.fromisoformat(found["goes_at"])) == ("waiting", held)
            assert "the clock jumped forward" in found["reason"]

    # and what goes later anyway has its own time
    BlobReview.objects.update(unreferenced_since=database_now() + DAYS)
    found = _explain(owner, due.blobs[0])
    assert datetime.fromisoformat(found["goes_at"]) > held
    assert "clock" not in found["reason"]


def _explain(key: TestKey, digest: str) -> dict[str, Any]:
    body: dict[str, Any] = Api(key).get("/registry/v1beta1/regions/fr-par/gc/explain", digest=digest).body
    return body


def test_a_command_says_that_the_clock_holds_deletions(due: Pushed, held: datetime) -> None:
    # given one of the two blobs marked before the jump
    Blob.objects.filter(digest=due.blobs[1]).update(state="deleting")
    BlobReview.objects.filter(blob__digest=due.blobs[1]).update(retry_at=database_now())

    # when a dry run and a run are started, then only that one goes, and both say why
    for arguments in (("--dry-run",), ()):
        found = _gc(*arguments)
        assert (found["blobs"], found["stopped_by_breaker"]) == (1, False)
        assert "the clock jumped forward" in found["reason"]
        [waiting] = [each for each in found["waiting"] if each["digest"] == due.blobs[0]]
        assert "the clock jumped forward" in waiting["reason"]
        assert datetime.fromisoformat(waiting["until"]) == held
    assert GcRun.objects.get(kind="command").status == "stopped"
    assert "waits: the clock jumped forward" in _text("--dry-run")

    # and without the grace period they do not wait
    assert _gc("--dry-run", "--now")["reason"] == ""
    assert _gc("--now")["blobs"] == 1


def _text(*arguments: str) -> str:
    out = StringIO()
    call_command("gc", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_requested_run_says_that_the_clock_holds_deletions(
    due: Pushed, held: datetime, store: FilesystemStore, *, dry_run: bool
) -> None:
    run = start_run(actor=SYSTEM, dry_run=dry_run)
    while advance_runs(store=store, limit=1):
        run.refresh_from_db()
        if run.status != "running":
            break
    run.refresh_from_db()
    assert (run.status, run.blobs, run.bytes) == ("stopped", 0, 0)
    assert "the clock jumped forward" in run.errors[0]


def test_a_command_confirms_the_time_if_no_process_has_looked_for_long(
    due: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_watch, "CONFIRMATION", 1.0)
    ClockWatch.objects.create(pk=1, seen_at=database_now() - timedelta(minutes=10))
    assert (_gc("--dry-run")["blobs"], _gc("--dry-run")["reason"]) == (2, "")
    found = _gc()
    assert (found["blobs"], found["reason"]) == (2, "")
