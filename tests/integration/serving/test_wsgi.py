"""The control plane's server: slow, broken and malicious clients do not block others."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse
from wsgiref.validate import validator

import httpx
import pytest

from registry_control.serving.wsgi import WsgiInThreads
from tests.services.stack import Stack

HALF_A_REQUEST = (
    b"POST /registry/v1/regions/fr-par/namespaces HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\nX-Auth-Token: %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    b'{"name'
)


def address(stack: Stack) -> tuple[str, int]:
    parts = urlsplit(stack.credentials.control_url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def test_clients_that_stop_sending_do_not_block_others(stack: Stack) -> None:
    # given far more clients than threads, all of which have sent half a request
    with ExitStack() as open_connections:
        for _ in range(50):
            connection = open_connections.enter_context(socket.create_connection(address(stack)))
            connection.sendall(HALF_A_REQUEST % stack.credentials.secret_key.encode())

        # when another client sends a request, then it gets its response while they still wait
        response = httpx.get(f"{stack.credentials.control_url}/healthz", timeout=10)
    assert response.status_code == 200


def test_clients_that_disconnect_cause_no_error(stack: Stack) -> None:
    # given clients that disconnect before their request is complete, or before the response
    log_start = len(stack.log)
    for request in (
        HALF_A_REQUEST % b"x",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"nonsense\r\n\r\n",
    ):
        with socket.create_connection(address(stack)) as connection:
            connection.sendall(request)

    # then the server continues, and the log has no errors
    assert httpx.get(f"{stack.credentials.control_url}/healthz").status_code == 200
    assert "Traceback" not in stack.log[log_start:]


@pytest.mark.parametrize("path", ["/%ff", "/%00", "/x?%ff=%00", "//", "/..;/admin", "/a%2Fb"])
def test_malformed_paths_are_client_errors(stack: Stack, path: str) -> None:
    with httpx.Client() as client:
        response = client.get(stack.credentials.control_url + path)
    assert response.status_code in (400, 404)
    assert response.json()["type"]


def test_a_query_of_raw_bytes_is_not_a_server_error(stack: Stack) -> None:
    with socket.create_connection(address(stack)) as connection:
        connection.sendall(
            b"GET /healthz?name=\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        status = int(connection.makefile("rb").readline().split()[1])
    assert status in (200, 400)


def test_head_is_get_without_a_body(stack: Stack) -> None:
    whole = httpx.get(f"{stack.credentials.control_url}/healthz")
    head = httpx.head(f"{stack.credentials.control_url}/healthz")
    assert head.status_code == whole.status_code == 200
    assert head.content == b""


def test_a_body_that_is_too_large_is_rejected_before_it_is_read(stack: Stack) -> None:
    with socket.create_connection(address(stack)) as connection:
        connection.sendall(
            b"POST /admin/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\nx"
        )
        status_line, _, rest = connection.recv(65536).partition(b"\r\n")
    assert b" 413 " in status_line
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["type"] == "request_entity_too_large"


Message = MutableMapping[str, Any]


def call(
    application: WsgiInThreads, *messages: Message, then_silence: bool = False, **scope: object
) -> tuple[int, dict[bytes, bytes], bytes] | None:
    """One ASGI call; returns None if there was no response."""
    sent: list[Message] = []
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting and then_silence:
            await asyncio.sleep(60)
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    request: Message = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"registry.example")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        **scope,
    }
    asyncio.run(application(request, receive, send))
    if not sent:
        return None
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


def echo(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    response = {name: value for name, value in environ.items() if isinstance(value, str)}
    response["body"] = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode("latin-1")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(response).encode()]


def in_threads(application: Callable[..., Iterable[bytes]], **options: Any) -> WsgiInThreads:
    return WsgiInThreads(application, **{"threads": 2, "body_limit": lambda _: 100, **options})


def test_the_application_gets_the_environ_of_the_wsgi_standard() -> None:
    # given an application that the validator of the standard library checks
    application = in_threads(validator(echo))

    # when it is called with a body in two messages, repeated headers, and a header with an underscore
    response = call(
        application,
        body(b"{", more=True),
        body(b"}"),
        path="/caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        query_string=b"a=%C3%A9&b=\xff",
        headers=[
            (b"host", b"registry.example"),
            (b"content-type", b"application/json"),
            (b"content-length", b"2"),
            (b"accept", b"a"),
            (b"accept", b"b"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"x-auth-token", b"real"),
            (b"x_auth_token", b"forged"),
        ],
    )

    # then environ has all of it, as the standard defines, without the forged header
    assert response is not None
    environ = json.loads(response[2])
    assert environ["body"] == "{}"
    assert environ["CONTENT_LENGTH"] == "2"
    assert environ["CONTENT_TYPE"] == "application/json"
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert environ["QUERY_STRING"].encode("latin-1") == b"a=%C3%A9&b=\xff"
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_AUTH_TOKEN"] == "real"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_a_body_in_several_messages_has_the_same_limit() -> None:
    response = call(in_threads(echo), body(b"x" * 60, more=True), body(b"x" * 60))
    assert response is not None
    assert response[0] == 413
    assert response[1][b"connection"] == b"close"


def test_a_body_that_does_not_arrive_times_out() -> None:
    response = call(in_threads(echo, body_time=0.05), body(b"{", more=True), then_silence=True)
    assert response is not None
    assert response[0] == 408
    assert json.loads(response[2])["type"] == "request_timeout"


def test_a_malformed_body_is_400() -> None:
    """The server reports a malformed chunk in the same way as a client that has disconnected."""
    response = call(in_threads(echo), body(b"{", more=True), {"type": "http.disconnect"})
    assert response is not None
    assert response[0] == 400


def test_an_exception_in_the_application_is_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    def failing(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"half a response"
        raise ValueError("a secret detail")

    response = call(in_threads(failing), body(b""))
    assert response is not None
    assert response[0] == 500
    assert b"secret" not in response[2]
    assert "a secret detail" in caplog.text


def test_the_number_of_concurrent_requests_is_limited_to_the_threads() -> None:
    # given an application that counts its concurrent calls
    inside, most, lock = 0, 0, threading.Lock()

    def counting(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        time.sleep(0.05)
        with lock:
            inside -= 1
        start_response("204 No Content", [])
        return []

    application = in_threads(counting)

    async def send(_: Message) -> None: ...

    async def request() -> None:
        async def receive() -> Message:
            return body(b"")

        scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/"}
        await application({**scope, "query_string": b"", "headers": []}, receive, send)

    async def many() -> None:
        await asyncio.gather(*(request() for _ in range(10)))

    # when ten requests arrive at once, then two at a time are processed
    asyncio.run(many())
    assert most == 2
