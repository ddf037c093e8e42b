"""Organizations, projects, principals and policies in the administration: a service does every write."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client, override_settings

from registry_control.access.errors import BadCredentials
from registry_control.access.services import authenticate
from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.services import deletion
from registry_control.common.errors import InUse
from registry_control.common.store import blob_store
from registry_control.identity import services
from registry_control.identity.models import (
    ApiKey,
    Application,
    Organization,
    Policy,
    Project,
    User,
)
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import emptying
from tests.factories import (
    TestKey,
    make_key,
    make_namespace,
    make_organization,
    make_project,
    make_user,
    unique,
)
from tests.integration.admin.forms import fields, url

pytestmark = pytest.mark.django_db(transaction=True)

CONFIRMED = {"post": "yes"}


def verbs(target: object) -> list[str]:
    events = AuditEvent.objects.filter(target_id=str(target)).order_by("pk")
    return list(events.values_list("verb", flat=True))


@pytest.fixture
def tenant() -> TestKey:
    """An organization with one more of every object than a new one has."""
    organization = make_organization()
    make_project(organization)
    make_user(organization)
    return make_key(organization=organization)


def delete(pages: Client, organization: Organization, way: str) -> str:
    """Delete an organization from its page or from the list; return the text of the last page."""
    if way == "page":
        response = pages.post(url(Organization, "delete", organization.pk), CONFIRMED, follow=True)
    else:
        chosen = {"action": "delete_selected", "_selected_action": [str(organization.pk)], **CONFIRMED}
        response = pages.post(url(Organization, "changelist"), chosen, follow=True)
    assert response.status_code == 200
    return str(response.content.decode())


@pytest.mark.parametrize("way", ["page", "action"])
def test_an_organization_without_namespaces_is_deleted_with_all_its_objects(
    pages: Client, tenant: TestKey, way: str
) -> None:
    # given the page that asks for confirmation
    organization = tenant.organization
    shown = pages.get(url(Organization, "delete", organization.pk)).content.decode()
    for count in ("projects: 2", "users: 1", "applications: 1", "API keys: 1", "policies: 1"):
        assert count in shown

    # when it is confirmed
    delete(pages, organization, way)

    # then no object is left, the key is invalid, and the audit log lists what was deleted
    for model in (Project, User, Application, Policy):
        assert not model._default_manager.filter(organization=organization).exists()
    assert not ApiKey.objects.filter(pk=tenant.access_key).exists()
    with pytest.raises(BadCredentials):
        authenticate(secret=tenant.secret)
    event = AuditEvent.objects.get(verb="organization.delete", target_id=str(organization.pk))
    assert event.detail == {
        "projects": 2,
        "users": 1,
        "applications": 1,
        "api_keys": 1,
        "policies": 1,
        "replication_targets": 0,
    }


@pytest.mark.parametrize("way", ["page", "action"])
def test_an_organization_with_namespaces_is_not_deleted_and_their_number_is_shown(
    pages: Client, tenant: TestKey, way: str
) -> None:
    # given two namespaces, one of which is being deleted
    organization = tenant.organization
    make_namespace(tenant)
    going = make_namespace(tenant)
    pages.post(url(Namespace, "delete", going.pk), CONFIRMED)

    # when the organization is deleted, then the deletion is refused
    refused = delete(pages, organization, way)
    assert "has 1 namespace: delete these first" in refused
    assert "1 namespace being deleted" in refused
    assert Organization.objects.filter(pk=organization.pk).exists()
    assert authenticate(secret=tenant.secret).principal.id == tenant.holder.pk
    assert "organization.delete" not in verbs(organization.pk)

    # and once the worker has deleted the namespaces, it succeeds
    pages.post(
        url(Namespace, "changelist"),
        {"action": "delete_selected", "_selected_action": list(_ids(organization)), **CONFIRMED},
    )
    store = blob_store()
    store.check()
    while deletion.run_batch(store=store, limit=50):
        pass
    delete(pages, organization, way)
    assert not Organization.objects.filter(pk=organization.pk).exists()


@pytest.mark.parametrize("kind", ["organization", "project"])
def test_what_has_namespaces_in_the_recycle_bin_goes_once_they_are_purged(
    pages: Client, tenant: TestKey, kind: str
) -> None:
    def remove() -> None:
        if kind == "organization":
            services.delete_organization(actor=SYSTEM, organization=tenant.organization)
        else:
            services.delete(actor=SYSTEM, row=project)

    # given an organization, or one of its projects, whose only namespaces are in the recycle bin
    namespaces = [make_namespace(tenant) for _ in range(2)]
    project = namespaces[0].project
    with override_settings(RECYCLE_BIN=timedelta(days=7)):
        for namespace in namespaces:
            pages.post(url(Namespace, "delete", namespace.pk), CONFIRMED)

    # when it is deleted, then the refusal says where they are and how they go
    expected = "has 2 namespaces in the recycle bin: purge these in the administration or with DELETE"
    with pytest.raises(InUse) as refused:
        remove()
    assert expected in str(refused.value)
    if kind == "organization":
        assert expected in delete(pages, tenant.organization, "page")
    for entry in RecycleBinEntry.objects.all():
        emptying.purge_entry(entry.pk, actor=SYSTEM)
    with pytest.raises(InUse) as refused:
        remove()
    assert "has 2 namespaces being deleted: wait" in str(refused.value)
    store = blob_store()
    store.check()
    while deletion.run_batch(store=store, limit=50):
        pass
    remove()
    assert not Project.objects.filter(pk=project.pk).exists()


def _ids(organization: Organization) -> list[str]:
    found = Namespace.objects.filter(project__organization=organization)
    return [str(pk) for pk in found.values_list("pk", flat=True)]


@pytest.mark.parametrize("way", ["page", "action"])
def test_administrators_cannot_delete_their_own_organization(
    pages: Client, administrator: User, way: str
) -> None:
    organization = administrator.organization
    assert organization is not None
    assert "You belong to" in delete(pages, organization, way)
    assert User.objects.filter(pk=administrator.pk).exists()


@pytest.mark.parametrize("way", ["page", "action"])
def test_staff_cannot_delete_an_organization_with_a_superuser(administrator: User, way: str) -> None:
    # given staff with the permission to delete organizations
    staff = make_user()
    User.objects.filter(pk=staff.pk).update(is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(content_type__app_label="identity"))
    client = Client()
    client.force_login(User.objects.get(pk=staff.pk))
    assert administrator.organization is not None
    page, form = url(Organization, "delete", administrator.organization.pk), dict[str, Any](CONFIRMED)
    if way == "action":
        page = url(Organization, "changelist")
        form |= {"action": "delete_selected", "_selected_action": [str(administrator.organization.pk)]}
    assert client.post(page, form).status_code == 403
    assert User.objects.filter(pk=administrator.pk).exists()


def test_a_project_with_namespaces_is_not_deleted(pages: Client, tenant: TestKey) -> None:
    project = make_project(tenant.organization)
    namespace = make_namespace(tenant, project=project)
    make_key(holder=tenant.holder, project=project)
    page = url(Project, "delete", project.pk)

    # when the page is opened or confirmed, then it says what would go, and what forbids it
    for shown in (pages.get(page), pages.post(page, CONFIRMED)):
        text = shown.content.decode()
        assert f"{project} has 1 namespace: delete these first" in text
    assert Project.objects.filter(pk=project.pk).exists()

    # and without the namespace, it goes with the key and the rule of a policy
    Namespace.objects.filter(pk=namespace.pk).delete()
    text = pages.get(page).content.decode()
    for count in ("API keys: 1", "policy rules: 1"):
        assert count in text
    assert pages.post(page, CONFIRMED).status_code == 302
    assert not Project.objects.filter(pk=project.pk).exists()
    assert verbs(project.pk) == ["project.create", "project.delete"]


def test_rows_are_created_changed_and_deleted_with_one_audit_row_each(pages: Client, tenant: TestKey) -> None:
    organization = str(tenant.organization.pk)
    for model, form in (
        (Project, {"name": unique("project"), "organization": organization, "description": "d"}),
        (Application, {"name": unique("robot"), "organization": organization, "description": "d"}),
    ):
        # given a row that is created with a form
        assert pages.post(url(model, "add"), {**form, "is_active": "on"}).status_code == 302
        made = model._default_manager.get(name=form["name"])
        assert made.description == "d"

        # when one page changes it, and another one deletes it
        page = url(model, "change", made.pk)
        changed = fields(pages.get(page).content) | {"description": ["new"]}
        assert pages.post(page, changed).status_code == 302
        made.refresh_from_db()
        assert made.description == "new"
        assert pages.post(url(model, "delete", made.pk), CONFIRMED).status_code == 302

        # then each is one audit event, in the administrator's name
        kind = model._meta.model_name
        assert verbs(made.pk) == [f"{kind}.create", f"{kind}.update", f"{kind}.delete"]


def test_rules_of_a_policy_are_added_changed_and_removed(pages: Client, tenant: TestKey) -> None:
    # given the policy that grants everything
    policy = Policy.objects.get(application=tenant.holder.pk)
    page = url(Policy, "change", policy.pk)

    # when its rule is edited, and later deleted
    form = fields(pages.get(page).content)
    form |= {"rules-0-permission_set": ["ContainerRegistryReadOnly"]}
    assert pages.post(page, form).status_code == 302
    assert [right.permission_set for right in tenant.principal.rights] == ["ContainerRegistryReadOnly"]
    form = fields(pages.get(page).content) | {"rules-0-DELETE": ["on"]}
    assert pages.post(page, form).status_code == 302

    # then the next request has the resulting rights
    assert tenant.principal.rights == ()
    assert verbs(policy.pk)[-2:] == ["policy.change_rule", "policy.remove_rule"]


def test_a_duplicate_name_is_an_error_on_the_page(pages: Client, tenant: TestKey) -> None:
    policy = Policy.objects.get(application=tenant.holder.pk)
    form = {
        "organization": str(tenant.organization.pk),
        "name": policy.name,
        "application": str(tenant.holder.pk),
        "user": "",
        "rules-TOTAL_FORMS": "0",
        "rules-INITIAL_FORMS": "0",
    }
    assert b"already exists" in pages.post(url(Policy, "add"), form).content
