"""The token endpoint on the control plane: the Docker token protocol, GET and POST (OCI 150-157)."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from django.conf import settings
from django.test import override_settings

from registry_control.access.errors import BadCredentials
from registry_control.access.services import authenticate
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Image
from registry_control.identity.models import ApiKey, Application, Policy
from registry_control.identity.services import delete_api_key
from tests.factories import PUSH, READ_ONLY, Pushed, TestKey, make_key, make_namespace, push_image
from tests.integration.control.api import Api, Response

pytestmark = pytest.mark.django_db

TOKENS = "/registry-internal/v1/regions/fr-par/tokens"


def get(password: str | None = None, *, user: str = "nologin", scope: list[str] | str = "") -> Response:
    query = urlencode({"service": "registry", "scope": scope}, doseq=True)
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}"} if password is not None else {}
    return Api().call("GET", f"{TOKENS}?{query}", **headers)


def post(**form: str) -> Response:
    return Api().call("POST", TOKENS, urlencode(form), content_type="application/x-www-form-urlencoded")


def access(response: Response) -> list[dict[str, Any]]:
    """The access claims of a token, verified with the published keys as any other program would."""
    assert response.status == 200, response
    token = response.body["access_token"]
    keys = jwt.PyJWKSet.from_dict(Api().get("/.well-known/jwks.json").body)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="registry", issuer="stowage")
    granted: list[dict[str, Any]] = claims["access"]
    return granted


@pytest.fixture
def pushed(key: TestKey) -> Pushed:
    return push_image(key, make_namespace(key, "team"), "app")


def repository(*actions: str, name: str = "team/app") -> dict[str, Any]:
    return {"type": "repository", "name": name, "actions": list(actions)}


def test_a_get_with_a_secret_key_returns_a_token(key: TestKey, pushed: Pushed) -> None:
    response = get(key.secret, scope="repository:team/app:push,pull")
    assert set(response.body) == {"token", "access_token", "expires_in", "issued_at"}
    assert response.body["token"] == response.body["access_token"]
    assert response.body["expires_in"] == 300
    issued = datetime.strptime(response.body["issued_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - issued).total_seconds()) < 60
    assert access(response) == [repository("pull", "push")]
    assert authenticate(token=response.body["token"]).principal == key.principal
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


@pytest.mark.oci(162)
@pytest.mark.parametrize("user", ["nologin", "scaleway", "", "r$bot+1@x y", "ünicode", "team"])
def test_any_user_name_is_accepted(key: TestKey, pushed: Pushed, user: str) -> None:
    assert access(get(key.secret, user=user, scope="repository:team/app:pull")) == [repository("pull")]


@pytest.mark.oci(157)
@pytest.mark.parametrize("password", [None, ""])
def test_an_anonymous_token_grants_pulls_of_public_images_only(
    key: TestKey, pushed: Pushed, password: str | None
) -> None:
    # given a private image, then a public one; when an anonymous caller or `nologin` without a password asks
    asked = "repository:team/app:pull,push"
    private = get(password, scope=asked)
    Image.objects.update(visibility="public")
    public = get(password, scope=asked)

    # then both get a token, and only pulling the public image is granted
    assert access(private) == []
    assert access(public) == [repository("pull")]
    assert authenticate(token=public.body["token"]).is_anonymous


@pytest.mark.oci(140, 152)
@pytest.mark.parametrize(
    ("rights", "granted"),
    [([READ_ONLY], ["pull"]), ([PUSH], ["pull", "push"]), ([], ["delete", "pull", "push"])],
)
def test_a_token_grants_the_requested_actions_that_the_caller_has_rights_for(
    key: TestKey, pushed: Pushed, rights: list[Any], granted: list[str]
) -> None:
    other = make_key(*rights, organization=key.organization)
    for scope in ("repository:team/app:delete,pull,push", "repository:team/app:*"):
        assert access(get(other.secret, scope=scope)) == [repository(*granted)]


@pytest.mark.oci(150)
def test_repeated_and_space_separated_scopes_are_merged(key: TestKey, pushed: Pushed) -> None:
    response = get(
        key.secret,
        scope=[
            "repository:team/app:pull repository:team/new:push",
            "repository:team/app:pull,push",
            "nonsense",
        ],
    )
    assert access(response) == [repository("pull", "push"), repository("push", name="team/new")]


def login(key: TestKey) -> Response:
    """Log in as docker does."""
    return Api().call(
        "GET",
        f"{TOKENS}?account=x&client_id=docker&offline_token=true&service=registry",
        Authorization="Basic " + base64.b64encode(f"x:{key.secret}".encode()).decode(),
    )


def refresh(token: str, **form: str) -> Response:
    return post(grant_type="refresh_token", service="registry", refresh_token=token, **form)


@pytest.mark.oci(153, 156)
def test_a_login_without_a_scope_returns_a_refresh_token(key: TestKey) -> None:
    response = login(key)
    assert access(response) == []
    assert key.secret not in str(response.body)
    assert set(response.body) == {"token", "access_token", "expires_in", "issued_at", "refresh_token"}


@pytest.mark.oci(154, 155)
def test_a_refresh_token_can_be_exchanged_repeatedly_for_the_current_rights_of_its_key(
    key: TestKey, pushed: Pushed
) -> None:
    token = login(key).body["refresh_token"]
    for _ in range(2):
        response = refresh(
            token, client_id="docker", scope="repository:team/app:push,pull registry:catalog:*"
        )
        assert set(response.body) == {"access_token", "scope", "expires_in", "issued_at"}
        assert repository("pull", "push") in access(response)


@pytest.mark.oci(155)
def test_a_post_with_access_type_offline_returns_a_refresh_token(key: TestKey, pushed: Pushed) -> None:
    first = post(grant_type="password", username="x", password=key.secret, access_type="offline")
    second = refresh(first.body["refresh_token"], access_type="offline", scope="repository:team/app:pull")
    assert second.body["refresh_token"] == first.body["refresh_token"]
    assert access(second) == [repository("pull")]


@pytest.mark.oci(153)
def test_anonymous_callers_and_requests_without_access_type_offline_get_no_refresh_token(
    key: TestKey,
) -> None:
    for response in (
        Api().call("GET", f"{TOKENS}?offline_token=true&service=registry"),
        post(grant_type="password", access_type="offline"),
        get(key.secret),
        post(grant_type="password", password=key.secret, access_type="online"),
    ):
        assert response.status == 200
        assert "refresh_token" not in response.body


@pytest.mark.oci(154)
def test_a_refresh_token_has_the_current_rights_of_its_key(key: TestKey, pushed: Pushed) -> None:
    # given a user who may read, and has logged in
    reader = make_key(READ_ONLY, organization=key.organization)
    token = login(reader).body["refresh_token"]
    asked = "repository:team/app:pull,push"
    assert access(refresh(token, scope=asked)) == [repository("pull")]

    # when the policy is deleted, then nothing more is granted
    Policy.objects.filter(application=reader.holder.pk).delete()
    assert access(refresh(token, scope=asked)) == []


def _expire(key: TestKey) -> None:
    ApiKey.objects.filter(access_key=key.access_key).update(expires_at=datetime.now(UTC))


def _revoke(key: TestKey) -> None:
    delete_api_key(actor=SYSTEM, api_key=ApiKey.objects.get(access_key=key.access_key))


def _deactivate(key: TestKey) -> None:
    Application.objects.filter(pk=key.holder.pk).update(is_active=False)


def _change_the_secret(key: TestKey) -> None:
    ApiKey.objects.filter(access_key=key.access_key).update(secret_hmac="0" * 64)


@pytest.mark.oci(154)
@pytest.mark.parametrize("end", [_expire, _revoke, _deactivate, _change_the_secret])
def test_a_refresh_token_ends_with_its_key_and_the_error_says_what_to_do(
    key: TestKey, end: Callable[[TestKey], None]
) -> None:
    token = login(key).body["refresh_token"]
    end(key)
    response = refresh(token)
    assert response.status == 401
    assert response.body["errors"][0]["code"] == "UNAUTHORIZED"
    assert "log in again" in response.body["message"]
    assert token not in str(response.body)


@pytest.mark.oci(154)
def test_a_refresh_token_of_one_key_cannot_be_forged_from_that_of_another(key: TestKey) -> None:
    own, other = login(key).body["refresh_token"], login(make_key()).body["refresh_token"]
    forged = own[: -len("_") - 64] + other[-len("_") - 64 :]
    for token in (forged, own[:-1], f"{own}0", own.upper(), "", "x", "\x00", "ü" * 93):
        assert refresh(token).status == 401
    assert refresh(own).status == 200


@pytest.mark.oci(154)
def test_a_refresh_token_is_not_accepted_as_a_password_or_access_token(key: TestKey) -> None:
    token = login(key).body["refresh_token"]
    assert get(token).status == 401
    assert post(grant_type="password", password=token).status == 401
    assert Api().call("GET", "/namespaces", **{"X-Auth-Token": token}).status == 401
    with pytest.raises(BadCredentials):
        authenticate(token=token)


# A constant: workers of pytest-xdist must collect the same ids.
WRONG = ["x", "5f2b9c1e-8a8e-4e0f-9a55-0d3f6f0f3c7b", "SCWXXXXXXXXXXXXXXXXX"]


@pytest.mark.oci(152)
@pytest.mark.parametrize("password", WRONG)
def test_a_wrong_password_is_401_with_a_message_that_docker_displays(password: str) -> None:
    for response in (get(password), post(grant_type="password", username="x", password=password)):
        assert response.status == 401
        assert set(response.body) == {"errors", "message", "details"}
        assert response.body["errors"][0]["code"] == "UNAUTHORIZED"
        assert "secret key" in response.body["message"]
        assert password not in str(response.body) or password == "x"
        assert response.headers["WWW-Authenticate"] == 'Basic realm="stowage"'
        assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("header", ["Basic", "Basic ???", "Basic eA==", "Bearer x", "Basic /w==", "x"])
def test_a_malformed_authorization_is_401_and_not_treated_as_anonymous(header: str) -> None:
    assert Api().call("GET", TOKENS, Authorization=header).status == 401


@pytest.mark.oci(16)
@pytest.mark.parametrize(
    "request_token",
    [get, lambda: get(""), lambda: post(grant_type="password", username="x", password="")],
    ids=["no header", "empty password", "form"],
)
def test_requests_for_anonymous_tokens_are_limited(request_token: Callable[[], Response]) -> None:
    settings.STATE_DIR.mkdir(parents=True, exist_ok=True)
    with override_settings(RATE_LIMIT_ANONYMOUS=5):
        responses = [request_token() for _ in range(10)]
    assert responses[-1].status == 429
    assert int(responses[-1].headers["Retry-After"]) > 0


@pytest.mark.oci(155)
def test_a_post_with_the_password_grant_returns_a_token(key: TestKey, pushed: Pushed) -> None:
    response = post(
        grant_type="password",
        service="registry",
        client_id="containerd-client",
        username="x",
        password=key.secret,
        scope="repository:team/app:push,pull",
    )
    assert set(response.body) == {"access_token", "scope", "expires_in", "issued_at"}
    assert response.body["scope"] == "repository:team/app:pull,push"
    assert access(response) == [repository("pull", "push")]


@pytest.mark.parametrize("password", [{}, {"password": ""}])
def test_a_post_without_a_password_is_anonymous(pushed: Pushed, password: dict[str, str]) -> None:
    Image.objects.update(visibility="public")
    response = post(grant_type="password", scope="repository:team/app:pull,push", **password)
    assert access(response) == [repository("pull")]


@pytest.mark.parametrize(
    "form", [{}, {"grant_type": "authorization_code", "code": "x"}, {"grant_type": "client_credentials"}]
)
def test_other_grant_types_are_rejected_as_oauth2_defines(form: dict[str, str]) -> None:
    response = post(**form)
    assert response.status == 400
    assert response.body["error"] == "unsupported_grant_type"
    assert "refresh_token" in response.body["error_description"]


def test_a_post_that_is_not_a_form_is_rejected() -> None:
    assert Api().call("POST", TOKENS, "{}").status == 415
    assert Api().call("POST", TOKENS).body["error"] == "unsupported_grant_type"
    assert Api().call("PUT", TOKENS).status == 405


@pytest.mark.oci(151)
@pytest.mark.parametrize(
    "scope",
    [
        "repository:../x:pull",
        "repository::pull",
        "repository:team/app",
        ":",
        "\x00",
        "repository:te\x00am/app:pull",
        f"repository:{'x' * 5000}:pull",
        "registry:catalog:*",
        "plugin(x):y:z",
    ],
)
def test_invalid_scopes_are_ignored(key: TestKey, scope: str) -> None:
    assert get(key.secret, scope=scope).status == 200


def test_the_public_keys_are_published_without_private_parts(key: TestKey) -> None:
    get(key.secret)
    response = Api().get("/.well-known/jwks.json")
    assert response.status == 200
    [published] = response.body["keys"]
    assert set(published) == {"kty", "crv", "use", "alg", "kid", "x"}
