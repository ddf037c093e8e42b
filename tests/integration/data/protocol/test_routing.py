"""Paths, queries, methods and the headers of every response (OCI 6-14, 27-29, 177, 179)."""

from collections.abc import Callable
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.integration.data.protocol.conftest import Pushed
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import digest_of
from tests.services.stack import Stack
from tests.tenants import Tenants

Connect = Callable[..., Wire]
MakeStack = Callable[..., Stack]
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.mark.oci(6)
@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_a_digest_may_be_percent_encoded_in_a_path(image: Pushed, wire: Connect, colon: str) -> None:
    connection = wire()
    for path in (f"blobs/{image.layer}", f"manifests/{image.manifest}", f"referrers/{image.manifest}"):
        response = connection.request("GET", f"{image.base}/{path.replace(':', colon)}")
        assert response.status == 200
    assert connection.request("GET", f"{image.base}/manifests/l%61test").status == 200


@pytest.mark.oci(6)
@pytest.mark.parametrize("encode", [lambda value: value, lambda value: quote(value, safe="")])
def test_a_mount_and_a_closing_put_accept_plain_and_encoded_queries(
    tenants: Tenants, image: Pushed, wire: Connect, encode: Callable[[str], str]
) -> None:
    target, connection, data = tenants.repository(), wire(), b"in another repository"
    uploads = f"/v2/{target}/blobs/uploads/"
    mounted = connection.request(
        "POST", f"{uploads}?mount={encode(image.layer)}&from={encode(image.name)}", body=b""
    )
    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/{target}/blobs/{image.layer}")
    session = connection.request("POST", uploads, body=b"").headers["Location"]
    assert connection.request("PUT", f"{session}?digest={encode(digest_of(data))}", body=data).status == 201


@pytest.mark.oci(7)
def test_unknown_parameters_are_ignored(tenants: Tenants, image: Pushed, wire: Connect) -> None:
    # given the parameters that mirrors and crane add to every request
    target, connection, data = tenants.repository(), wire(), b"with more parameters"
    more, uploads = "ns=docker.io&origin=example.com&x&y=%FF&=", f"/v2/{target}/blobs/uploads/"

    # then reads work as without them
    for path in (
        f"manifests/{image.manifest}",
        f"blobs/{image.layer}",
        "tags/list",
        f"referrers/{image.layer}",
    ):
        assert connection.request("GET", f"{image.base}/{path}?{more}").status == 200
    assert connection.request("GET", f"/v2/?{more}").status == 200

    # and so do pushes
    mount = f"{uploads}?mount={image.layer}&from={image.name}&{more}"
    assert connection.request("POST", mount, body=b"").status == 201
    session = connection.request("POST", f"{uploads}?{more}", body=b"").headers["Location"]
    assert connection.request("PATCH", f"{session}?{more}", body=data).status == 202
    assert connection.request("GET", f"{session}?{more}").status == 204
    assert connection.request("PUT", f"{session}?{more}&digest={digest_of(data)}", body=b"").status == 201


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
ALLOWED = {
    "/v2/": {"GET", "HEAD"},
    "/v2/_catalog": {"GET", "HEAD"},
    "/v2/{name}/manifests/latest": {"GET", "HEAD", "PUT", "DELETE"},
    "/v2/{name}/blobs/{digest}": {"GET", "HEAD", "DELETE"},
    "/v2/{name}/blobs/uploads/": {"POST"},
    f"/v2/{{name}}/blobs/uploads/{NOWHERE}": {"GET", "HEAD", "PUT", "PATCH", "DELETE"},
    "/v2/{name}/tags/list": {"GET", "HEAD"},
    "/v2/{name}/referrers/{digest}": {"GET", "HEAD"},
    "/token": {"GET", "POST"},
}
UNSUPPORTED_METHODS = [
    (path, method) for path, allowed in ALLOWED.items() for method in METHODS if method not in allowed
]


