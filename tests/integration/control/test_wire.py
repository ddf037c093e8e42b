"""The management API over HTTP, through the real server."""

from collections.abc import Iterator

import httpx
import pytest

from registry_control.common.version import version
from tests.services.stack import Stack

NAMESPACES = "/registry/v1/regions/fr-par/namespaces"


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    credentials = stack.credentials
    headers = {"X-Auth-Token": credentials.secret_key}
    with httpx.Client(base_url=credentials.control_url, headers=headers, timeout=30) as client:
        yield client


def test_responses_have_an_exact_type_a_length_and_a_request_id(http: httpx.Client) -> None:
    response = http.get(NAMESPACES)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert "x-request-id" in response.headers
    assert not {"x-total-count", "set-cookie", "vary"} & set(response.headers)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_without_a_content_type_is_ignored_by_methods_without_a_body(
    http: httpx.Client, method: str
) -> None:
    path = f"{NAMESPACES}/0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29"
    assert http.request(method, path, content=b"{}").status_code == 404


def test_a_chunked_body_is_accepted(http: httpx.Client) -> None:
    response = http.post(
        NAMESPACES, content=iter([b'{"name": ', b'"chunked"}']), headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["name"]) == (200, "chunked")


def test_unknown_paths_are_json(http: httpx.Client) -> None:
    for path in ("/nothing", NAMESPACES + "/", "/registry/v1/regions/zz-zzz/namespaces"):
        response = http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
        assert response.json()["type"] == "not_found"


def test_the_health_check_is_ok(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok", "worker": "ok", "version": version()}


@pytest.mark.parametrize("path", ["/token", "/registry-internal/v1/regions/fr-par/tokens"])
def test_both_planes_respond_alike_to_a_token_request(stack: Stack, path: str) -> None:
    # given the endpoint of one plane or the other
    credentials = stack.credentials
    host = credentials.control_url if path != "/token" else f"http://{credentials.registry_host}"

    # when a client logs in there, then the data plane accepts the token
    good = httpx.get(host + path, params={"service": "registry"}, auth=("x", credentials.secret_key))
    ping = httpx.get(
        f"http://{credentials.registry_host}/v2/", headers={"Authorization": f"Bearer {good.json()['token']}"}
    )
    assert (good.status_code, ping.status_code) == (200, 200)

    # and with a wrong password, both return the same error
    wrong = httpx.get(host + path, auth=("x", "wrong"))
    assert wrong.status_code == 401
    assert "secret key" in wrong.json()["details"]
    assert wrong.headers["www-authenticate"] == 'Basic realm="stowage"'
