"""Saving a page that was opened before another change writes only the fields that were edited on it."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.test import Client

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Image
from registry_control.common.clock import now
from registry_control.identity.models import ApiKey, Application, Policy, PolicyRule, Project, User
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, default_project, make_user, push_image
from tests.integration.admin.forms import fields, url

pytestmark = pytest.mark.django_db(transaction=True)


def opened(pages: Client, row: Model) -> dict[str, Any]:
    """The form of a row's page with the current values."""
    return fields(pages.get(url(type(row), "change", row.pk)).content)


def send(pages: Client, row: Model, form: dict[str, Any]) -> Any:
    return pages.post(url(type(row), "change", row.pk), form)


def test_an_outdated_page_does_not_revert_the_visibility_of_a_namespace(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    # given a page that shows a public namespace, which then becomes private
    Namespace.objects.update(is_public=True, description="two\nlines")
    form = opened(pages, namespace)
    namespaces.update(principal=owner.principal, namespace_id=namespace.pk, description=None, is_public=False)

    # when its owner is changed on the page
    user = make_user(owner.organization)
    form |= {"owner_user": str(user.pk), "owner_application": ""}
    assert send(pages, namespace, form).status_code == 302

    # then only the owner is changed, and only the owner is in the audit log
    namespace.refresh_from_db()
    assert (namespace.is_public, namespace.description) == (False, "two\nlines")
    assert (namespace.owner_user_id, namespace.owner_application_id) == (user.pk, None)
    detail = AuditEvent.objects.filter(verb="namespace.update").latest("pk").detail
    assert detail == {"owner_user": str(user.pk), "owner_application": None}


def test_a_field_that_is_set_to_its_earlier_value_is_a_change(pages: Client, namespace: Namespace) -> None:
    form = opened(pages, namespace)
    Namespace.objects.update(accepts_sparse_indexes=True)
    assert send(pages, namespace, form | {"is_public": "on"}).status_code == 302
    namespace.refresh_from_db()
    assert (namespace.is_public, namespace.accepts_sparse_indexes) == (True, True)
    form = opened(pages, namespace)
    form.pop("is_public")
    assert send(pages, namespace, form).status_code == 302
    namespace.refresh_from_db()
    assert (namespace.is_public, namespace.accepts_sparse_indexes) == (False, True)


def test_an_outdated_page_does_not_revert_the_visibility_of_an_image(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace)
    form = opened(pages, pushed.image)
    Image.objects.update(visibility="private")
    assert send(pages, pushed.image, form).status_code == 302
    assert pushed.image.visibility == "private"


def test_an_outdated_page_does_not_revert_the_expiry_of_a_key(pages: Client, owner: TestKey) -> None:
    key = ApiKey.objects.get(pk=owner.access_key)
    ApiKey.objects.update(expires_at=now() + timedelta(days=90))
    form = opened(pages, key)
    soon = now().replace(microsecond=0) + timedelta(days=1)
    ApiKey.objects.update(expires_at=soon)
    assert send(pages, key, form | {"description": "ours"}).status_code == 302
    key.refresh_from_db()
    assert (key.expires_at, key.description) == (soon, "ours")


def test_a_page_with_errors_retains_the_initial_values(pages: Client, owner: TestKey) -> None:
    # given a key whose expiry is changed together with an invalid value
    key = ApiKey.objects.get(pk=owner.access_key)
    form = opened(pages, key) | {"expires_at_0": "2031-02-03", "expires_at_1": "04:05:06"}
    again = send(pages, key, form | {"default_project": ""})
    assert again.status_code == 200
    # when the invalid value is corrected
    form = fields(again.content) | {"default_project": str(key.default_project_id)}
    assert send(pages, key, form).status_code == 302
    # then the expiry is changed
    key.refresh_from_db()
    assert key.expires_at is not None
    assert key.expires_at.year == 2031


def test_an_outdated_page_does_not_reactivate_a_principal(pages: Client, owner: TestKey) -> None:
    robot = Application.objects.get(pk=owner.holder.pk)
    user = make_user(password="correct horse battery")
    forms = {row: opened(pages, row) for row in (robot, user)}
    Application.objects.update(is_active=False)
    User.objects.filter(pk=user.pk).update(is_active=False, password="!")
    assert send(pages, robot, forms[robot] | {"description": "new"}).status_code == 302
    assert send(pages, user, forms[user] | {"email": "a@example.com"}).status_code == 302
    robot.refresh_from_db()
    user.refresh_from_db()
    assert (robot.is_active, robot.description) == (False, "new")
    assert (user.is_active, user.email, user.password) == (False, "a@example.com", "!")
    assert robot.updated_at > robot.created_at


def test_a_page_does_not_contain_the_hash_of_a_password(pages: Client) -> None:
    user = make_user(password="correct horse battery")
    form = opened(pages, user)
    assert user.password not in str(form)
    assert form["initial-username"] == [user.username]


def test_permissions_that_were_granted_meanwhile_remain(pages: Client) -> None:
    user = make_user(password="correct horse battery")
    form = opened(pages, user)
    kind = ContentType.objects.get_for_model(Namespace)
    user.user_permissions.add(Permission.objects.create(codename="look", content_type=kind))
    assert send(pages, user, form | {"first_name": "Ada"}).status_code == 302
    assert user.user_permissions.count() == 1


def test_rules_that_were_changed_or_removed_meanwhile_remain_so(pages: Client, owner: TestKey) -> None:
    # given the open page of a policy with two rules
    policy = Policy.objects.get(application=owner.holder.pk)
    project = default_project(owner.organization)
    rule = policy.rules.create(permission_set="ContainerRegistryPush", project=project)
    kept = policy.rules.exclude(pk=rule.pk).get()
    form = opened(pages, policy)

    # when the permission set of one is changed meanwhile, then its project can be changed on the page
    PolicyRule.objects.filter(pk=kept.pk).update(permission_set="ContainerRegistryReadOnly")
    at = 0 if form["rules-0-id"] == [str(kept.pk)] else 1
    assert send(pages, policy, form | {f"rules-{at}-project": str(project.pk)}).status_code == 302
    kept.refresh_from_db()
    assert (kept.permission_set, kept.project_id) == ("ContainerRegistryReadOnly", project.pk)

    # and when one is deleted, it stays deleted
    form = opened(pages, policy)
    rule.delete()
    changed = {f"rules-{1 - at}-permission_set": "ContainerRegistryFullAccess"}
    assert send(pages, policy, form | changed).status_code == 200
    assert policy.rules.get() == kept


def test_saving_without_a_change_writes_no_audit_row(pages: Client, namespace: Namespace) -> None:
    project = Project.objects.get(pk=namespace.project_id)
    before = AuditEvent.objects.count()
    for row in (namespace, project):
        assert send(pages, row, opened(pages, row)).status_code == 302
    assert AuditEvent.objects.count() == before
    assert Namespace.objects.get().updated_at == namespace.updated_at


def test_saving_the_page_of_a_deleted_row_is_an_error(pages: Client, owner: TestKey) -> None:
    key = ApiKey.objects.get(pk=owner.access_key)
    form = opened(pages, key)
    ApiKey.objects.all().delete()
    response = pages.post(url(ApiKey, "change", key.pk), form, follow=True)
    assert "Perhaps it was deleted?" in response.content.decode()
    assert not ApiKey.objects.exists()


def test_a_password_is_changed_by_an_administrator(pages: Client) -> None:
    user = make_user(password="correct horse battery")
    form = {"password1": "another horse battery", "password2": "another horse battery"}
    assert pages.post(f"/admin/identity/user/{user.pk}/password/", form).status_code == 302
    user.refresh_from_db()
    assert user.check_password("another horse battery")
    assert AuditEvent.objects.filter(verb="user.password", target_id=str(user.pk)).count() == 1


def test_disabling_a_password_is_audited(pages: Client, administrator: User) -> None:
    user = make_user(password="correct horse battery")
    form = {"usable_password": "false", "unset-password": "1"}
    assert pages.post(f"/admin/identity/user/{user.pk}/password/", form).status_code == 302
    user.refresh_from_db()
    assert not user.has_usable_password()
    event = AuditEvent.objects.get(verb="user.password", target_id=str(user.pk))
    assert event.actor_id == str(administrator.pk)