@pytest.mark.oci(10)
@pytest.mark.parametrize(("path", "method"), UNSUPPORTED_METHODS)
def test_an_unsupported_method_is_405_with_the_allowed_ones(
    image: Pushed, wire: Connect, path: str, method: str
) -> None:
    response = wire().request(method, path.format(name=image.name, digest=image.layer))
    assert response.status == 405
    assert set(response.headers["Allow"].split(", ")) == ALLOWED[path]
    if method != "HEAD":
        assert response.codes == ["UNSUPPORTED"]
        assert response.headers["Content-Type"] == "application/json"


@pytest.mark.oci(10, 179)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/",
        "/v1/search?q=a",
        "/v1/_ping",
        "/v2/x",
        "/v2/a/b",
        "/v2/a/b/tags",
        "/v2/a/b/blobs/",
        "/x/v2/",
    ],
)
def test_an_unknown_path_is_404_in_json(wire: Connect, path: str) -> None:
    for method in ("GET", "PUT"):
        response = wire().request(method, path)
        assert (response.status, response.codes) == (404, ["UNSUPPORTED"])
        assert response.headers["Content-Type"] == "application/json"


def test_the_root_is_a_page_for_browsers(tenants: Tenants, wire: Connect) -> None:
    response = wire(None).request("GET", "/", "Host: registry.example:5000")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert b"docker login registry.example:5000\n" in response.body
    assert wire(None).request("HEAD", "/").status == 200
    assert wire(None).request("POST", "/", body=b"").status == 405


@pytest.mark.oci(9)
def test_an_upload_may_be_started_without_the_final_slash(tenants: Tenants, wire: Connect) -> None:
    repository, connection = tenants.repository(), wire()
    response = connection.request("POST", f"/v2/{repository}/blobs/uploads", body=b"")
    assert response.status == 202
    assert connection.request("GET", response.headers["Location"]).status == 204


@pytest.mark.oci(11)
def test_every_response_has_the_version_of_the_api(image: Pushed, wire: Connect) -> None:
    for secret in ({}, {"secret": None}):
        connection = wire(**secret)
        for method, path in (
            ("GET", "/v2/"),
            ("HEAD", f"{image.base}/manifests/latest"),
            ("GET", f"{image.base}/blobs/{image.layer}"),
            ("GET", f"{image.base}/manifests/none"),
            ("GET", "/v2/nothing"),
            ("GET", "/"),
            ("GET", "/healthz"),
            ("GET", "/token"),
            ("POST", "/v2/"),
            ("PUT", f"{image.base}/manifests/sha256:x"),
            ("POST", f"{image.base}/blobs/uploads/"),
        ):
            response = connection.request(method, path)
            assert response.headers.get_all("Docker-Distribution-Api-Version") == ["registry/2.0"], path
            # a browser must not take pushed content for a page or script of this host
            assert response.headers.get_all("X-Content-Type-Options") == ["nosniff"], path


@pytest.mark.oci(12)
def test_manifests_are_sent_without_redirects(image: Pushed, wire: Connect) -> None:
    for method in ("HEAD", "GET"):
        response = wire().request(method, f"{image.base}/manifests/latest")
        assert (response.status, response.headers["Location"]) == (200, None)


@pytest.mark.oci(13, 68)
@pytest.mark.parametrize("with_question_mark", [True, False])
def test_a_location_works_with_a_digest_added_by_hand_or_by_a_library(
    tenants: Tenants, wire: Connect, *, with_question_mark: bool
) -> None:
    # given a Location of either form
    repository, data, connection = tenants.repository(), b"at the location", wire()
    location = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    assert not urlsplit(location).fragment

    # when a client appends to it as regctl does, or parses and formats it as Go's libraries do
    if with_question_mark:
        location += ("&" if "?" in location else "?") + f"digest={digest_of(data)}"
    else:
        location = str(httpx.URL(location).copy_merge_params({"digest": digest_of(data)}))
    assert connection.request("PUT", location, body=data).status == 201


