"""A request is authorized at its start; its token may expire before its end, but its key must stay valid."""

from datetime import timedelta

import pytest

from registry_control.access import services, tokens
from registry_control.access.errors import BadCredentials
from registry_control.audit.services import SYSTEM
from registry_control.common.clock import now
from registry_control.identity.models import ApiKey
from registry_control.identity.services import delete_api_key
from tests.factories import TestKey

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.oci(158)
def test_a_token_that_expires_during_a_request_still_identifies_its_caller(owner: TestKey) -> None:
    # given a token that expired after its request had started
    kid = services.rotate_signing_keys()
    assert kid
    token = tokens.sign(
        kid=kid,
        access_key=owner.access_key,
        subject="owner",
        scopes=[],
        issued_at=now() - timedelta(hours=2),
        life=timedelta(minutes=5),
    )
    with pytest.raises(BadCredentials):
        services.authenticate(token=token)

    # then it still identifies the caller of that request
    caller = services.authenticate(token=token, has_started=True)
    assert caller.principal.access_key == owner.access_key
    with pytest.raises(BadCredentials):
        services.authenticate(token=token)

    # but no longer once its key is deleted
    delete_api_key(actor=SYSTEM, api_key=ApiKey.objects.get(pk=owner.access_key))
    with pytest.raises(BadCredentials):
        services.authenticate(token=token, has_started=True)
