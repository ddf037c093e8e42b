"""Connections on which a client does what well-behaved clients do not."""

import json
import socket
import struct
import threading
import time
from base64 import b64encode
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.integration.serving.test_edge import GET, PLANES, connect, exchange, response_of
from tests.services.memory import Growth
from tests.services.stack import Stack
from tests.tenants import pushing

pytestmark = pytest.mark.only_on("sqlite")  # HTTP, no SQL

HOST = b"Host: 127.0.0.1\r\n"
CHUNKED = HOST + b"X-Auth-Token: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def received(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("plane", PLANES)
def test_a_connection_may_be_reset_before_it_is_accepted(stack: Stack, plane: str) -> None:
    said = len(stack.log)
    for _ in range(300):
        with connect(stack, plane) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert exchange(stack, plane, GET)[0] == 200
    assert "Traceback" not in stack.log[said:]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_response_before_the_end_of_the_body_ends_the_connection(
    stack: Stack, plane: str, framing: bytes
) -> None:
    # given a GET request whose body nobody reads
    with connect(stack, plane) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X-Auth-Token: x\r\n" + framing + b"\r\n")
        # when the body never comes, then the connection does not wait for it
        if plane == "REGISTRY_CONTROL_ADDR":
            connection.shutdown(socket.SHUT_WR)
        status, headers, _ = response_of(connection)
        assert status >= 400
        assert headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_the_body_of_a_request_is_never_read_as_a_request(stack: Stack) -> None:
    # given a chunk that has a request line, and behind the body a method that the parser does not know
    chunk = b"X /smuggled HTTP/1.1\r\nHost: smuggled\r\n"
    with connect(stack, "REGISTRY_DATA_ADDR") as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\n" + CHUNKED + b"%x\r\n" % len(chunk))
        time.sleep(0.2)
        connection.sendall(chunk + b"\r\n0\r\n\r\nBREW / HTTP/1.1\r\n" + HOST + b"\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    # then the chunk is no request, and no malformed one either
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"malformed" not in answer
    assert b"smuggled" not in answer


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("surplus", [GET, GET[:10], b"BREW / HTTP/1.1\r\n\r\n", b"\0"])
def test_what_comes_together_with_the_end_of_a_chunked_body_is_dropped(
    stack: Stack, plane: str, surplus: bytes
) -> None:
    # given a request that was sent before the response to the previous one
    post = b"POST /healthz HTTP/1.1\r\n" + CHUNKED + b"6\r\na\r\n\r\n\r\r\n0\r\n\r\n"
    with connect(stack, plane) as connection:
        connection.sendall(GET + post + surplus)
        answer = received(connection)
    # then its client learns from the end of the connection that it was not served
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.count(b"HTTP/1.1 405 ") == answer.count(b"\r\nconnection: close\r\n") == 1


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("body", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_what_follows_the_last_request_is_dropped(stack: Stack, plane: str, body: bytes) -> None:
    # given a request that asks for the end of the connection, and data behind it
    head = (
        b"DELETE /healthz HTTP/1.1\r\n" + HOST + b"X-Auth-Token: x\r\nConnection: close\r\n" + body + b"\r\n"
    )
    with connect(stack, plane) as connection:
        connection.sendall(head + (b"0\r\n\r\n" if body else b"") + GET)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("version", "status"), [(b"1.0", b"405"), (b"1.1", b"100")])
def test_http_1_0_knows_no_interim_response(stack: Stack, plane: str, version: bytes, status: bytes) -> None:
    expectation = HOST + b"X-Auth-Token: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    with connect(stack, plane) as connection, closing(connection.makefile("rb")) as file:
        connection.sendall(b"POST /healthz HTTP/%b\r\n" % version + expectation)
        if version == b"1.0":
            connection.sendall(b"a")
        assert file.readline().split()[1] == status


@pytest.mark.parametrize(
    ("plane", "name"), [("REGISTRY_CONTROL_ADDR", "control"), ("REGISTRY_DATA_ADDR", "data")]
)
def test_a_connection_ends_with_its_client_whatever_was_not_served(
    stack: Stack, plane: str, name: str
) -> None:
    # given clients that have sent requests behind the last one, and got their response
    last = b"POST /healthz HTTP/1.1\r\n" + HOST + b"X-Auth-Token: x\r\nConnection: close\r\n"
    before = sockets(stack, name)
    for _ in range(20):
        with connect(stack, plane) as connection:
            connection.sendall(last + b"Content-Length: 1\r\n\r\na" + GET)
            received(connection)
    # then the server keeps none of them
    deadline = time.monotonic() + 5
    while sockets(stack, name) > before + 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sockets(stack, name) <= before + 5


def sockets(stack: Stack, name: str) -> int:
    """The sockets that the processes of a plane have open."""
    found = 0
    for pid, command in stack.processes().items():
        if f"serve {name}" in command:
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    found += str(file.readlink()).startswith("socket:")
    return found


@pytest.mark.parametrize("plane", PLANES)
def test_a_length_may_have_thousands_of_zeros(stack: Stack, plane: str) -> None:
    said = len(stack.log)
    head = (
        b"POST /registry-internal/v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: %b5\r\n\r\n" % (b"0" * 5000)
    )
    with connect(stack, plane) as connection:
        connection.sendall(head + b"hello" + GET)
        assert response_of(connection)[0] == 404
    assert "Traceback" not in stack.log[said:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plane", "name"), [("REGISTRY_CONTROL_ADDR", "control"), ("REGISTRY_DATA_ADDR", "data")]
)
def test_requests_that_wait_are_limited_in_memory(stack: Stack, plane: str, name: str) -> None:
    # given a client that sends small requests with a body faster than they are served
    request = b"POST /healthz HTTP/1.1\r\nX-Auth-Token: x\r\n" + HOST + b"Content-Length: 1\r\n\r\na"
    requests = request * (24 * 1024 * 1024 // len(request))
    with connect(stack, plane) as connection, Growth(stack, name) as growth:
        threading.Thread(target=send, args=(connection, requests), daemon=True).start()
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and connection.recv(65536):
            pass
        connection.shutdown(socket.SHUT_RDWR)
        # then few of them are in memory
        assert growth.mib < 8


def send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:  # the test has ended
        return


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("begin", [b"1;a=", b"0\r\nX: ", b"0\r\n" + b"X: a\r\n" * 20_000])
def test_a_chunked_body_is_limited_in_what_is_no_data(stack: Stack, plane: str, begin: bytes) -> None:
    with connect(stack, plane) as connection:
        connection.sendall(b"POST /token HTTP/1.1\r\n" + CHUNKED + begin)
        threading.Thread(target=send, args=(connection, b"a" * 1_000_000), daemon=True).start()
        status, headers, _ = response_of(connection)
    assert 400 <= status < 500
    assert headers["connection"] == "close"


@pytest.mark.slow
def test_300_clients_that_do_not_read_a_large_manifest_share_one_copy_of_it(stack: Stack) -> None:
    # given a manifest of almost 4 MiB
    with pushing(stack) as (client, name), ExitStack() as opened:
        client.push_image(name, "1", b"layer")
        found = client.on(name, "GET", "manifests/1")
        large = found.json() | {"annotations": {f"key-{number}": "a" * 4_000 for number in range(900)}}
        headers = {"Content-Type": found.headers["content-type"]}
        pushed = client.on(name, "PUT", "manifests/large", content=json.dumps(large), headers=headers)
        assert pushed.status_code == 201, pushed.text
        pair = b64encode(f"x:{client.secret}".encode())
        line = f"GET /v2/{name}/manifests/large HTTP/1.1\r\n".encode()
        host, _, port = stack.environment["REGISTRY_DATA_ADDR"].rpartition(":")
        # when hundreds of clients with small buffers request it and read nothing
        with Growth(stack, "data") as growth:
            for _ in range(300):
                connection = opened.enter_context(socket.socket())
                connection.settimeout(10)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect((host, int(port)))
                connection.sendall(line + HOST + b"Authorization: Basic " + pair + b"\r\n\r\n")
            time.sleep(3)
        # then the processes do not grow by a gigabyte
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert growth.mib < 300