@pytest.mark.oci(14, 146, 163)
@pytest.mark.parametrize("host", ["registry.example", "registry.example:5000", "[::1]:5000", "127.0.0.1"])
def test_links_and_realm_stay_on_the_host_that_the_client_used(
    tenants: Tenants, wire: Connect, host: str
) -> None:
    repository = tenants.repository()
    started = wire().request("POST", f"/v2/{repository}/blobs/uploads/", f"Host: {host}", body=b"")
    assert started.headers["Location"].startswith(f"/v2/{repository}/blobs/uploads/")
    ping = wire(None).request("GET", "/v2/", f"Host: {host}")
    assert ping.headers["WWW-Authenticate"] == f'Bearer realm="http://{host}/token",service="registry"'


PATHS = ("/v2/", "/v2/nothing", "/token", "{base}/manifests/latest", "{base}/blobs/uploads/")


@pytest.mark.oci(14, 141)
@pytest.mark.parametrize(
    ("hosts", "contains"),
    [
        ([], "no Host"),
        (["registry.example", "registry.example"], "several Host"),
        (["registry.example", "other.example"], "several Host"),
        ([""], "no Host"),
        (["a b"], "'a b'"),
        (['registry.example/",service="x'], "not a valid host"),
        (["user@registry.example"], "not a valid host"),
        (["x" * 2000], "not a valid host"),
    ],
)
def test_a_request_without_a_host_is_rejected(
    image: Pushed, wire: Connect, hosts: list[str], contains: str
) -> None:
    for path in PATHS:
        connection, method = wire(None), "POST" if path.endswith("uploads/") else "GET"
        # given cacheable responses
        assert connection.request(method, path.format(base=image.base)).status != 400
        connection.send(head(f"{method} {path.format(base=image.base)} HTTP/1.1", hosts))
        response = connection.reply(method)
        assert (response.status, response.codes) == (400, ["UNSUPPORTED"])
        assert contains in response.body.decode()


@pytest.mark.oci(14)
def test_a_cached_response_is_not_sent_to_a_request_without_a_host(tenants: Tenants, wire: Connect) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="public")
    connection, path = wire(None), f"/v2/{repository}/manifests/latest"
    for _ in range(20):  # some of them by the same process
        assert connection.request("GET", path).status == 200
    connection.send(head(f"GET {path} HTTP/1.1", []))
    assert connection.reply().status == 400
    connection.send(head(f"GET {path} HTTP/1.0", []))
    assert connection.reply().status == 200


