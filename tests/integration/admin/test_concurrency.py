"""Concurrent changes by administrators and others, on two real PostgreSQL connections."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Model
from django.test import Client

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Manifest, Tag
from registry_control.catalog.services import images, manifests
from registry_control.common.errors import NotFound
from registry_control.common.models import Status
from registry_control.db.sql import execute
from registry_control.identity import services as identity
from registry_control.identity.models import ApiKey
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import restoring
from tests.factories import TestKey, push_image, unique
from tests.integration.admin.forms import fields, url
from tests.integration.catalog.races import Other, needs_postgresql, open_transaction

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]


def test_a_key_that_is_revoked_while_its_page_is_saved_stays_revoked(pages: Client, owner: TestKey) -> None:
    key = ApiKey.objects.get(pk=owner.access_key)
    page = url(ApiKey, "change", key.pk)
    form = fields(pages.get(page).content) | {"description": "new"}
    with open_transaction():
        identity.delete_api_key(actor=SYSTEM, api_key=key)
        other = Other(lambda: pages.post(page, form, follow=True))
        assert other.waits
    assert "Perhaps it was deleted?" in other.end().content.decode()
    assert not ApiKey.objects.exists()


def _saved_during(change: Callable[[], object], namespace: Namespace, pages: Client) -> int:
    """The status of saving a page while another transaction changes its namespace."""
    page = url(Namespace, "change", namespace.pk)
    form = fields(pages.get(page).content) | {"description": "new"}
    with open_transaction():
        change()
        other = Other(lambda: pages.post(page, form).status_code)
        assert other.waits
    return int(other.end())


def test_a_namespace_that_is_deleted_while_its_page_is_saved_stays_deleted(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    delete = partial(namespaces.delete, principal=owner.principal, namespace_id=namespace.pk)
    assert _saved_during(delete, namespace, pages) == 403
    namespace.refresh_from_db()
    assert (namespace.status, namespace.description) == (Status.DELETING, "")


def test_an_image_that_is_created_while_its_namespaces_page_is_saved_is_counted(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    push = partial(images.get_or_create, actor=owner.actor, namespace_id=namespace.pk, name="app")
    assert _saved_during(push, namespace, pages) == 302
    namespace.refresh_from_db()
    assert (namespace.image_rows, namespace.description) == (1, "new")


@pytest.mark.parametrize("way", ["page", "action"])
def test_invariant_11_a_tag_is_deleted_after_a_push_that_moves_it(
    pages: Client, owner: TestKey, namespace: Namespace, way: str
) -> None:
    # given a push that has locked the image and not yet the tag
    pushed = push_image(owner, namespace)
    tag = pushed.tag("latest")
    if way == "page":
        page, form = url(Tag, "delete", tag.pk), {"post": "yes"}
    else:
        page = url(Tag, "changelist")
        form = {"action": "delete_selected", "_selected_action": str(tag.pk), "post": "yes"}
    with open_transaction():
        images.lock_for_update(pushed.image_id)

        # when an administrator deletes the tag, then the push commits first, and then the deletion
        other = Other(lambda: pages.post(page, form))
        assert other.waits
        push_image(owner, namespace, config=b'{"another": 1}')
    assert other.end().status_code == 302
    tag.refresh_from_db()
    assert tag.status == Status.DELETING


def test_invariant_11_tags_of_several_images_are_deleted_in_the_order_of_the_images(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    # given two images, the tag of the second first in the list, and a transaction that locks the first image
    pushed = [push_image(owner, namespace, name) for name in ("one", "two")]
    first, second = sorted(pushed, key=lambda each: each.image_id)
    Tag.objects.filter(image=first.image_id).update(name="z")
    Tag.objects.filter(image=second.image_id).update(name="a")
    chosen = [str(pk) for pk in Tag.objects.values_list("pk", flat=True)]
    form = {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
    with open_transaction():
        images.lock_for_update(first.image_id)
        other = Other(lambda: pages.post(f"{url(Tag, 'changelist')}?o=1", form))
        assert other.waits

        # when this transaction locks the second image, then it does not wait
        images.lock_for_update(second.image_id)
    assert other.end().status_code == 302
    assert set(Tag.objects.values_list("status", flat=True)) == {Status.DELETING}


def test_saving_a_page_whose_row_is_locked_is_503_with_retry_after(
    pages: Client, namespace: Namespace
) -> None:
    page = url(Namespace, "change", namespace.pk)
    form = fields(pages.get(page).content) | {"description": "new"}

    def save() -> Any:
        execute("SET lock_timeout = '200ms'", [])
        return pages.post(page, form)

    with open_transaction():
        Namespace.objects.select_for_update().get(pk=namespace.pk)
        response = Other(save).end()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "Try again" in response.content.decode()


def test_a_name_that_is_created_while_a_namespace_is_added_is_refused_on_the_page(
    pages: Client, owner: TestKey
) -> None:
    name = unique("taken")
    form = {"name": name, "project": str(owner.organization.pk)}
    with open_transaction():
        namespaces.create(principal=owner.principal, name=name, description="", is_public=False)
        other = Other(lambda: pages.post(url(Namespace, "add"), form, follow=True))
        assert other.waits
    assert "Names are unique in the whole registry" in other.end().content.decode()
    assert Namespace.objects.filter(name=name).count() == 1


@pytest.mark.parametrize("model", [Manifest, Tag])
def test_what_a_client_deletes_at_the_same_time_is_in_the_recycle_bin_once(
    pages: Client, owner: TestKey, namespace: Namespace, settings: Any, model: type[Model]
) -> None:
    # given a manifest with a tag, and a client that is deleting it
    settings.RECYCLE_BIN = timedelta(days=1)
    push_image(owner, namespace)
    manifest, tag = Manifest.objects.get(), Tag.objects.get()
    chosen = tag.pk if model is Tag else manifest.pk
    form = {"action": "delete_selected", "_selected_action": str(chosen), "post": "yes"}
    with open_transaction():
        manifests.delete_visible(principal=owner.principal, manifest_id=UUID(int=manifest.pk))

        # when an administrator deletes it, or its tag, as well
        other = Other(lambda: pages.post(url(model, "changelist"), form))
        assert other.waits
    assert other.end().status_code == 302

    # then there is one entry, which brings both back
    restoring.restore(principal=owner.principal, entry_id=RecycleBinEntry.objects.get().pk, name=None)
    assert Tag.objects.get().manifest_id == manifest.pk


def test_a_manifest_that_is_being_restored_is_not_deleted_without_its_images_lock(
    owner: TestKey, namespace: Namespace, settings: Any
) -> None:
    # given a deleted manifest that is being restored
    settings.RECYCLE_BIN = timedelta(days=1)
    push_image(owner, namespace)
    delete = partial(
        manifests.delete_visible,
        principal=owner.principal,
        manifest_id=UUID(int=Manifest.objects.get().pk),
    )
    delete()
    with open_transaction():
        restoring.restore(principal=owner.principal, entry_id=RecycleBinEntry.objects.get().pk, name=None)

        # when it is deleted by its id, then it is not found, as before the restore
        other = Other(delete)
        assert other.waits
    with pytest.raises(NotFound):
        other.end()
    assert Tag.objects.exists()
