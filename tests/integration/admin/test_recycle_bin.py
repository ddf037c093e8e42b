"""The pages of the recycle bin: its buttons and actions use the services."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Manifest
from registry_control.catalog.services import images, manifests, tags
from registry_control.identity.models import User
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from tests.factories import Pushed, TestKey, make_manifest, push_image
from tests.integration.admin.forms import fields, url

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _recycle_bin() -> Iterator[None]:
    with override_settings(RECYCLE_BIN=timedelta(days=7)):
        yield


@pytest.fixture
def deleted(owner: TestKey, namespace: Namespace) -> Pushed:
    pushed = push_image(owner, namespace)
    images.delete(principal=owner.principal, image_id=pushed.image_id)
    return pushed


def button(pages: Client, which: str, **sent: str) -> str:
    """Press a button on the page of the only entry; the messages of the next page."""
    entry = RecycleBinEntry.objects.get()
    assert f'id="{which}"'.encode() in pages.get(url(RecycleBinEntry, "change", entry.pk)).content
    done = pages.post(reverse(f"admin:recycle_bin_{which}", args=[entry.pk]), sent, follow=True)
    assert done.status_code == 200
    return str(done.content)


def test_the_buttons_restore_and_purge(
    pages: Client, owner: TestKey, namespace: Namespace, deleted: Pushed, administrator: User
) -> None:
    push_image(owner, namespace)
    refused = button(pages, "restore")
    assert "restore it under another name" in refused
    assert "in the body" not in refused  # but in the form
    assert "Restored" in button(pages, "restore", name="other")
    assert deleted.image.name == "other"
    assert AuditEvent.objects.get(verb="image.restore").actor_id == str(administrator.pk)
    images.delete(principal=owner.principal, image_id=deleted.image_id)
    assert "Delete this for good?" in button(pages, "purge")
    assert RecycleBinEntry.objects.exists()
    assert "Deleted for good" in button(pages, "purge", confirmed="Delete for good")
    assert AuditEvent.objects.get(verb="image.purge").actor_id == str(administrator.pk)
    assert deleted.image.status == "deleting"


@pytest.mark.parametrize(
    ("action", "status"), [("restore_selected", "ready"), ("purge_selected", "deleting")]
)
def test_actions_work_on_several_entries(
    pages: Client, owner: TestKey, namespace: Namespace, deleted: Pushed, action: str, status: str
) -> None:
    other = push_image(owner, namespace, "other")
    images.delete(principal=owner.principal, image_id=other.image_id)
    chosen = [str(pk) for pk in RecycleBinEntry.objects.values_list("pk", flat=True)]
    sent: dict[str, Any] = {"action": action, "_selected_action": chosen}
    if action == "purge_selected":
        asked = pages.post(url(RecycleBinEntry, "changelist"), sent)
        names = RecycleBinEntry.objects.values_list("name", flat=True)
        assert set(asked.context["rows"]) == {f"Image {name}" for name in names}
        assert len(names) == 2
        sent = {**fields(asked.content), "confirmed": "Delete for good"}
    assert pages.post(url(RecycleBinEntry, "changelist"), sent).status_code == 302
    assert {deleted.image.status, other.image.status} == {status}
    assert not RecycleBinEntry.objects.exists()


def restored_at_once(pages: Client) -> str:
    """Restore all entries with one action; the messages of the next page."""
    chosen = [str(pk) for pk in RecycleBinEntry.objects.values_list("pk", flat=True)]
    sent = {"action": "restore_selected", "_selected_action": chosen}
    done = pages.post(url(RecycleBinEntry, "changelist"), sent, follow=True)
    assert not RecycleBinEntry.objects.exists()
    return str(done.content)


def test_one_action_restores_a_namespace_and_what_was_deleted_in_it_before(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace, tags=("v1", "v2"))
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v1")
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    images.delete(principal=owner.principal, image_id=pushed.image_id)
    namespaces.delete(principal=owner.principal, namespace_id=namespace.pk)
    assert "Not restored" not in restored_at_once(pages)
    namespace.refresh_from_db()
    assert (namespace.status, pushed.image.status) == ("ready", "ready")
    assert {pushed.tag(name).manifest.digest for name in ("v1", "v2")} == {pushed.digest}


def test_one_action_restores_an_index_and_the_children_that_come_back_with_it(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace, tags=())
    index = make_manifest(children=[pushed.digest])
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=index, tag_names=[])
    for digest in (pushed.digest, index.digest):
        manifests.delete(actor=SYSTEM, image_id=pushed.image_id, digest=digest)
    assert "Not restored" not in restored_at_once(pages)
    found = Manifest.objects.filter(image=pushed.image_id).values_list("digest", flat=True)
    assert set(found) == {pushed.digest, index.digest}
