"""The administration pages: every model has them, and no page breaks an invariant."""

import logging
import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.db.models import Model
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from registry_control.access.services import authenticate
from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import (
    Image,
    Tag,
    TagHistory,
)
from registry_control.catalog.services import deletion
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.common.store import blob_store
from registry_control.identity.models import ApiKey, Organization, Policy, Project, User
from registry_control.namespaces.models import Namespace
from tests.factories import (
    Pushed,
    TestKey,
    make_key,
    make_namespace,
    make_user,
    push_image,
    unique,
)
from tests.integration.admin.forms import url
from tests.integration.admin.world import MODELS, READ_ONLY

pytestmark = pytest.mark.django_db(transaction=True)


def test_every_model_is_registered() -> None:
    admin.autodiscover()  # as the first request would do
    assert len(MODELS) == 30
    assert [model for model in MODELS if not admin.site.is_registered(model)] == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_lists_searches_and_pages_respond(pages: Client, world: Pushed, model: type[Model]) -> None:
    row = model._default_manager.first()
    assert row is not None
    assert pages.get(url(model, "changelist")).status_code == 200
    for query in ("nothing", "sha256:ab", "'; --", "%00", str(uuid4())):
        response = pages.get(url(model, "changelist"), {"q": query})
        assert response.status_code in (200, 302)
    assert pages.get(url(model, "change", row.pk)).status_code == 200
    assert pages.get(url(model, "change", uuid4())).status_code in (302, 404)


