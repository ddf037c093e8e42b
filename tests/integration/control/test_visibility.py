"""`selectors.visible_to` in SQL and the policy's `role_of` in Python implement the same rule."""

from itertools import product

import pytest

from registry_control.access.policy import Role, role_of
from registry_control.identity.permission_sets import PermissionSet
from registry_control.namespaces import selectors
from registry_control.namespaces.models import Namespace
from tests.factories import (
    default_project,
    make_application,
    make_key,
    make_namespace,
    make_organization,
    make_project,
    make_user,
)

pytestmark = pytest.mark.django_db


def test_a_list_has_exactly_the_namespaces_on_which_the_policy_grants_a_role() -> None:
    # given namespaces in two projects of two organizations, of owners of both kinds
    organizations = [make_organization(), make_organization()]
    principals = [make_key(rights=False, holder=make_user(organizations[0])).principal]
    for organization in organizations:
        projects = [default_project(organization), make_project(organization)]
        owners = [make_key(holder=make_user(organization)), make_key(holder=make_application(organization))]
        for owner, project, is_public in product(owners, projects, (True, False)):
            make_namespace(owner, project=project, is_public=is_public)
        principals += [owner.principal for owner in owners]

        # and principals with every permission set, on one project or on all
        for permission_set, scope in product(PermissionSet, (None, *projects)):
            principals.append(make_key(permission_set, organization=organization, project=scope).principal)

    # then for each of them both agree on each namespace
    everything = list(Namespace.objects.select_related("project"))
    assert len(everything) == 16
    for principal in principals:
        by_policy = {
            namespace.pk
            for namespace in everything
            if role_of(principal, selectors.facts_of(namespace)) is not Role.NONE
        }
        assert set(selectors.visible_to(principal).values_list("pk", flat=True)) == by_policy
