"""Organizations, principals, keys and policies as the services make them."""

import re
from uuid import UUID

import pytest

from registry_control.access.errors import BadCredentials
from registry_control.access.services import authenticate
from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.common.errors import AlreadyExists, InvalidArgument
from registry_control.identity import services
from registry_control.identity.models import ApiKey, PermissionSet, Project
from tests.factories import make_application, make_key, make_organization, make_project, make_user

pytestmark = pytest.mark.django_db


def test_an_organization_has_a_default_project_with_its_own_id() -> None:
    organization = services.create_organization(actor=SYSTEM, name="team")
    project = Project.objects.get(organization=organization)
    assert (project.pk, project.name) == (organization.pk, "default")


def test_keys_have_the_forms_that_clients_insist_on() -> None:
    issued = services.create_api_key(actor=SYSTEM, holder=make_application())
    assert re.fullmatch(r"SCW[A-Z0-9]{17}", issued.api_key.access_key)
    assert issued.secret == str(UUID(issued.secret))
    assert UUID(issued.secret).version == 4


def test_a_secret_is_stored_nowhere_and_shown_by_nothing() -> None:
    issued = services.create_api_key(actor=SYSTEM, holder=make_user())
    stored = [str(value) for row in ApiKey.objects.values() for value in row.values()]
    audited = [str(value) for row in AuditEvent.objects.values() for value in row.values()]
    assert not [text for text in (*stored, *audited, repr(issued)) if issued.secret in text]


def test_a_user_and_an_application_hold_keys_alike() -> None:
    for holder in (make_user(), make_application()):
        key = make_key(holder=holder)
        assert key.principal.id == holder.pk
        assert key.principal.organization_id == key.principal.default_project_id == holder.organization_id
        assert [right.permission_set for right in key.principal.rights] == [PermissionSet.FULL_ACCESS]


def test_a_deleted_key_proves_nobody_and_deleting_again_is_no_harm() -> None:
    issued = services.create_api_key(actor=SYSTEM, holder=make_application())
    services.delete_api_key(actor=SYSTEM, api_key=issued.api_key)
    services.delete_api_key(actor=SYSTEM, api_key=issued.api_key)
    with pytest.raises(BadCredentials):
        authenticate(secret=issued.secret)
    assert AuditEvent.objects.filter(verb="api_key.delete").count() == 1


def test_keys_and_policies_stay_inside_their_organization() -> None:
    robot, foreign = make_application(), make_project(make_organization())
    with pytest.raises(InvalidArgument):
        services.create_api_key(actor=SYSTEM, holder=robot, default_project=foreign)
    with pytest.raises(InvalidArgument):
        services.grant_policy(actor=SYSTEM, holder=robot, permission_set=PermissionSet.PUSH, project=foreign)
    nobodys = services.create_user(actor=SYSTEM, username="admin", organization=None, is_administrator=True)
    with pytest.raises(InvalidArgument):
        services.create_api_key(actor=SYSTEM, holder=nobodys)


def test_a_name_that_is_taken_is_said_to_be_and_breaks_no_transaction() -> None:
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


def test_invariant_10_each_verb_has_its_audit_row() -> None:
    key = make_key(holder=make_user())
    make_application(key.organization)
    make_project(key.organization)
    rows = AuditEvent.objects.filter(organization_id=key.organization.pk).order_by("pk")
    assert [row.verb for row in rows] == [
        "organization.create",
        "user.create",
        "policy.create",
        "api_key.create",
        "application.create",
        "project.create",
    ]
    assert {row.actor_name for row in rows} == {"system"}
