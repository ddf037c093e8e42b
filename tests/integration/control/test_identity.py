"""Organizations, principals, keys and policies, as the services create them."""

import json
import re
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import call_command

from registry_control.access.errors import BadCredentials
from registry_control.access.services import authenticate
from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.common.errors import AlreadyExists, InvalidArgument
from registry_control.identity import services
from registry_control.identity.models import ApiKey, Policy, Project
from registry_control.identity.permission_sets import PermissionSet
from tests.factories import make_application, make_key, make_organization, make_project, make_user

pytestmark = pytest.mark.django_db


def test_an_organization_has_a_default_project_with_its_own_id() -> None:
    organization = services.create_organization(actor=SYSTEM, name="team")
    project = Project.objects.get(organization=organization)
    assert (project.pk, project.name) == (organization.pk, "default")


def test_keys_have_the_formats_that_clients_require() -> None:
    issued = services.create_api_key(actor=SYSTEM, holder=make_application())
    assert re.fullmatch(r"SCW[A-Z0-9]{17}", issued.api_key.access_key)
    assert issued.secret == str(UUID(issued.secret))
    assert UUID(issued.secret).version == 4


def test_a_secret_is_neither_stored_nor_displayed() -> None:
    issued = services.create_api_key(actor=SYSTEM, holder=make_user())
    stored = [str(value) for row in ApiKey.objects.values() for value in row.values()]
    audited = [str(value) for row in AuditEvent.objects.values() for value in row.values()]
    assert not [text for text in (*stored, *audited, repr(issued)) if issued.secret in text]


def test_users_and_applications_can_have_keys() -> None:
    for holder in (make_user(), make_application()):
        key = make_key(holder=holder)
        assert key.principal.id == holder.pk
        assert key.principal.organization_id == key.principal.default_project_id == holder.organization_id
        assert [right.permission_set for right in key.principal.rights] == [PermissionSet.FULL_ACCESS]


def test_a_deleted_key_is_invalid_and_deleting_it_again_succeeds() -> None:
    issued = services.create_api_key(actor=SYSTEM, holder=make_application())
    services.delete_api_key(actor=SYSTEM, api_key=issued.api_key)
    services.delete_api_key(actor=SYSTEM, api_key=issued.api_key)
    with pytest.raises(BadCredentials):
        authenticate(secret=issued.secret)
    assert AuditEvent.objects.filter(verb="api_key.delete").count() == 1


def test_keys_and_policies_are_limited_to_their_organization() -> None:
    robot, foreign = make_application(), make_project(make_organization())
    with pytest.raises(InvalidArgument):
        services.create_api_key(actor=SYSTEM, holder=robot, default_project=foreign)
    with pytest.raises(InvalidArgument):
        services.grant_policy(actor=SYSTEM, holder=robot, permission_set=PermissionSet.PUSH, project=foreign)
    nobodys = services.create_user(actor=SYSTEM, username="admin", organization=None, is_administrator=True)
    with pytest.raises(InvalidArgument):
        services.create_api_key(actor=SYSTEM, holder=nobodys)


def test_a_duplicate_name_raises_already_exists_and_does_not_break_the_transaction() -> None:
    organization = make_organization()
    user = services.create_user(actor=SYSTEM, username="ada", organization=organization, password="secret")
    services.create_application(actor=SYSTEM, organization=organization, name="robot")
    services.create_project(actor=SYSTEM, organization=organization, name="web")
    grant = {"actor": SYSTEM, "holder": user, "permission_set": PermissionSet.PUSH, "name": "pushers"}
    services.grant_policy(**grant)  # type: ignore[arg-type]
    for again in (
        lambda: services.create_user(actor=SYSTEM, username="ada", organization=None),
        lambda: services.create_application(actor=SYSTEM, organization=organization, name="robot"),
        lambda: services.create_project(actor=SYSTEM, organization=organization, name="web"),
        lambda: services.grant_policy(**grant),  # type: ignore[arg-type]
    ):
        with pytest.raises(AlreadyExists):
            again()
    assert user.check_password("secret")


def test_invariant_10_each_service_writes_its_audit_row() -> None:
    key = make_key(holder=make_user())
    make_application(key.organization)
    make_project(key.organization)
    rows = AuditEvent.objects.filter(organization_id=key.organization.pk).order_by("pk")
    assert [row.verb for row in rows] == [
        "organization.create",
        "user.create",
        "policy.create",
        "policy.add_rule",
        "api_key.create",
        "application.create",
        "project.create",
    ]
    assert {row.actor_name for row in rows} == {"system"}


@pytest.mark.django_db(transaction=True)
def test_keys_can_be_rotated_repeatedly() -> None:
    # given an operator who replaces a key repeatedly, as in the README
    keys = []
    for _ in range(3):
        printed = StringIO()
        call_command("create_key", "team", "ci", "--permission-set", "ContainerRegistryPush", stdout=printed)
        keys.append(json.loads(printed.getvalue()))
        for old in keys[:-1]:
            with pytest.raises(BadCredentials):
                authenticate(secret=old["secret_key"])
        principal = authenticate(secret=keys[-1]["secret_key"]).principal
        assert [right.permission_set for right in principal.rights] == [PermissionSet.PUSH]
        call_command("delete_key", keys[-1]["access_key"])

    # then all keys belong to one application with one policy
    assert len({key["application_id"] for key in keys}) == 1
    assert Policy.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_granting_a_policy_again_restores_its_deleted_rule() -> None:
    robot = make_application()
    grant = {"actor": SYSTEM, "holder": robot, "permission_set": PermissionSet.PUSH}
    policy = services.grant_policy(**grant)  # type: ignore[arg-type]
    services.remove_rule(actor=SYSTEM, rule=policy.rules.get())
    assert services.grant_policy(**grant).rules.count() == 1  # type: ignore[arg-type]
    assert Policy.objects.get() == policy
