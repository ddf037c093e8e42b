"""Which cached responses the deletion of an API key evicts."""

import pytest

from registry_control.audit.services import SYSTEM
from registry_control.common.changes import organization_scope
from registry_control.common.models import Change
from registry_control.identity.models import ApiKey
from registry_control.identity.services import delete_api_key
from tests.factories import make_key

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_deleted_key_evicts_what_depends_on_the_present_organization_of_its_holder() -> None:
    # given a key whose holder was moved to another organization
    key = ApiKey.objects.select_related("user", "application").get(pk=make_key().access_key)
    other = make_key().organization
    holder = key.user or key.application
    assert holder is not None
    type(holder)._default_manager.filter(pk=holder.pk).update(organization=other)
    key = ApiKey.objects.get(pk=key.pk)
    Change.objects.all().delete()

    # when the key is deleted, then both organizations are recorded as changed
    delete_api_key(actor=SYSTEM, api_key=key)
    scopes = set(Change.objects.values_list("scope", flat=True))
    assert {organization_scope(other.pk), organization_scope(key.default_project.organization_id)} <= scopes
