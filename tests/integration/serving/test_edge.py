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
        (b"GET / HTTP/1.1\r\nX: %s\r\n" % (b"a" * 150_000), 431),
        (b"POST /token HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
    ],
)
def test_a_request_refused_by_its_head_gets_an_error_of_the_plane(
    stack: Stack, plane: str, request_head: bytes, status: int
) -> None:
    found, headers, body = exchange(stack, plane, request_head + b"Host: 127.0.0.1\r\n\r\n0\r\n\r\n")
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
        connections = [opened.enter_context(connect(stack, plane)) for _ in range(30)]
        statuses = []
        for connection in connections:
            connection.sendall(GET)
            statuses.append(response_of(connection)[0])
        # The list of connections may be a moment old (ADR 40).
        assert 20 <= statuses.count(200) <= 22
        assert statuses.count(200) + statuses.count(503) == 30
    # and new connections are served when those are closed
    deadline = time.monotonic() + 10
    while (status := exchange(stack, plane, GET)[0]) != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status == 200


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
            own, server = str(connection.getsockname()[1]), connection.getpeername()[1]
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