@pytest.mark.oci(14)
@pytest.mark.parametrize("hosts", [[], ["a b"], ["a", "b"]])
def test_a_health_check_needs_no_host(wire: Connect, hosts: list[str]) -> None:
    for version in ("1.0", "1.1"):
        connection = wire(None)
        connection.send(head(f"GET /healthz HTTP/{version}", hosts))
        assert connection.reply().status == 200


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(14, 163)
def test_urls_are_those_of_the_public_host_if_it_is_set(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_PUBLIC_HOST="registry.example:5000", REGISTRY_PUBLIC_SCHEME="https").start()
    name = namespace_of(stack)
    for line, hosts in [("GET /v2/ HTTP/1.0", []), ("GET /v2/ HTTP/1.1", ["other.example"])]:
        with Wire(stack.environment["REGISTRY_DATA_ADDR"], None) as connection:
            connection.send(head(line, hosts))
            challenge = connection.reply().headers["WWW-Authenticate"]
        assert challenge == 'Bearer realm="https://registry.example:5000/token",service="registry"'
    with Wire(stack.environment["REGISTRY_DATA_ADDR"], stack.credentials.secret_key) as connection:
        started = connection.request("POST", f"/v2/{name}/app/blobs/uploads/")
    assert started.headers["Location"].startswith(
        f"https://registry.example:5000/v2/{name}/app/blobs/uploads/"
    )


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(14, 163)
def test_without_a_public_host_urls_follow_the_client_and_trusted_proxies(make_stack: MakeStack) -> None:
    # given a scheme alone, which changes no URL, and a proxy on 127.0.0.1
    stack = make_stack(REGISTRY_PUBLIC_SCHEME="https", REGISTRY_TRUSTED_PROXIES="127.0.0.1").start()
    address = stack.environment["REGISTRY_DATA_ADDR"]
    for headers, origin in [
        ({"Host": "direct.example:5000"}, "http://direct.example:5000"),
        ({"Host": "hub.example", "X-Forwarded-Proto": "https"}, "https://hub.example"),
        ({"X-Forwarded-Host": "hub.example:8443", "X-Forwarded-Proto": "https"}, "https://hub.example:8443"),
        ({"Forwarded": 'for=192.0.2.1;proto=https;host="hub.example"'}, "https://hub.example"),
    ]:
        response = httpx.get(f"http://{address}/v2/", headers=headers)
        assert response.headers["WWW-Authenticate"] == f'Bearer realm="{origin}/token",service="registry"'


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(163)
def test_forwarded_headers_of_untrusted_clients_are_ignored(make_stack: MakeStack) -> None:
    address = make_stack(REGISTRY_TRUSTED_PROXIES="192.0.2.0/24").start().environment["REGISTRY_DATA_ADDR"]
    claims = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "Host": "hub.example"}
    response = httpx.get(f"http://{address}/v2/", headers=claims)
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="http://hub.example/token"')


def namespace_of(stack: Stack) -> str:
    """The name of a new namespace."""
    credentials = stack.credentials
    response = httpx.post(
        f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces",
        headers={"X-Auth-Token": credentials.secret_key},
        json={"name": "public-urls"},
    )
    assert response.status_code in (200, 201), response.text
    return str(response.json()["name"])


def head(line: str, hosts: list[str]) -> bytes:
    """The head of a request with these Host headers."""
    return "\r\n".join([line, *(f"Host: {host}" for host in hosts), "", ""]).encode()


@pytest.mark.oci(27)
def test_the_ping_is_an_empty_object(wire: Connect) -> None:
    connection = wire()
    for path in ("/v2/", "/v2"):
        response = connection.request("GET", path)
        assert (response.status, response.body) == (200, b"{}")
        assert response.headers["Content-Type"] == "application/json"
        head = connection.request("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == "2"


@pytest.mark.oci(28)
def test_an_anonymous_ping_is_challenged_also_beside_public_images(tenants: Tenants, wire: Connect) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="public")
    connection = wire(None)
    assert connection.request("GET", f"/v2/{repository}/manifests/latest").status == 200
    for method in ("GET", "HEAD"):
        response = connection.request(method, "/v2/")
        assert response.status == 401
        assert response.headers.get_all("WWW-Authenticate") == [
            f'Bearer realm="http://{tenants.owner.host}/token",service="registry"'
        ]


@pytest.mark.oci(29)
def test_any_valid_login_passes_the_ping(tenants: Tenants, wire: Connect) -> None:
    # given a key without any right here, and one with full access
    weak = tenants.create_key(tenants.organization, "ContainerRegistryReadOnly")["secret_key"]
    for secret in (weak, tenants.owner.secret or ""):
        assert wire(secret).request("GET", "/v2/").status == 200
        # when a token is requested without a scope, as at a login
        token = httpx.get(
            f"http://{tenants.owner.host}/token", params={"service": "registry"}, auth=("x", secret)
        ).json()["token"]
        # then the ping accepts that token too
        assert wire().request("GET", "/v2/", f"Authorization: Bearer {token}").status == 200


def test_too_large_headers_are_rejected(wire: Connect) -> None:
    response = wire().request("GET", "/v2/", f"If-Match: {',' * 200_000}")
    assert response.status == 431
    assert "headers are too large" in response.body.decode()
