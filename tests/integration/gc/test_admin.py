"""The administration page of garbage collection: figures of the queue, and the buttons that start a run."""

import re
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import Client, override_settings

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Blob, BlobReview, Manifest
from registry_control.catalog.services import images
from registry_control.common.clock import database_now
from registry_control.gc.models import Breaker, GcRun, Inventory
from registry_control.gc.services import inventory
from registry_control.gc.services.requested import advance_runs
from registry_control.identity.models import User
from registry_data.storage.base import Key
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import make_key, make_namespace, make_user, push_image
from tests.integration.admin.forms import url
from tests.integration.gc.steps import collect, delete_image, expire_leases, keys

pytestmark = pytest.mark.django_db(transaction=True)

RUN = "/admin/gc/gcrun/run/"


def staff(*permissions: str) -> Client:
    user = make_user(password="correct horse battery")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def text_of(client: Client) -> str:
    page = client.get(url(GcRun, "changelist"))
    assert page.status_code == 200
    [shown] = re.findall(r'<p id="queue">(.*?)</p>', page.content.decode(), re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", "", shown).split()).replace("\xa0", " ")


def test_the_page_shows_the_queue_and_what_was_removed(store: FilesystemStore) -> None:
    client = staff("view_gcrun")
    assert text_of(client).startswith(
        "No unreferenced blob waits for its deletion. In all, 0 blobs of 0 bytes"
    )
    owner = make_key()
    delete_image(push_image(owner, make_namespace(owner), layers=[b"x" * 2046], store=store), store)
    assert "2 unreferenced blobs of 2.0 KB in the review queue, the oldest due at" in text_of(client)
    assert collect(store).removed == 2
    assert "In all, 2 blobs of 2.0 KB have been removed." in text_of(client)


@pytest.mark.parametrize("button", ["run", "dry_run"])
def test_a_button_starts_a_run_and_is_audited(store: FilesystemStore, button: str) -> None:
    client = staff("view_gcrun", "add_gcrun")
    assert 'id="run"' in client.get(url(GcRun, "changelist")).content.decode()
    assert client.post(RUN, {button: "x"}).status_code == 302
    run = GcRun.objects.get()
    assert (run.kind, run.dry_run, run.status) == ("requested", button == "dry_run", "running")
    event = AuditEvent.objects.get(verb="gcrun.start", target_id=str(run.pk))
    assert event.actor_kind == "user"
    assert event.detail == {"dry_run": button == "dry_run"}
    while advance_runs(store=store, limit=10):
        pass
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_only_a_permitted_user_starts_a_run_and_only_by_post() -> None:
    viewer = staff("view_gcrun")
    assert 'id="run"' not in viewer.get(url(GcRun, "changelist")).content.decode()
    assert viewer.post(RUN, {"run": "x"}).status_code == 403
    permitted = staff("view_gcrun", "add_gcrun")
    assert permitted.get(RUN).status_code == 405
    assert Client().post(RUN, {"run": "x"}).status_code == 302  # to the sign-in page
    protected = Client(enforce_csrf_checks=True)
    protected.force_login(User.objects.get(pk=permitted.session["_auth_user_id"]))
    assert protected.post(RUN, {"run": "x"}).status_code == 403
    assert not GcRun.objects.exists()


def test_the_disk_page_says_what_keeps_the_bytes_and_what_fails(store: FilesystemStore) -> None:
    client = staff("view_gcrun")
    page = "/admin/gc/gcrun/disk/"
    assert Client().get(page).status_code == 302
    assert staff().get(page).status_code == 403
    assert "has not counted the blobs yet" in client.get(page).content.decode()

    # given tagged content, and content that the storage refuses to delete
    owner = make_key()
    namespace = make_namespace(owner)
    push_image(owner, namespace, "kept", layers=[b"x" * 3000], config=b"kept", store=store)
    dead = push_image(owner, namespace, layers=[b"dead"], config=b"dead too", store=store)
    expire_leases()
    delete_image(dead, store)
    for digest in dead.blobs:
        path = store.path_of(Key(keys()[digest]))
        path.unlink()
        path.mkdir()
    collect(store)
    Inventory.objects.all().delete()
    inventory.advance()

    # when an administrator asks, then the page has the figures and the error
    shown = client.get(page).content.decode()
    rows = re.findall(r"<tr><th>(.*?)</th><td>(\d+)</td><td>(.*?)</td>", shown)
    assert [(title, number) for title, number, _ in rows] == [
        ("Tagged", "2"),
        ("Untagged", "0"),
        ("Leased", "0"),
        ("Waiting", "0"),
        ("Being deleted", "2"),
    ]
    assert "2 blobs of 12" in " ".join(shown.split()).replace("\xa0", " ")
    assert re.search(r"<tr><td>2</td><td>.+</td></tr>", shown)
    assert 'id="stopped"' not in shown


def test_an_administrator_lets_a_stopped_collector_go_on(store: FilesystemStore) -> None:
    client = staff("view_gcrun", "add_gcrun")
    Breaker.objects.create(pk=1, stopped_at=database_now(), reason="too much at once")
    for page in ("/admin/gc/gcrun/disk/", url(GcRun, "changelist")):
        assert "too much at once" in client.get(page).content.decode()
    assert staff("view_gcrun").post("/admin/gc/gcrun/release/").status_code == 403
    asked = client.post("/admin/gc/gcrun/release/")
    assert "whatever its size" in asked.content.decode()
    assert Breaker.objects.get().stopped_at is not None
    assert client.post("/admin/gc/gcrun/release/", {"confirmed": "Let it go on"}).status_code == 302
    assert "too much at once" not in client.get("/admin/gc/gcrun/disk/").content.decode()
    assert AuditEvent.objects.get(verb="gcbreaker.release").actor_kind == "user"


@override_settings(RECYCLE_BIN=timedelta(days=7))
def test_the_disk_page_names_the_images_in_the_recycle_bin() -> None:
    owner = make_key()
    pushed = push_image(owner, make_namespace(owner), layers=[b"x" * 3000], config=b"config")
    client = staff("view_gcrun")
    assert "recycle bin keep" not in client.get("/admin/gc/gcrun/disk/").content.decode()
    with transaction.atomic():
        images.start_deletion(images.get_for_update(pushed.image_id), actor=owner.actor)
    assert (
        "The recycle bin has 1 image or manifest of 3006 bytes"
        in client.get("/admin/gc/gcrun/disk/").content.decode()
    )


def section_of(client: Client, row: Blob | Manifest) -> str:
    """The section on garbage collection of the page of a blob or manifest, as text; empty without one."""
    page = client.get(url(type(row), "change", row.pk))
    assert page.status_code == 200
    found = re.findall(r'<div class="explanation">(.*?)</div>', page.content.decode(), re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", "".join(found)).split())


def test_the_pages_of_blobs_and_manifests_say_what_keeps_them(store: FilesystemStore) -> None:
    # given a tagged manifest of a tenant with a layer, and a blob that nothing refers to
    owner = make_key()
    namespace = make_namespace(owner)
    kept = push_image(owner, namespace, "kept", layers=[b"layer"], config=b"kept", store=store)
    dead = push_image(owner, namespace, layers=[b"dead"], config=b"dead too", store=store)
    expire_leases()
    delete_image(dead, store)
    manifest = Manifest.objects.get(digest=kept.digest)
    layer, gone = (Blob.objects.get(digest=digest) for digest in (kept.blobs[1], dead.blobs[1]))

    # when staff look at the pages, then these say the same as the API
    client = staff("view_blob", "view_manifest", "view_image")
    tag = f"tag latest of image {namespace.name}/kept"
    assert section_of(client, layer) == f"Kept: a manifest lists it. {tag}"
    assert section_of(client, manifest) == f"Kept: an image has this manifest. {tag}"
    waiting = section_of(client, gone)
    assert waiting.startswith("Waiting: nothing refers to it; its grace period lasts until")
    due = BlobReview.objects.get(blob=gone).unreferenced_since + settings.GC_GRACE
    assert waiting.endswith(f"It goes at {due:%Y-%m-%d %H:%M:%S} UTC at the earliest.")

    # and also that the circuit breaker keeps it
    Breaker.objects.create(stopped_at=database_now(), reason="too much")
    assert "POST gc/breaker/release" in section_of(client, gone)
    assert "It goes at" not in section_of(client, gone)


def test_only_who_may_view_images_sees_what_keeps_content(store: FilesystemStore) -> None:
    owner = make_key()
    pushed = push_image(owner, make_namespace(owner), layers=[b"layer"], store=store)
    manifest = Manifest.objects.get(digest=pushed.digest)
    blob = Blob.objects.get(digest=pushed.blobs[1])
    for row in (manifest, blob):
        assert section_of(staff("view_blob", "view_manifest"), row) == ""
        assert staff("view_image").get(url(type(row), "change", row.pk)).status_code == 403
