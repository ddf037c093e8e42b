"""Authentication of the management API: accepted keys, and the errors for all others."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from registry_control.audit.services import SYSTEM
from registry_control.identity import services as identity
from registry_control.identity.models import ApiKey, Application, Policy, User
from tests.factories import make_key, make_namespace, make_user
from tests.integration.control.api import Api

pytestmark = pytest.mark.django_db

MISSING = {"type": "denied_authentication", "message": "authentication is denied", "method": "api_key"}


@pytest.mark.parametrize(
    ("headers", "method", "reason"),
    [
        ({}, "api_key", "invalid_argument"),
        ({"X_Auth_Token": ""}, "api_key", "invalid_argument"),
        ({"X_Auth_Token": "   "}, "api_key", "invalid_argument"),
        ({"X_Auth_Token": "SCWXXXXXXXXXXXXXXXXX"}, "api_key", "invalid_argument"),
        ({"X_Auth_Token": "0" * 32}, "api_key", "invalid_argument"),
        ({"X_Auth_Token": "x" * 20_000}, "api_key", "invalid_argument"),
        ({"X_Auth_Token": str(uuid4())}, "api_key", "not_found"),
        ({"X_Session_Token": "eyJhbGciOi.J9.x"}, "jwt", "invalid_argument"),
        ({"Authorization": "Bearer x"}, "api_key", "invalid_argument"),
    ],
)
def test_a_request_without_a_valid_key_is_401_with_the_reason(
    headers: dict[str, str], method: str, reason: str
) -> None:
    response = Api().call("GET", "/namespaces", **headers)
    assert response.status == 401
    help_message = response.body.pop("help_message")
    assert isinstance(help_message, str)
    assert response.body == {**MISSING, "method": method, "reason": reason}
    assert response.headers["WWW-Authenticate"] == 'X-Auth-Token realm="stowage"'
    assert response.headers["Content-Type"] == "application/json"


def test_a_key_is_reported_as_expired_from_the_second_in_which_it_expires() -> None:
    key = make_key(expires_at=timezone.now() + timedelta(hours=1))
    assert Api(key).get("/namespaces").status == 200
    ApiKey.objects.update(expires_at=timezone.now())
    response = Api(key).get("/namespaces")
    assert (response.status, response.body["reason"]) == (401, "expired")


def test_a_secret_is_accepted_in_upper_case() -> None:
    key = make_key()
    assert Api().call("GET", "/namespaces", X_Auth_Token=key.secret.upper()).status == 200


def test_a_session_token_is_ignored_if_there_is_a_secret_key() -> None:
    assert Api(make_key()).call("GET", "/namespaces", X_Session_Token="x").status == 200


def test_invariant_5_a_revoked_right_or_key_is_refused_from_the_next_request_on() -> None:
    # given an application with rights on a namespace of another owner in its organization
    owner = make_key()
    namespace = make_namespace(owner)
    key = make_key(organization=owner.organization)
    path = f"/namespaces/{namespace.pk}"
    assert Api(key).get(path).status == 200

    # when its policy is deleted, then it does not see the namespace
    Policy.objects.filter(application=key.holder.pk).delete()
    assert Api(key).get(path).status == 404

    # when it is deactivated, or its key is deleted, then the key is unknown
    Application.objects.filter(pk=key.holder.pk).update(is_active=False)
    assert Api(key).get(path).body["reason"] == "not_found"
    Application.objects.filter(pk=key.holder.pk).update(is_active=True)
    identity.delete_api_key(actor=SYSTEM, api_key=ApiKey.objects.get(pk=key.access_key))
    assert Api(key).get(path).body["reason"] == "not_found"


def test_a_user_without_an_organization_sees_and_creates_nothing() -> None:
    # given a user who has left the organization after a key was issued
    user = make_user()
    key = make_key(holder=user)
    make_namespace(key, "left-behind")
    User.objects.filter(pk=user.pk).update(organization=None)

    # when this key is used, then it is valid but has no rights
    assert Api(key).get("/namespaces").body == {"namespaces": [], "total_count": 0}
    assert Api(key).get("/images").body == {"images": [], "total_count": 0}
    assert Api(key).post("/namespaces", name="my-team").status == 400
