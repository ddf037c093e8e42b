"""One HTTP request and its response, as an ASGI application sees them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl

from registry_control.common import request_context

logger = logging.getLogger(__name__)

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_PARTS: Final = 64  # parts of a body that wait; more of them are joined, because small ones need more memory
# A body up to this size is copied behind its head, which is faster. A larger one may be shared by many
# clients that do not read it.
_COPIED: Final = 64 * 1024  # bytes
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_WITHOUT_BODY: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_ERROR: Final = b"internal error"


class Cycle:
    """A request that is being read or served."""

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        *,
        date: bytes,
        expects_continue: bool,
        keeps_alive: bool,
        on_end: Callable[[], None],
    ) -> None:
        """`date` is the value of the Date header; `on_end` is called when the response is complete."""
        self._scope, self._transport, self._flow = scope, transport, flow
        self._date = date
        self._expects_continue = expects_continue
        self._on_end = on_end
        self._changed = asyncio.Event()
        self._parts: list[bytes] = []
        self._is_end_received = False
        self._head: bytes | None = None  # of the response, which is sent with the first part of its body
        self._has_body = True  # the response may have a body
        self._is_chunked = False
        self._left: int | None = None  # bytes that are missing to the announced length of the body
        self._has_started = False  # the head is sent
        self.keeps_alive = keeps_alive
        self.has_more = True  # the request is not complete
        self.is_truncated = False  # it will not be complete
        self.has_eof = False  # the client has closed its sending half
        self.is_disconnected = False
        self.is_complete = False  # the response is
        self.buffered = 0  # bytes of the body that wait for the application

    async def run(self, application: ASGIApp) -> None:
        """Call the application, and end the connection if it sends no complete response."""
        try:
            await application(self._scope, self._receive, self._send)
        except Exception as error:
            if self.is_disconnected and isinstance(error, ConnectionResetError):
                return
            # The id of the application's request, if it has come so far; the log line has it, too.
            request_id = request_context.request_id() or request_context.start(None).request_id
            logger.exception("the application raised an exception")
            if not self._has_started:
                await self._send_error(request_id)
        finally:
            if not self.is_complete and not self.is_disconnected:
                self._transport.abort()

    # The request

    def add(self, part: bytes) -> None:
        """Add a part of the body."""
        self._parts.append(part)
        self.buffered += len(part)
        if len(self._parts) > _PARTS:
            self._parts = [b"".join(self._parts)]
        self._changed.set()

    def end(self) -> None:
        """The request is complete."""
        self.has_more = False
        self._changed.set()

    def truncate(self) -> None:
        """No more of the body comes: the application receives what came, and then a disconnection."""
        self.is_truncated, self.keeps_alive = True, False
        self._changed.set()

    def disconnect(self) -> None:
        """The connection is lost."""
        self.is_disconnected = True
        self._changed.set()

    async def _receive(self) -> Message:
        """The next part of the body; after the last one, wait until the client has disconnected."""
        if (
            self._expects_continue
            and self.has_more
            and not self._has_started
            and not self._transport.is_closing()
        ):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expects_continue = False
        while (message := self._next_message()) is None:
            await self._changed.wait()
            self._changed.clear()
        return message

    def _next_message(self) -> Message | None:
        if self.is_complete:
            return {"type": "http.disconnect"}
        if self._parts or not (self.has_more or self._is_end_received):
            body, self._parts, self.buffered = b"".join(self._parts), [], 0
            self._is_end_received = not self.has_more
            if self.has_more and not self.has_eof:  # without more, the next request would come
                self._flow.resume_reading()
            return {"type": "http.request", "body": body, "more_body": self.has_more}
        return {"type": "http.disconnect"} if self.is_disconnected or self.is_truncated else None

    # The response

    async def _send(self, message: Message) -> None:
        """Send the head or a part of the body; wait while the client does not read.

        Raises:
            ConnectionResetError: the client has disconnected (ASGI 2.4).
        """
        if self._flow.write_paused and not self.is_disconnected:
            await self._flow.drain()
        if self.is_disconnected:
            raise ConnectionResetError("the client has disconnected")
        if message["type"] == "http.response.start":
            self._head = self._rendered(message["status"], message["headers"])
            return
        is_end = not message.get("more_body", False)
        self._write(message.get("body", b""), is_end=is_end)
        if is_end:
            self.is_complete = True
            self._changed.set()
            self._on_end()

    def _rendered(self, status: int, headers: Headers) -> bytes:
        """The head of the response, which also decides how its body ends (RFC 9112, section 6.3)."""
        lines = [_STATUS_LINES[status], b"date: ", self._date, b"\r\n"]
        is_closing, length = False, None
        self._has_body, self._is_chunked = True, False
        if self.has_more:
            self.keeps_alive = False  # nobody would read the rest of the body, which may never come
        for name, value in headers:
            if b"\n" in value or b"\r" in value:
                raise ValueError(f"the header {name!r} has more than one line")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keeps_alive, is_closing = False, True
            lines += (name, b": ", value, b"\r\n")
        if self._scope["method"] == "HEAD" or status in _WITHOUT_BODY:
            self._has_body = False
        elif length is None and self._scope["http_version"] == "1.0":
            self.keeps_alive = False  # the end of the connection is that of the body
        elif length is None:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        self._left = length
        if not self.keeps_alive and not is_closing:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _write(self, body: bytes, *, is_end: bool) -> None:
        if not self._has_body:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"0\r\n\r\n" if is_end else b"")
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (is_end and self._left > 0):
                raise ValueError("the length of the body differs from Content-Length")
        if self._head is not None:
            head, self._head, self._has_started = self._head, None, True
            if len(body) > _COPIED:
                self._transport.writelines((head, body))  # in one packet
                return
            body = head + body
        if body:
            self._transport.write(body)

    async def _send_error(self, request_id: str) -> None:
        self.keeps_alive = False
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % len(_ERROR)),
            (b"x-request-id", request_id.encode()),
        ]
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": _ERROR})
