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
from tests.integration.control.api import Answer, Api

pytestmark = pytest.mark.django_db

TOKENS = "/registry-internal/v1/regions/fr-par/tokens"


def get(password: str | None = None, *, user: str = "nologin", scope: list[str] | str = "") -> Answer:
    query = urlencode({"service": "registry", "scope": scope}, doseq=True)
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}"} if password is not None else {}
    return Api().call("GET", f"{TOKENS}?{query}", **headers)


def post(**form: str) -> Answer:
    return Api().call("POST", TOKENS, urlencode(form), content_type="application/x-www-form-urlencoded")


def access(answer: Answer) -> list[dict[str, Any]]:
    """What a token says it is good for, checked as any other program would: by the published keys."""
    assert answer.status == 200, answer
    token = answer.body["access_token"]
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


def test_a_get_with_a_secret_key_is_answered_with_a_token(key: TestKey, pushed: Pushed) -> None:
    answer = get(key.secret, scope="repository:team/app:push,pull")
    assert set(answer.body) == {"token", "access_token", "expires_in", "issued_at"}
    assert answer.body["token"] == answer.body["access_token"]
    assert answer.body["expires_in"] == 300
    issued = datetime.strptime(answer.body["issued_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - issued).total_seconds()) < 60
    assert access(answer) == [repository("pull", "push")]
    assert authenticate(token=answer.body["token"]).principal == key.principal
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.oci(162)
@pytest.mark.parametrize("user", ["nologin", "scaleway", "", "r$bot+1@x y", "ünicode", "team"])
def test_any_user_name_will_do(key: TestKey, pushed: Pushed, user: str) -> None:
    assert access(get(key.secret, user=user, scope="repository:team/app:pull")) == [repository("pull")]


@pytest.mark.oci(157)
@pytest.mark.parametrize("password", [None, ""])
def test_nobody_gets_a_token_for_what_is_public(key: TestKey, pushed: Pushed, password: str | None) -> None:
    # given a private image, then a public one; when nobody, or `nologin` without a password, asks
    asked = "repository:team/app:pull,push"
    private = get(password, scope=asked)
    Image.objects.update(visibility="public")
    public = get(password, scope=asked)

    # then both are answered, and only pulling what is public is granted
    assert access(private) == []
    assert access(public) == [repository("pull")]
    assert authenticate(token=public.body["token"]).is_anonymous


@pytest.mark.oci(140, 152)
@pytest.mark.parametrize(
    ("rights", "granted"),
    [([READ_ONLY], ["pull"]), ([PUSH], ["pull", "push"]), ([], ["delete", "pull", "push"])],
)
def test_a_token_grants_what_was_asked_as_far_as_the_rights_go(
    key: TestKey, pushed: Pushed, rights: list[Any], granted: list[str]
) -> None:
    other = make_key(*rights, organization=key.organization)
    for scope in ("repository:team/app:delete,pull,push", "repository:team/app:*"):
        assert access(get(other.secret, scope=scope)) == [repository(*granted)]


@pytest.mark.oci(150)
def test_scopes_come_repeated_or_side_by_side_and_are_merged(key: TestKey, pushed: Pushed) -> None:
    answer = get(
        key.secret,
        scope=[
            "repository:team/app:pull repository:team/new:push",
            "repository:team/app:pull,push",
            "nonsense",
        ],
    )
    assert access(answer) == [repository("pull", "push"), repository("push", name="team/new")]


def login(key: TestKey) -> Answer:
    """As docker does it."""
    return Api().call(
        "GET",
        f"{TOKENS}?account=x&client_id=docker&offline_token=true&service=registry",
        Authorization="Basic " + base64.b64encode(f"x:{key.secret}".encode()).decode(),
    )


def refresh(token: str, **form: str) -> Answer:
    return post(grant_type="refresh_token", service="registry", refresh_token=token, **form)


@pytest.mark.oci(153, 156)
def test_a_login_asks_for_no_scope_and_is_given_a_refresh_token(key: TestKey) -> None:
    answer = login(key)
    assert access(answer) == []
    assert key.secret not in str(answer.body)
    assert set(answer.body) == {"token", "access_token", "expires_in", "issued_at", "refresh_token"}


@pytest.mark.oci(154, 155)
def test_a_refresh_token_is_answered_with_what_the_key_may_do_now_again_and_again(
    key: TestKey, pushed: Pushed
) -> None:
    token = login(key).body["refresh_token"]
    for _ in range(2):
        answer = refresh(token, client_id="docker", scope="repository:team/app:push,pull registry:catalog:*")
        assert set(answer.body) == {"access_token", "scope", "expires_in", "issued_at"}
        assert repository("pull", "push") in access(answer)


@pytest.mark.oci(155)
def test_a_post_may_ask_for_a_refresh_token_too(key: TestKey, pushed: Pushed) -> None:
    first = post(grant_type="password", username="x", password=key.secret, access_type="offline")
    second = refresh(first.body["refresh_token"], access_type="offline", scope="repository:team/app:pull")
    assert second.body["refresh_token"] == first.body["refresh_token"]
    assert access(second) == [repository("pull")]


@pytest.mark.oci(153)
def test_nobody_gets_no_refresh_token_nor_does_who_did_not_ask(key: TestKey) -> None:
    for answer in (
        Api().call("GET", f"{TOKENS}?offline_token=true&service=registry"),
        post(grant_type="password", access_type="offline"),
        get(key.secret),
        post(grant_type="password", password=key.secret, access_type="online"),
    ):
        assert answer.status == 200
        assert "refresh_token" not in answer.body


@pytest.mark.oci(154)
def test_a_refresh_token_has_the_rights_of_this_moment(key: TestKey, pushed: Pushed) -> None:
    # given somebody who may read, and has logged in
    reader = make_key(READ_ONLY, organization=key.organization)
    token = login(reader).body["refresh_token"]
    asked = "repository:team/app:pull,push"
    assert access(refresh(token, scope=asked)) == [repository("pull")]

    # when the policy is taken away, then nothing more is granted
    Policy.objects.filter(application=reader.holder.pk).delete()
    assert access(refresh(token, scope=asked)) == []


def _expire(key: TestKey) -> None:
    ApiKey.objects.filter(access_key=key.access_key).update(expires_at=datetime.now(UTC))


def _revoke(key: TestKey) -> None:
    delete_api_key(actor=SYSTEM, api_key=ApiKey.objects.get(access_key=key.access_key))


def _put_out(key: TestKey) -> None:
    Application.objects.filter(pk=key.holder.pk).update(is_active=False)


def _change_the_secret(key: TestKey) -> None:
    ApiKey.objects.filter(access_key=key.access_key).update(secret_hmac="0" * 64)


@pytest.mark.oci(154)
@pytest.mark.parametrize("end", [_expire, _revoke, _put_out, _change_the_secret])
def test_a_refresh_token_ends_with_its_key_and_the_answer_says_what_to_do(
    key: TestKey, end: Callable[[TestKey], None]
) -> None:
    token = login(key).body["refresh_token"]
    end(key)
    answer = refresh(token)
    assert answer.status == 401
    assert answer.body["errors"][0]["code"] == "UNAUTHORIZED"
    assert "log in again" in answer.body["message"]
    assert token not in str(answer.body)


@pytest.mark.oci(154)
def test_a_refresh_token_of_one_key_cannot_be_made_from_that_of_another(key: TestKey) -> None:
    own, other = login(key).body["refresh_token"], login(make_key()).body["refresh_token"]
    forged = own[: -len("_") - 64] + other[-len("_") - 64 :]
    for token in (forged, own[:-1], f"{own}0", own.upper(), "", "x", "\x00", "ü" * 93):
        assert refresh(token).status == 401
    assert refresh(own).status == 200


@pytest.mark.oci(154)
def test_a_refresh_token_opens_nothing_else(key: TestKey) -> None:
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
def test_a_wrong_password_is_401_in_words_that_docker_shows(password: str) -> None:
    for answer in (get(password), post(grant_type="password", username="x", password=password)):
        assert answer.status == 401
        assert set(answer.body) == {"errors", "message", "details"}
        assert answer.body["errors"][0]["code"] == "UNAUTHORIZED"
        assert "secret key" in answer.body["message"]
        assert password not in str(answer.body) or password == "x"
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="stowage"'
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("header", ["Basic", "Basic ???", "Basic eA==", "Bearer x", "Basic /w==", "x"])
def test_an_authorization_that_cannot_be_read_is_not_taken_for_none(header: str) -> None:
    assert Api().call("GET", TOKENS, Authorization=header).status == 401


@pytest.mark.oci(16)
@pytest.mark.parametrize(
    "request_token",
    [get, lambda: get(""), lambda: post(grant_type="password", username="x", password="")],
    ids=["no header", "empty password", "form"],
)
def test_requests_for_anonymous_tokens_are_limited(request_token: Callable[[], Answer]) -> None:
    settings.STATE_DIR.mkdir(parents=True, exist_ok=True)
    with override_settings(RATE_LIMIT_ANONYMOUS=5):
        answers = [request_token() for _ in range(10)]
    assert answers[-1].status == 429
    assert int(answers[-1].headers["Retry-After"]) > 0


@pytest.mark.oci(155)
def test_a_post_of_the_password_grant_is_answered_with_a_token(key: TestKey, pushed: Pushed) -> None:
    answer = post(
        grant_type="password",
        service="registry",
        client_id="containerd-client",
        username="x",
        password=key.secret,
        scope="repository:team/app:push,pull",
    )
    assert set(answer.body) == {"access_token", "scope", "expires_in", "issued_at"}
    assert answer.body["scope"] == "repository:team/app:pull,push"
    assert access(answer) == [repository("pull", "push")]


@pytest.mark.parametrize("password", [{}, {"password": ""}])
def test_a_post_without_a_password_is_nobodys(pushed: Pushed, password: dict[str, str]) -> None:
    Image.objects.update(visibility="public")
    answer = post(grant_type="password", scope="repository:team/app:pull,push", **password)
    assert access(answer) == [repository("pull")]


@pytest.mark.parametrize(
    "form", [{}, {"grant_type": "authorization_code", "code": "x"}, {"grant_type": "client_credentials"}]
)
def test_other_grants_are_refused_in_oauth2s_words(form: dict[str, str]) -> None:
    answer = post(**form)
    assert answer.status == 400
    assert answer.body["error"] == "unsupported_grant_type"
    assert "refresh_token" in answer.body["error_description"]


def test_a_post_that_is_no_form_is_refused() -> None:
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
def test_strange_scopes_are_no_error(key: TestKey, scope: str) -> None:
    assert get(key.secret, scope=scope).status == 200


def test_the_keys_are_published_and_hold_nothing_private(key: TestKey) -> None:
    get(key.secret)
    answer = Api().get("/.well-known/jwks.json")
    assert answer.status == 200
    [published] = answer.body["keys"]
    assert set(published) == {"kty", "crv", "use", "alg", "kid", "x"}
