"""Both planes at the level of connections and raw requests."""

import json
import os
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack, closing

import httpx
import pytest

from registry_data.connections import ranks
from tests.oci_client import digest_of
from tests.services.ports import free_port
from tests.services.stack import Stack
from tests.tenants import pushing

pytestmark = pytest.mark.only_on("sqlite")  # HTTP, no SQL
MakeStack = Callable[..., Stack]
PLANES = ("REGISTRY_CONTROL_ADDR", "REGISTRY_DATA_ADDR")
GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def connect(stack: Stack, plane: str) -> socket.socket:
    host, _, port = stack.environment[plane].rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=10)


def exchange(stack: Stack, plane: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes; return status, headers and body of the response, which may end with the connection."""
    with connect(stack, plane) as connection:
        connection.sendall(request)
        return response_of(connection)


def response_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with closing(connection.makefile("rb")) as file:
        status = int(file.readline().split()[1])
        lines = iter(lambda: file.readline().strip(), b"")
        headers = dict(line.decode("latin-1").lower().split(": ", 1) for line in lines)
        return status, headers, file.read(int(headers.get("content-length", "0")))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /%s HTTP/1.1\r\n" % (b"a" * 50_000), 414),
        (b"GET /%s HTTP/1.1\r\n" % (b"a" * 500_000), 414),
        (b"GET / HTTP/1.1\r\nX: %s\r\n" % (b"a" * 150_000), 431),
        (b"GET / HTTP/1.1\r\nX: %s\r\n" % (b"a" * 1_000_000), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 300, 431),
        (b"POST /token HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
        (b"POST /token HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        (b"POST /token HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"POST /token HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n", 400),
        (b"GET /token HTTP/1.1\r\nbroken header\r\n", 400),
        (b"GET /token HTTP/1.1\r\nX: a\0b\r\n", 400),
        (b"GET /token HTTP/2.0\r\n", 505),
        (b"CONNECT example.org:443 HTTP/1.1\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),  # TLS
    ],
)
def test_a_request_refused_by_its_head_gets_an_error_of_the_plane(
    stack: Stack, plane: str, request_head: bytes, status: int
) -> None:
    is_http = b"HTTP" in request_head
    rest = b"Host: 127.0.0.1\r\n\r\n0\r\n\r\n" if is_http else b""
    found, headers, body = exchange(stack, plane, request_head + rest)
    assert found == status
    assert "x-request-id" in headers
    if plane == "REGISTRY_DATA_ADDR":
        assert headers["docker-distribution-api-version"] == "registry/2.0"
        assert json.loads(body)["errors"]
    else:
        assert json.loads(body)["message"]


@pytest.mark.parametrize(
    ("plane", "path"),
    [
        ("REGISTRY_CONTROL_ADDR", b"/registry-internal/v1/regions/fr-par/tokens"),
        ("REGISTRY_DATA_ADDR", b"/token"),
    ],
)
def test_a_malformed_chunk_is_400(stack: Stack, plane: str, path: bytes) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" % path
    assert exchange(stack, plane, head + b"ZZ\r\nhello\r\n")[0] == 400


@pytest.mark.parametrize(
    ("plane", "line"),
    [
        ("REGISTRY_CONTROL_ADDR", b"POST /registry/v1/regions/fr-par/namespaces"),
        ("REGISTRY_DATA_ADDR", b"PUT /v2/a/b/manifests/c"),
    ],
)
@pytest.mark.parametrize("length", [1000, 2_000_000])
def test_a_request_without_credentials_is_refused_before_its_body_arrives(
    stack: Stack, plane: str, line: bytes, length: int
) -> None:
    head = b"%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n{" % (line, length)
    began = time.monotonic()
    status, headers, _ = exchange(stack, plane, head)
    assert status == 401
    assert headers["connection"] == "close"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("plane", PLANES)
def test_a_client_that_closes_its_sending_half_gets_its_responses(stack: Stack, plane: str) -> None:
    # given two requests that are sent at once, the second one with a body
    post = b"POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello"
    with connect(stack, plane) as connection:
        connection.sendall(GET + post)

        # when the client closes its sending half
        connection.shutdown(socket.SHUT_WR)

        # then it gets both responses, and the server closes the connection
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.count(b"HTTP/1.1 405 Method Not Allowed\r\n") == 1


@pytest.mark.parametrize("plane", PLANES)
def test_an_incomplete_body_of_a_half_closed_connection_is_an_error_of_the_plane(
    stack: Stack, plane: str
) -> None:
    with connect(stack, plane) as connection:
        connection.sendall(
            b"POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Auth-Token: x\r\nContent-Length: 9\r\n\r\nabc"
        )
        connection.shutdown(socket.SHUT_WR)
        status, headers, body = response_of(connection)
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert json.loads(body)


@pytest.mark.parametrize("plane", PLANES)
def test_requests_that_are_sent_at_once_are_answered_one_after_the_other(stack: Stack, plane: str) -> None:
    with connect(stack, plane) as connection:
        connection.sendall(GET * 500)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 500


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [1, 3, 40])
def test_a_request_may_arrive_in_small_parts(stack: Stack, plane: str, size: int) -> None:
    request = (
        GET
        + b"POST /healthz HTTP/1.1\r\nHost: a\r\nX-Auth-Token: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"3\r\nabc\r\n0\r\n\r\n"
    )
    with connect(stack, plane) as connection, closing(connection.makefile("rb")) as file:
        for start in range(0, len(request), size):
            connection.send(request[start : start + size])
        connection.shutdown(socket.SHUT_WR)
        received = file.read()
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert received.count(b"HTTP/1.1 405 Method Not Allowed\r\n") == 1


@pytest.mark.parametrize("plane", PLANES)
def test_an_offer_of_another_protocol_is_ignored(stack: Stack, plane: str) -> None:
    # as curl --http2 sends it
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    key = b"X-Auth-Token: x\r\n"
    head = b"POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n" + key + offer + b"\r\nhello"
    with connect(stack, plane) as connection:
        connection.sendall(head)
        assert response_of(connection)[0] == 405
        connection.sendall(GET)
        assert response_of(connection)[0] == 200


def test_header_fields_after_a_chunked_body_do_not_count(stack: Stack) -> None:
    # given credentials that are sent after the body
    pair = b64encode(f"x:{stack.credentials.secret_key}".encode())
    request = (
        b"POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
        b"Trailer: Authorization\r\n\r\n1\r\na\r\n0\r\nAuthorization: Basic %b\r\n\r\n" % pair
    )
    assert exchange(stack, "REGISTRY_DATA_ADDR", request)[0] == 401


def test_a_host_that_is_not_allowed_writes_one_line_to_the_log(stack: Stack) -> None:
    said = len(stack.log)
    response = httpx.get(f"{stack.credentials.control_url}/metadata", headers={"Host": "elsewhere.example"})
    assert response.status_code == 400
    assert "REGISTRY_ALLOWED_HOSTS" in response.json()["message"]
    assert "elsewhere.example" in stack.log[said:]
    assert "Traceback" not in stack.log[said:]


@pytest.mark.slow
def test_connections_are_limited_in_number_and_in_idle_time(make_stack: MakeStack) -> None:
    stack = make_stack(
        REGISTRY_CONNECTIONS_PER_ADDRESS="20", REGISTRY_IDLE_TIMEOUT="2", REGISTRY_KEEPALIVE="3"
    ).start()
    for plane in PLANES:
        check_number(stack, plane)
        check_idle_time(stack, plane)
    check_unread_file(stack)


def check_number(stack: Stack, plane: str) -> None:
    with ExitStack() as opened:
        # when an address opens more connections than allowed, then requests on some are refused
        served = [opened.enter_context(connect(stack, plane)) for _ in range(30)]
        refused, deadline = 0, time.monotonic() + 10
        # The list of connections may be a moment old (ADR 40): a later request on the same one is refused.
        while len(served) > 22 and time.monotonic() < deadline:
            statuses = [(status_on(connection), connection) for connection in served]
            refused += [status for status, _ in statuses].count(503)
            served = [connection for status, connection in statuses if status == 200]
        assert 20 <= len(served) <= 22
        assert len(served) + refused == 30
    # and new connections are served when those are closed
    deadline = time.monotonic() + 10
    while (status := exchange(stack, plane, GET)[0]) != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status == 200


def status_on(connection: socket.socket) -> int:
    connection.sendall(GET)
    return response_of(connection)[0]


def check_idle_time(stack: Stack, plane: str) -> None:
    with connect(stack, plane) as connection:
        connection.sendall(GET)
        assert response_of(connection)[0] == 200
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 2 < time.monotonic() - began < 20


def check_unread_file(stack: Stack) -> None:
    # given a client that requests a blob larger than the buffers of a connection, and does not read
    layer = os.urandom(32 * 1024 * 1024)
    with pushing(stack) as (client, name):
        client.push_image(name, "1", layer)
        pair = b64encode(f"x:{client.secret}".encode()).decode()
        head = [
            f"GET /v2/{name}/blobs/{digest_of(layer)} HTTP/1.1",
            "Host: h",
            f"Authorization: Basic {pair}",
        ]
        with connect(stack, "REGISTRY_DATA_ADDR") as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode())
            assert connection.recv(12) == b"HTTP/1.1 200"

            # then the server closes the connection soon
            own, server = connection.getsockname()[1], connection.getpeername()[1]
            deadline = time.monotonic() + 30
            while own in ranks(socket.AF_INET, server).get("127.0.0.1", {}):
                assert time.monotonic() < deadline
                time.sleep(0.2)


@pytest.mark.slow
def test_both_planes_listen_on_an_ipv4_address_in_ipv6_form(make_stack: MakeStack) -> None:
    addresses = {plane: f"[::ffff:127.0.0.1]:{free_port()}" for plane in PLANES}
    credentials = make_stack(**addresses).start().credentials
    key = {"X-Auth-Token": credentials.secret_key}
    response = httpx.get(f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces", headers=key)
    assert response.status_code == 200
    assert httpx.get(f"http://{credentials.registry_host}/v2/").status_code == 401
