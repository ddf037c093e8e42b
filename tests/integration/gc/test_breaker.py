"""The circuit breaker stops the collector before it removes more than a share of all bytes in a day."""

import json
import threading
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobReview
from registry_control.common.clock import now
from registry_control.common.store import blob_store
from registry_control.gc.models import Breaker, GcRun, Inventory, MarkedBytes
from registry_control.gc.services import breaker, inventory
from registry_control.gc.services.requested import advance_runs, start_run
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import FULL_ACCESS, Pushed, TestKey, make_key, push_blob, push_image
from tests.integration.control.api import Api
from tests.integration.gc.steps import collect, delete_image, expire_leases

pytestmark = pytest.mark.django_db(transaction=True)

GIB = 1 << 30
_BASE = "/registry/v1beta1/regions/fr-par/gc"


@pytest.fixture
def dead(owner: TestKey, namespace: Namespace, store: FilesystemStore) -> Pushed:
    """By the sizes in the rows: one GiB that an image has, and nine blobs of a GiB each that are due."""
    kept = push_image(owner, namespace, "kept", layers=[b"kept"], config=b"kept config", store=store)
    layers = [b"dead %d" % number for number in range(8)]
    gone = push_image(owner, namespace, layers=layers, config=b"dead", store=store)
    expire_leases()
    delete_image(gone, store)
    Blob.objects.filter(digest__in=gone.blobs).update(size=GIB)
    Blob.objects.filter(digest__in=kept.blobs).update(size=GIB // 2)
    return gone


def _left() -> int:
    """How many of the nine blobs have not been removed."""
    return Blob.objects.filter(size=GIB).count()


def _collect_all(store: FilesystemStore) -> str:
    """Collect until nothing happens; returns why the breaker stopped the collector, if it did."""
    for _ in range(20):
        batch = collect(store, limit=4)
        if not batch.is_full:
            return batch.stopped
    raise AssertionError("the collector does not end")


def test_the_collector_stops_before_it_exceeds_the_share(dead: Pushed, store: FilesystemStore) -> None:
    # given ten GiB, nine of which are due, when the collector runs
    assert _left() == 9
    reason = _collect_all(store)

    # then it removed half of all bytes and not more
    assert _left() == 4
    assert "exceed the limit of 5368709120 bytes" in reason
    assert "REGISTRY_GC_BREAKER" in reason
    found = Breaker.objects.get()
    assert found.stopped_at is not None
    assert AuditEvent.objects.filter(verb="gcbreaker.stop").count() == 1

    # and another worker, or a restarted one, does not go on
    assert collect(store).claimed == 0
    assert _left() == 4
    assert AuditEvent.objects.filter(verb="gcbreaker.stop").count() == 1


def test_a_released_collector_removes_what_was_in_the_queue_and_counts_the_rest(
    dead: Pushed, owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a stopped collector that an operator lets go on
    assert _collect_all(store)
    breaker.release(actor=owner.actor)
    event = AuditEvent.objects.get(verb="gcbreaker.release")
    assert (event.actor_id, event.target_kind) == (owner.actor.id, "gcbreaker")

    # when it runs, then all that was in the queue is removed
    assert _collect_all(store) == ""
    assert _left() == 0
    assert not MarkedBytes.objects.exists()

    # and what is deleted after the release counts
    Breaker.objects.update(released_at=now() - timedelta(minutes=1))
    gone = push_image(owner, namespace, "more", layers=[b"more"], config=b"of it", store=store)
    expire_leases()
    delete_image(gone, store)
    BlobReview.objects.update(unreferenced_since=now())
    Blob.objects.filter(digest__in=gone.blobs).update(size=2 * GIB)
    Inventory.objects.all().delete()
    assert _collect_all(store)
    assert Blob.objects.filter(digest__in=gone.blobs).count() == 1


def test_the_breaker_does_not_act_on_less_than_a_gibibyte(dead: Pushed, store: FilesystemStore) -> None:
    Blob.objects.update(size=GIB // 11)
    assert _collect_all(store) == ""
    assert not BlobReview.objects.exists()


@override_settings(GC_BREAKER=0.0)
def test_without_a_share_there_is_no_limit(dead: Pushed, store: FilesystemStore) -> None:
    assert _collect_all(store) == ""
    assert not BlobReview.objects.exists()
    assert not Breaker.objects.exists()


def test_the_bytes_of_yesterday_do_not_count(dead: Pushed, store: FilesystemStore) -> None:
    MarkedBytes.objects.create(hour=now() - timedelta(hours=25), bytes=50 * GIB)
    assert _collect_all(store)
    assert _left() == 4


def test_pushes_since_the_last_inventory_count_before_the_collector_stops(
    dead: Pushed, store: FilesystemStore
) -> None:
    # given an inventory of an hour ago, when less was stored
    Inventory.objects.create(finished_at=now() - timedelta(hours=1), tagged_bytes=GIB)
    assert _collect_all(store)
    assert _left() == 4
    assert Inventory.objects.get().tagged_bytes == GIB


@pytest.mark.parametrize("counted", [0, GIB * 11 // 10, 2 * GIB])
def test_pushes_since_an_inventory_of_this_minute_count_as_well(
    dead: Pushed, store: FilesystemStore, counted: int
) -> None:
    # given an inventory from before the pushes, of less than the breaker acts on or of more
    Inventory.objects.create(finished_at=now(), tagged_bytes=counted)

    # when the collector runs, then the limit is half of what is stored now
    reason = _collect_all(store)
    assert _left() == 4
    assert "exceed the limit of 5368709120 bytes" in reason


def test_a_dry_run_counts_pushes_since_the_last_inventory(dead: Pushed) -> None:
    Inventory.objects.create(finished_at=now() - timedelta(minutes=50))
    assert _gc("--dry-run", "--now")["stopped_by_breaker"] is True


@pytest.mark.only_on("postgresql")
def test_several_workers_do_not_exceed_the_share_together(dead: Pushed, store: FilesystemStore) -> None:
    while inventory.advance():
        pass

    def work() -> None:
        try:
            for _ in range(10):
                collect(store, limit=1)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert _left() == 4
    assert Breaker.objects.get().stopped_at is not None


def test_operators_see_that_it_stopped_and_let_it_go_on(
    dead: Pushed, operator: TestKey, store: FilesystemStore
) -> None:
    before = Api(operator).get(f"{_BASE}/queue").body
    assert (before["stopped_by_breaker"], before["reason"]) == (False, "")
    _collect_all(store)
    stopped = Api(operator).get(f"{_BASE}/queue").body
    assert stopped["stopped_by_breaker"] is True
    assert "exceed the limit" in stopped["reason"]

    assert Api(make_key(FULL_ACCESS)).post(f"{_BASE}/breaker/release").status == 403
    assert Api(operator).get(f"{_BASE}/queue").body["stopped_by_breaker"] is True
    released = Api(operator).post(f"{_BASE}/breaker/release")
    assert (released.status, released.body["stopped_by_breaker"]) == (200, False)
    assert released.body["entries"] == 4
    assert _collect_all(store) == ""


def _gc(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    try:
        call_command("gc", "--json", *arguments, stdout=out)
    except CommandError as error:
        return {**json.loads(out.getvalue()), "error": str(error)}
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_the_command_obeys_the_breaker_until_it_is_released(dead: Pushed) -> None:
    blob_store().check()
    inventory.advance()
    planned = _gc("--dry-run", "--now")
    assert (planned["blobs"], planned["stopped_by_breaker"]) == (9, True)
    assert "error" not in planned
    done = _gc("--now")
    assert (done["blobs"], done["stopped_by_breaker"]) == (5, True)
    assert "exceed the limit" in done["error"]
    assert planned["waiting"] == []
    assert [each["bytes"] for each in done["waiting"]] == [GIB] * 4
    for each in done["waiting"]:
        assert each["reason"].rpartition("; ")[2].startswith("the circuit breaker keeps it until an operator")
        assert each["until"] is None

    # and a dry run does not promise what the stopped collector keeps
    planned = _gc("--dry-run", "--now")
    assert (planned["blobs"], planned["bytes"], planned["stopped_by_breaker"]) == (0, 0, True)
    assert GcRun.objects.get(kind="command").status == "stopped"
    again = _gc("--now", "--release-breaker")
    assert (again["blobs"], again["stopped_by_breaker"], again["reason"]) == (4, False, "")


@pytest.mark.parametrize("option", ["--dry-run", "--report", f"--explain=sha256:{'0' * 64}"])
def test_a_command_that_only_looks_does_not_release_the_breaker(dead: Pushed, option: str) -> None:
    blob_store().check()
    inventory.advance()
    assert _gc("--now")["stopped_by_breaker"] is True
    with pytest.raises(CommandError, match="not allowed with argument --release-breaker"):
        call_command("gc", "--release-breaker", option)
    assert Breaker.objects.get().stopped_at is not None


def test_explain_says_that_the_breaker_keeps_what_is_due(
    dead: Pushed, owner: TestKey, operator: TestKey, store: FilesystemStore
) -> None:
    BlobReview.objects.update(unreferenced_since=now() - timedelta(days=9))
    due = dead.blobs[0]
    assert Api(operator).get(f"{_BASE}/explain", digest=due).body["goes_at"] is not None
    assert _collect_all(store)
    waiting = list(BlobReview.objects.filter(retry_at=None).values_list("blob__digest", flat=True))
    BlobReview.objects.filter(blob__digest=waiting[0]).update(unreferenced_since=now())

    # given a blob whose grace period has begun and one that is due, then explain and the command agree
    out = StringIO()
    for digest, why in ((waiting[0], "lasts until"), (waiting[1], "is over")):
        out.truncate(0)
        out.seek(0)
        call_command("gc", "--json", "--explain", digest, stdout=out)
        by_command = json.loads(out.getvalue())
        for key in (owner, operator):
            found = Api(key).get(f"{_BASE}/explain", digest=digest).body
            assert (found["state"], found["goes_at"]) == ("waiting", None)
            assert why in found["reason"]
            assert "POST gc/breaker/release" in found["reason"]
            assert "bytes" not in found["reason"]  # how much is stored is for operators
            assert found == by_command

    # and after the release, each has its time again
    breaker.release(actor=owner.actor)
    for digest in waiting[:2]:
        found = Api(owner).get(f"{_BASE}/explain", digest=digest).body
        assert found["goes_at"] is not None
        assert "breaker" not in found["reason"]


def test_a_requested_run_ends_as_stopped(dead: Pushed, store: FilesystemStore) -> None:
    BlobReview.objects.update(unreferenced_since=now() - timedelta(days=9))
    run = start_run(actor=SYSTEM, dry_run=False)
    while advance_runs(store=store, limit=4):
        pass
    run.refresh_from_db()
    assert (run.status, run.blobs) == ("stopped", 5)
    assert "exceed the limit" in run.errors[0]


@pytest.mark.parametrize("released", [False, True])
def test_a_requested_dry_run_says_that_the_breaker_would_stop_it(
    dead: Pushed, store: FilesystemStore, *, released: bool
) -> None:
    BlobReview.objects.update(unreferenced_since=now() - timedelta(days=9))
    inventory.advance()
    if released:
        Breaker.objects.create(released_at=now() - timedelta(hours=1))
    run = start_run(actor=SYSTEM, dry_run=True)
    while advance_runs(store=store, limit=4):
        pass
    run.refresh_from_db()
    assert run.blobs == 9
    if released:
        assert (run.status, run.errors) == ("succeeded", [])
    else:
        assert run.status == "stopped"
        assert "exceed the limit" in run.errors[0]


def test_an_inventory_sorts_all_blobs_by_what_keeps_them(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given tagged, untagged, leased, unreferenced and failing content
    push_image(owner, namespace, "tagged", layers=[b"tagged"], config=b"1")
    push_image(owner, namespace, "untagged", tags=(), layers=[b"not tagged"], config=b"22")
    expire_leases()
    delete_image(push_image(owner, namespace, layers=[b"dead"], config=b"333", store=store), store)
    pushed = push_image(owner, namespace, "leased", layers=[b"tagged"], config=b"1")
    push_blob(owner, pushed.image_id, b"leased")
    failing = push_blob(owner, pushed.image_id, b"failing")
    Blob.objects.filter(digest=failing).update(state="deleting")

    # when it is counted in slices of one blob
    while inventory.advance(limit=1):
        pass

    found = Inventory.objects.get()
    assert found.finished_at is not None
    assert (found.tagged_blobs, found.tagged_bytes) == (2, len(b"tagged") + 1)
    assert (found.untagged_blobs, found.untagged_bytes) == (2, len(b"not tagged") + 2)
    assert (found.leased_blobs, found.leased_bytes) == (1, len(b"leased"))
    assert (found.unreferenced_blobs, found.unreferenced_bytes) == (2, len(b"dead") + 3)
    assert (found.deleting_blobs, found.deleting_bytes) == (1, len(b"failing"))
    # and it is not counted again within the hour
    assert not inventory.advance()
    assert Inventory.objects.count() == 1
