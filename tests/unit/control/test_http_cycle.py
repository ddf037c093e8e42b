"""What a client gets if the application fails."""

import asyncio

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from registry_control.common import request_context
from registry_control.serving.http_cycle import Cycle


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.content = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.content += data

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def response_of(application: ASGIApp) -> Written:
    async def serve() -> Written:
        transport = Written()
        scope = {"method": "GET", "http_version": "1.1"}
        cycle = Cycle(
            scope,
            transport,
            FlowControl(transport),
            date=b"today",
            expects_continue=False,
            keeps_alive=True,
            on_end=lambda: None,
        )
        cycle.end()
        await cycle.run(application)
        return transport

    return asyncio.run(serve())


def test_an_exception_before_the_response_is_500_with_the_id_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        request_context.start("the-id")
        raise RuntimeError("a secret")

    content = response_of(failing).content
    assert content.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nx-request-id: the-id\r\n" in content
    assert b"\r\nconnection: close\r\n" in content
    assert b"secret" not in content
    assert "a secret" in caplog.text


@pytest.mark.parametrize("length", [b"4", b"6"])
def test_a_body_of_another_length_than_announced_ends_the_connection(length: bytes) -> None:
    async def wrong(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"12", "more_body": True})
        await send({"type": "http.response.body", "body": b"345"})

    written = response_of(wrong)
    assert written.is_aborted
    assert written.content.endswith(b"\r\n\r\n12")


def test_a_header_of_several_lines_is_not_sent() -> None:
    async def splitting(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"location", b"/a\r\nset-cookie: b"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    content = response_of(splitting).content
    assert content.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in content
