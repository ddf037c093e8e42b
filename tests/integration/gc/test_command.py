"""`manage.py gc` and the rows of runs."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from registry_control.catalog.services import images
from registry_control.common.clock import now
from registry_control.common.store import blob_store
from registry_control.gc.models import GcRun
from registry_control.gc.policy import Rules
from registry_control.gc.selectors import queue
from registry_control.gc.services import runs
from registry_control.gc.services.figures import count_new
from registry_control.gc.services.requested import advance_runs, start_run
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import BlobStore, Key
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, digest_of, push_blob, push_image
from tests.integration.catalog.races import open_transaction
from tests.integration.gc.steps import delete_image, queued
from tests.services.ports import free_port
from tests.services.stack import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stored() -> BlobStore:
    """The store of the settings, which the command uses."""
    store = blob_store()
    store.check()
    return store


@pytest.fixture
def deleting(owner: TestKey, namespace: Namespace, stored: BlobStore) -> Pushed:
    """An image whose deletion the worker has not finished, beside one that shares a layer with it."""
    push_image(owner, namespace, "kept", layers=[b"shared"], config=b"kept config", store=stored)
    pushed = push_image(owner, namespace, layers=[b"shared", b"own layer"], config=b"own", store=stored)
    with open_transaction():
        images.start_deletion(images.get_for_update(pushed.image_id), actor=SYSTEM)
    return pushed


def gc(*arguments: str) -> str:
    out = StringIO()
    call_command("gc", *arguments, stdout=out)
    return out.getvalue()


def gc_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gc("--json", *arguments))
    names = {"dry_run", "blobs", "bytes", "manifests", "stopped_by_breaker", "reason", "waiting"}
    assert set(found) == names
    return found


def test_now_finishes_pending_deletions_and_passes_over_the_grace_period(deleting: Pushed) -> None:
    before = gc_json("--dry-run", "--now")
    assert (before["dry_run"], before["manifests"]) == (True, 1)
    done = gc_json("--now")
    size = len(b"own layer") + len(b"own")
    assert (done["dry_run"], done["blobs"], done["bytes"], done["manifests"]) == (False, 2, size, 1)
    assert set(Blob.objects.values_list("digest", flat=True)) == {
        digest_of(b"shared"),
        digest_of(b"kept config"),
    }
    run = GcRun.objects.get(kind="command")
    assert (run.status, run.blobs, run.bytes, run.manifests) == ("succeeded", 2, size, 1)


def test_without_now_everything_waits_for_the_grace_period(deleting: Pushed) -> None:
    done = gc_json()
    assert (done["blobs"], done["manifests"]) == (0, 1)
    waiting = {each["digest"]: each for each in done["waiting"]}
    assert set(waiting) == {digest_of(b"own layer"), digest_of(b"own")}
    assert waiting[digest_of(b"own")]["bytes"] == 3
    assert waiting[digest_of(b"own")]["until"] > (now() + settings.GC_GRACE - timedelta(hours=1)).isoformat()
    assert "grace period" in waiting[digest_of(b"own")]["reason"]

    # and a dry run with --now counts them, and removes nothing
    planned = gc_json("--now", "--dry-run")
    assert (planned["dry_run"], planned["blobs"], planned["bytes"]) == (True, 2, 12)
    assert Blob.objects.count() == 4


def test_now_keeps_leased_blobs_and_says_so(owner: TestKey, namespace: Namespace, stored: BlobStore) -> None:
    pushed = push_image(owner, namespace, tags=(), layers=[b"layer"], store=stored)
    leased = push_blob(owner, pushed.image_id, b"leased", store=stored)
    done = gc_json("--now")
    assert done["blobs"] == 0
    [waiting] = done["waiting"]
    lease = BlobLease.objects.get(blob__digest=leased)
    assert waiting["digest"] == leased
    assert waiting["until"] == (lease.expires_at + settings.GC_GRACE).isoformat()
    text = gc("--now")
    assert "passes over the grace period" in text
    assert "removed 0 blobs of 0 bytes and 0 manifests" in text
    assert leased in text


def test_explain_names_every_image(owner: TestKey, namespace: Namespace, stored: BlobStore) -> None:
    push_image(owner, namespace, layers=[b"layer"], store=stored)
    layer = digest_of(b"layer")
    assert f"kept by tag latest of image {namespace.name}/app" in gc("--explain", layer)
    found = json.loads(gc("--explain", layer, "--json"))
    assert set(found) == {"digest", "state", "kept_by", "goes_at", "reason"}
    assert found["state"] == "kept"
    assert "unknown" in gc("--explain", digest_of(b"nothing"))


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_explain_of_what_is_no_digest_is_an_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="not a digest"):
        gc("--explain", "latest", *arguments)


def test_the_list_of_waiting_blobs_without_json_is_short(
    owner: TestKey, namespace: Namespace, stored: BlobStore
) -> None:
    pushed = push_image(owner, namespace, tags=(), layers=[b"layer"])
    for number in range(23):
        push_blob(owner, pushed.image_id, b"leased %d" % number)
    lines = [line for line in gc().splitlines() if line.startswith("waiting: ")]
    assert len(lines) == 21
    assert lines[-1] == "waiting: 3 more blobs"


def test_a_storage_that_fails_is_reported_and_the_run_has_failed(deleting: Pushed, stored: BlobStore) -> None:
    assert isinstance(stored, FilesystemStore)
    folder = stored.path_of(Key(Blob.objects.values_list("storage_key", flat=True)[0])).parents[1]
    folder.rename(folder.with_name("moved"))
    try:
        with pytest.raises(CommandError, match="not everything was removed"):
            gc("--now")
    finally:
        folder.with_name("moved").rename(folder)
    run = GcRun.objects.get(kind="command")
    assert run.status == "failed"
    assert run.errors
    assert Blob.objects.filter(state="deleting").count() == 2
    assert queued() == {digest_of(b"own layer"), digest_of(b"own")}

    # and the next one removes everything at once, although the last attempt has just failed
    assert gc_json("--now")["blobs"] == 2


def test_runs_of_past_hours_and_of_killed_commands_end() -> None:
    moment = now()
    hour = moment.replace(minute=0, second=0, microsecond=0)
    past = GcRun.objects.create(kind="continuous", hour=hour - runs.HOUR, started_at=hour - runs.HOUR)
    present = GcRun.objects.create(kind="continuous", hour=hour, started_at=hour)
    killed = GcRun.objects.create(kind="command", updated_at=moment - timedelta(minutes=11))
    running = GcRun.objects.create(kind="command")
    requested = GcRun.objects.create(kind="requested", updated_at=moment - timedelta(days=1))

    assert runs.close_old() == 2

    found = {run.pk: run for run in GcRun.objects.all()}
    assert (found[past.pk].status, found[past.pk].finished_at) == ("succeeded", hour)
    assert found[killed.pk].status == "stopped"
    for run in (present, running, requested):
        assert (found[run.pk].status, found[run.pk].finished_at) == ("running", None)


def test_the_command_a_requested_run_and_the_queue_count_the_same(
    owner: TestKey, namespace: Namespace, stored: BlobStore
) -> None:
    # given dead content of which a part was counted, beside content that waits for the grace period
    delete_image(push_image(owner, namespace, layers=[b"a", b"b"], config=b"due", store=stored), stored)
    BlobReview.objects.update(unreferenced_since=now() - settings.GC_GRACE - timedelta(minutes=1))
    count_new(Rules(now(), settings.GC_GRACE), limit=2)
    delete_image(push_image(owner, namespace, "b", layers=[b"late"], config=b"x", store=stored), stored)

    # when it is planned in each way
    planned = gc_json("--dry-run")
    run = start_run(actor=SYSTEM, dry_run=True)
    while advance_runs(store=stored, limit=2):
        pass
    run.refresh_from_db()
    figures = queue.summarize(grace=settings.GC_GRACE)

    # then all plans agree with each other, and with what a run removes
    assert (planned["blobs"], planned["bytes"]) == (run.blobs, run.bytes) == (3, 5)
    assert figures.entries == 3 + len(planned["waiting"])
    assert figures.bytes == 5 + sum(each["bytes"] for each in planned["waiting"])
    done = gc_json()
    assert (done["blobs"], done["bytes"], len(done["waiting"])) == (3, 5, 2)


def test_an_empty_digest_is_refused_and_starts_no_run(deleting: Pushed) -> None:
    with pytest.raises(CommandError, match="'' is not a digest"):
        gc("--now", "--explain", "")
    assert not GcRun.objects.exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--report", "--explain", f"sha256:{'0' * 64}"),
        ("--report", "--dry-run"),
        ("--explain", f"sha256:{'0' * 64}", "--dry-run"),
        ("--report", "--now"),
    ],
)
def test_options_without_a_meaning_together_are_refused(deleting: Pushed, options: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match=r"not allowed with argument --|use it without --"):
        gc(*options)
    assert not GcRun.objects.exists()


def test_now_says_what_it_passes_over_beside_the_document(deleting: Pushed) -> None:
    out, err = StringIO(), StringIO()
    call_command("gc", "--now", "--json", stdout=out, stderr=err)
    assert json.loads(out.getvalue())["blobs"] == 2
    assert "passes over the grace period" in err.getvalue()


@pytest.mark.only_on("sqlite")
def test_a_database_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "REGISTRY_STATE_DIR": str(tmp_path),
        "REGISTRY_DATABASE_URL": f"postgresql://user:hidden@127.0.0.1:{free_port()}/registry",
    }
    command = [sys.executable, "manage.py", "gc", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("manage.py gc: the database cannot be used: ")
    assert "hidden" not in done.stderr