@pytest.mark.parametrize("model", sorted(READ_ONLY, key=str), ids=lambda model: model.__name__)
def test_rows_that_the_registry_creates_are_read_only(
    pages: Client, world: Pushed, model: type[Model]
) -> None:
    row = model._default_manager.first()
    assert row is not None
    assert pages.get(url(model, "add")).status_code == 403
    assert pages.post(url(model, "change", row.pk), {}).status_code == 403
    assert pages.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert model._default_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_number_of_queries_of_a_list_does_not_depend_on_its_length(
    pages: Client, owner: TestKey, world: Pushed, model: type[Model]
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert pages.get(url(model, "changelist")).status_code == 200
        return len(captured)

    few = queries()
    for number in range(6):
        make_namespace(make_key())
        push_image(make_key(organization=owner.organization), make_namespace(owner), f"app{number}")
    assert queries() <= few + 2


def test_visibility_is_edited_in_the_form_and_by_actions(
    pages: Client, namespace: Namespace, world: Pushed, administrator: User
) -> None:
    form = {"description": "new", "is_public": "on", "owner_user": "", "owner_application": ""}
    form["accepts_sparse_indexes"] = "on"
    assert pages.post(url(Namespace, "change", namespace.pk), form).status_code == 302
    namespace.refresh_from_db()
    assert (namespace.is_public, namespace.description) == (True, "new")
    assert namespace.accepts_sparse_indexes
    assert pages.post(url(Image, "change", world.image_id), {"visibility": "private"}).status_code == 302
    assert world.image.visibility == "private"

    for action, expected in (("make_public", "public"), ("inherit", "inherit"), ("make_private", "private")):
        chosen = {"action": action, "_selected_action": [str(world.image_id)]}
        assert pages.post(url(Image, "changelist"), chosen).status_code == 302
        assert world.image.visibility == expected
    chosen = {"action": "make_private", "_selected_action": [str(namespace.pk)]}
    assert pages.post(url(Namespace, "changelist"), chosen).status_code == 302
    namespace.refresh_from_db()
    assert not namespace.is_public

    # and each wrote one audit row in the administrator's name
    rows = AuditEvent.objects.filter(actor_id=str(administrator.pk)).order_by("pk")
    assert [row.verb for row in rows] == ["namespace.update", *["image.visibility"] * 4, "namespace.update"]


def test_names_are_read_only(pages: Client, namespace: Namespace, world: Pushed) -> None:
    pages.post(url(Namespace, "change", namespace.pk), {"name": "other", "description": ""})
    pages.post(url(Image, "change", world.image_id), {"name": "other", "visibility": "inherit", "size": "1"})
    assert Namespace.objects.get(pk=namespace.pk).name == namespace.name
    assert world.image.name == "app"
    assert world.image.size == world.size


def test_the_history_of_tags_names_them_and_is_found_by_their_names(pages: Client, owner: TestKey) -> None:
    # given a tag that has moved, another one, and a row of a tag that was deleted for good
    namespace = make_namespace(owner)
    with override_settings(RECYCLE_BIN=timedelta(days=1)):
        for layer in (b"first", b"second"):
            for image, tag in (("tools/build", "v1"), ("app", "stable")):
                push_image(owner, namespace, image, tags=[tag], layers=[layer + tag.encode()])
    gone = uuid4()
    old = TagHistory.objects.create(tag_id=gone, digest="sha256:dead", since=now(), until=now(), set_by="")
    build, app = f"{namespace.name}/tools/build:v1", f"{namespace.name}/app:stable"
    of_build = TagHistory.objects.get(tag_id=Tag.objects.get(name="v1").pk)

    # when it is searched by image, tag, digest or id, then it is found, and shown with its name
    shown = {
        "": {build, app, f"deleted tag {gone}"},
        f"{namespace.name}/tools/build": {build},
        f"registry.example.com/{namespace.name}/tools/build:v": {build},
        f"{namespace.name}/app:other": set(),
        "tools/": set(),
        "tools": {build},
        "stable": {app},
        of_build.digest[:20]: {build},
        str(of_build.tag_id): {build},
        "sha256:dead": {f"deleted tag {gone}"},
    }
    for term, names in shown.items():
        page = pages.get(url(TagHistory, "changelist"), {"q": term})
        assert page.status_code == 200
        found = re.findall(r'<th class="field-tag"><a [^>]*>(.*?)</a>', page.content.decode())
        assert set(found) == names, term
    assert f"deleted tag {gone}" in pages.get(url(TagHistory, "change", old.pk)).content.decode()


@pytest.mark.parametrize("model", [Namespace, Image], ids=lambda model: model.__name__)
def test_locking_and_unlocking_are_audited_once(
    pages: Client, namespace: Namespace, world: Pushed, administrator: User, model: type[Namespace | Image]
) -> None:
    row: Namespace | Image = namespace if model is Namespace else world.image
    kind = model.__name__.lower()
    for action, status in (("lock", Status.LOCKED), ("unlock", Status.READY)):
        chosen = {"action": action, "_selected_action": [str(row.pk)]}
        for _ in range(2):  # the second time, nothing changes
            assert pages.post(url(model, "changelist"), chosen).status_code == 302
        row.refresh_from_db()
        assert row.status == status
        events = AuditEvent.objects.filter(verb=f"{kind}.{status.value}", target_id=str(row.pk))
        assert [event.actor_id for event in events] == [str(administrator.pk)]


@pytest.mark.parametrize("model", [Namespace, Image], ids=lambda model: model.__name__)
def test_rows_that_are_being_deleted_cannot_be_unlocked(
    pages: Client, namespace: Namespace, world: Pushed, model: type[Namespace | Image]
) -> None:
    row: Namespace | Image = namespace if model is Namespace else world.image
    assert pages.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 302
    for action in ("lock", "unlock"):
        chosen = {"action": action, "_selected_action": [str(row.pk)]}
        assert pages.post(url(model, "changelist"), chosen).status_code == 302
    row.refresh_from_db()
    assert row.status == Status.DELETING


@pytest.mark.parametrize("way", ["page", "action"])
def test_a_namespace_with_images_is_deleted_by_the_worker(
    pages: Client, namespace: Namespace, world: Pushed, way: str
) -> None:
    # given the confirmation page, which allows the deletion
    if way == "page":
        assert b"in the background" in pages.get(url(Namespace, "delete", namespace.pk)).content
        done = pages.post(url(Namespace, "delete", namespace.pk), {"post": "yes"})
    else:
        chosen = {"action": "delete_selected", "_selected_action": [str(namespace.pk)], "post": "yes"}
        done = pages.post(url(Namespace, "changelist"), chosen)
    assert done.status_code == 302
    namespace.refresh_from_db()
    assert namespace.status == Status.DELETING

    # when the worker has run, then all rows are deleted
    store = blob_store()
    store.check()
    while deletion.run_batch(store=store, limit=50):
        pass
    assert not Namespace.objects.filter(pk=namespace.pk).exists()
    assert not Image.objects.filter(pk=world.image_id).exists()


def test_images_and_tags_are_deleted_by_the_worker(pages: Client, world: Pushed) -> None:
    tag = world.tag("a")
    assert pages.post(url(Tag, "delete", tag.pk), {"post": "yes"}).status_code == 302
    assert Tag.objects.get(pk=tag.pk).status == Status.DELETING
    assert pages.post(url(Image, "delete", world.image_id), {"post": "yes"}).status_code == 302
    assert world.image.status == Status.DELETING


def test_a_namespace_is_added_with_the_validation_of_the_api(pages: Client, owner: TestKey) -> None:
    project = Project.objects.get(pk=owner.organization.pk)
    for name in ("Upper", "a", "under_score"):
        response = pages.post(url(Namespace, "add"), {"name": name, "project": str(project.pk)})
        assert b"lower-case letters" in response.content
    name = unique("made-by-admin")
    form = {"name": name, "project": str(project.pk), "is_public": "on", "owner_application": owner.holder.pk}
    assert pages.post(url(Namespace, "add"), form).status_code == 302
    namespace = Namespace.objects.get(name=name)
    assert (namespace.is_public, namespace.owner_application_id) == (True, owner.holder.pk)
    [event] = AuditEvent.objects.filter(target_id=str(namespace.pk))
    assert (event.verb, event.organization_id) == ("namespace.create", owner.organization.pk)
    again = pages.post(url(Namespace, "add"), {"name": name, "project": str(project.pk)})
    assert b"exists already" in again.content
    assert Namespace.objects.filter(name=name).count() == 1


def test_an_organization_gets_its_default_project(pages: Client) -> None:
    name = unique("organization")
    assert pages.post(url(Organization, "add"), {"name": name}).status_code == 302
    organization = Organization.objects.get(name=name)
    assert Project.objects.get(organization=organization).pk == organization.pk
    assert AuditEvent.objects.filter(target_id=str(organization.pk)).count() == 1


@pytest.mark.parametrize("button", ["_save", "_continue", "_addanother", "_popup"])
def test_a_secret_is_displayed_once_and_nowhere_else(
    pages: Client, owner: TestKey, caplog: pytest.LogCaptureFixture, button: str
) -> None:
    # given a key that was just created
    caplog.set_level(logging.DEBUG)
    form = {
        "application": str(owner.holder.pk),
        "user": "",
        "default_project": str(owner.organization.pk),
        "description": "from the admin",
        button: "1",
    }
    response = pages.post(url(ApiKey, "add"), form)
    key = ApiKey.objects.get(description="from the admin")

    # then this response has the secret, and must not be cached
    [secret] = re.findall(r'id="secret-key">([^<]+)<', response.content.decode())
    assert authenticate(secret=secret).principal.id == owner.holder.pk
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    assert url(ApiKey, "change", key.pk) in response.content.decode()

    # and nothing else has it: no cookie, session, log or later page
    assert "messages" not in pages.cookies
    assert secret not in f"{response.headers}{response.cookies}{dict(pages.session)}{caplog.text}"
    assert secret not in pages.get(url(ApiKey, "changelist")).content.decode()
    assert secret not in pages.get(url(ApiKey, "change", key.pk)).content.decode()
    assert secret not in str([*AuditEvent.objects.values(), *LogEntry.objects.values()])

    # and deleting it revokes it
    pages.post(url(ApiKey, "delete", key.pk), {"post": "yes"})
    assert not ApiKey.objects.filter(pk=key.pk).exists()
    assert AuditEvent.objects.filter(verb="api_key.delete", target_id=key.access_key).exists()


def test_keys_and_policies_cannot_reference_another_organization(pages: Client, owner: TestKey) -> None:
    other = make_key().organization
    form = {"application": str(owner.holder.pk), "user": "", "default_project": str(other.pk)}
    assert b"another organization" in pages.post(url(ApiKey, "add"), form).content
    policy = {
        "organization": str(other.pk),
        "name": "x",
        "application": str(owner.holder.pk),
        "user": "",
        "rules-TOTAL_FORMS": "0",
        "rules-INITIAL_FORMS": "0",
    }
    assert b"another organization" in pages.post(url(Policy, "add"), policy).content
    assert not Policy.objects.filter(name="x").exists()


def test_a_policy_and_its_rules_write_audit_rows(pages: Client, owner: TestKey) -> None:
    policy = {
        "organization": str(owner.organization.pk),
        "name": "reads",
        "application": str(owner.holder.pk),
        "user": "",
        "rules-TOTAL_FORMS": "1",
        "rules-INITIAL_FORMS": "0",
        "rules-0-permission_set": "ContainerRegistryReadOnly",
        "rules-0-project": "",
    }
    assert pages.post(url(Policy, "add"), policy).status_code == 302
    made = Policy.objects.get(name="reads")
    assert made.rules.get().permission_set == "ContainerRegistryReadOnly"
    verbs = AuditEvent.objects.filter(target_id=str(made.pk)).order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["policy.create", "policy.add_rule"]


def test_markup_in_names_is_escaped(pages: Client, namespace: Namespace, world: Pushed) -> None:
    Namespace.objects.filter(pk=namespace.pk).update(description="<script>alert(1)</script>")
    Organization.objects.update(name="<b>bold</b>")
    for model in (Namespace, Organization, Project, Policy, ApiKey, AuditEvent):
        text = pages.get(url(model, "changelist")).content.decode()
        assert "<script>alert(1)" not in text
        assert "<b>bold</b>" not in text


def test_only_staff_may_sign_in_and_only_permitted_pages_are_shown(
    namespace: Namespace, world: Pushed
) -> None:
    client = Client()
    assert client.get(url(Namespace, "changelist")).status_code == 302
    client.force_login(make_user(password="correct horse battery"))
    assert client.get(url(Namespace, "changelist")).status_code == 302
    staff = make_user(password="correct horse battery")
    User.objects.filter(pk=staff.pk).update(is_staff=True)
    client.force_login(User.objects.get(pk=staff.pk))
    assert client.get(url(Namespace, "changelist")).status_code == 403
    assert client.post(url(Namespace, "delete", namespace.pk), {"post": "yes"}).status_code == 403


def test_an_administrator_may_change_the_visibility_of_a_locked_image(pages: Client, world: Pushed) -> None:
    Image.objects.filter(pk=world.image_id).update(status=Status.LOCKED)
    assert pages.post(url(Image, "change", world.image_id), {"visibility": "private"}).status_code == 302
    assert world.image.visibility == "private"
