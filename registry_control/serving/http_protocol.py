"""HTTP/1.1 connections of both planes, for uvicorn's server and with llhttp as the parser (ADR 28).

A connection serves one request at a time: what a client sends beyond it is not parsed before its response is
sent and read. A client that has closed its sending half gets its response. Errors have the format of the
plane. After a response that ends a connection, the rest of the request is read and dropped: to close a
connection with unread data would reset it, and the client could lose the response.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import httptools
import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from registry_control.serving.http_cycle import Cycle
from registry_control.serving.http_head import HeadBuffer, RequestRejected, malformed, method_of
from registry_data.rejections import Rejection, mark_rejected

logger = logging.getLogger(__name__)

_FIELDS: Final = 200  # header fields: each occupies more memory than its bytes
_BUFFERED: Final = 64 * 1024  # bytes of a body that wait for the application
# Bytes of chunk sizes, extensions and trailer fields without data between them: the parser keeps trailers.
_FRAMING: Final = 64 * 1024
_LINGER_TIME: Final = 30.0  # seconds
_LINGERED: Final = 1024 * 1024 * 1024  # bytes
_KNOWN_METHOD: Final = b"OPTIONS"
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}

Respond: TypeAlias = Callable[[bytes, bytes], None]
"""Sends a response: its head, without Date and Connection and the empty line at the end, and its body."""
Begin: TypeAlias = Callable[[Scope, Respond, Callable[[], None]], None]
"""Optional method `begin` of an application, for requests without a body: it calls one of the two functions,
now or later. The second one has the request served as usual. The first saves a task and messages."""


class Protocol(asyncio.Protocol):
    """A connection."""

    _transport: asyncio.Transport
    _flow: FlowControl

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - the server passes it by name
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._application: ASGIApp = config.loaded_app
        self._begin: Begin | None = getattr(config.loaded_app, "begin", None)
        self._idle_time: float = config.timeout_keep_alive
        self._server = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._client: tuple[str, int] | None = None
        self._local: tuple[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._is_lost = False
        self._has_eof = False  # the client has closed its sending half
        self._ends = False  # what arrives is dropped
        self._dropped = 0  # bytes

        self._parser = httptools.HttpRequestParser(self)
        self._buffer = HeadBuffer()
        self._held = b""  # later requests
        self._is_parsing = False

        # Of the request that is being read:
        self._is_in_head = True  # not in its body
        self._is_served = False  # in a cycle, already
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._unknown_method = ""
        self._body_left: int | None = 0  # bytes; None if the body is chunked
        self._framing = 0  # bytes since the last part of the body
        self._expects_continue = False
        self._scope: Scope = {}
        # Of the request that is being served:
        self._cycle: Cycle | None = None
        self._is_pending = False  # the application has not decided how to serve it
        self._keeps_alive = True

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request."""
        self._transport, self._flow = transport, FlowControl(transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer is None or local is None:  # the client has reset the connection already
            transport.abort()
            return
        self._client, self._local = peer[:2], local[:2]
        self._server.connections.add(self)  # type: ignore[arg-type]
        self._idle_since = self._loop.time()
        self._timer = self._loop.call_later(self._idle_time, self._check_idle)

    def _check_idle(self) -> None:
        """End a connection that waits too long for the head of a request."""
        left = self._idle_time
        if self._is_in_head and not self._is_busy:
            left += self._idle_since - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self._close()

    def _close(self) -> None:
        """Send what is written already, and end the connection."""
        self._ends = True
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio
        """Tell the application."""
        self._server.connections.discard(self)
        self._ends = self._is_lost = True
        if self._cycle is not None:
            self._cycle.disconnect()
        self._flow.resume_writing()
        if self._timer is not None:
            self._timer.cancel()

    def eof_received(self) -> bool:
        """Respond to the requests that are complete; True keeps the connection open for that."""
        self._has_eof = True
        if self._cycle is not None:
            self._cycle.has_eof = True
        if not self._held:
            self._keeps_alive = False
            self._end_at_eof()
        return self._is_busy or bool(self._held)

    def _end_at_eof(self) -> None:
        """Nothing more comes: this is the last request, and perhaps incomplete."""
        if self._cycle is not None and not self._cycle.is_complete:
            self._cycle.keeps_alive = False
            if self._cycle.has_more:
                self._cycle.truncate()
        elif not self._is_pending:
            self._close()

    def shutdown(self) -> None:
        """End the connection, after the present response if there is one."""
        self._held, self._keeps_alive = b"", False
        if self._cycle is not None:
            self._cycle.keeps_alive = False
        if not self._is_busy:
            self._close()

    def pause_writing(self) -> None:
        """The client does not read as fast as the application sends."""
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self._flow.resume_writing()
        self._continue()

    @property
    def _is_busy(self) -> bool:
        return self._is_pending or (self._cycle is not None and not self._cycle.is_complete)

    # Input

    def data_received(self, data: bytes) -> None:
        """Parse what the client sends, one request after the other."""
        if self._ends:
            self._drop(data)
        elif self._held or self._must_wait():
            self._hold(data)
        else:
            self._parse(data)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _LINGERED:
            self._transport.abort()

    def _must_wait(self) -> bool:
        """Whether the next request waits: for the present response, or until the client has read the last."""
        return self._is_in_head and (self._is_busy or self._flow.write_paused)

    def _hold(self, data: bytes) -> None:
        self._held += data
        self._flow.pause_reading()

    def _continue(self) -> None:
        """Parse what was held, unless the next request still waits."""
        if self._is_parsing or self._ends or self._must_wait():
            return
        data, self._held = self._held, b""
        self._parse(data)
        if self._has_eof:
            if not self._held:
                self._end_at_eof()
        elif not self._held and not self._must_wait():
            self._flow.resume_reading()

    def _parse(self, data: bytes) -> None:
        self._is_parsing = True
        start = 0
        try:
            while start < len(data) and not self._ends:
                if self._must_wait():
                    self._hold(data[start:])
                    return
                if self._is_in_head:
                    part, start = self._buffer.split(data, start)
                    if part:
                        self._feed(part)
                else:
                    stop = len(data) if self._body_left is None else start + self._body_left
                    self._feed_body(data[start:stop])
                    start = stop
        except RequestRejected as error:
            self._reject(error.rejection)
        finally:
            self._is_parsing = False

    def _feed_body(self, part: bytes) -> None:
        self._framing += len(part)
        try:
            self._feed(part)
        except RequestRejected:
            if not self._is_in_head or self._cycle is None:
                raise
            # The body is complete. The parser does not tell where the next request begins: a client
            # that has not waited for the response has to repeat it.
            self._ends, self._cycle.keeps_alive = True, False
        if self._framing > _FRAMING:
            message = f"more than {_FRAMING} bytes before or after the data of a chunk"
            raise RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def _feed(self, part: bytes) -> None:
        """Let the parser call the functions below.

        Raises:
            RequestRejected: by one of them, or 400.
        """
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserInvalidMethodError as error:
            self._feed_unknown_method(part, error)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, RequestRejected):
                raise error.__context__ from None
            raise malformed("its target is not valid") from error
        except httptools.HttpParserError as error:
            raise malformed(error) from error
        except httptools.HttpParserUpgrade:
            raise malformed("no other protocol is supported") from None

    def _feed_unknown_method(self, head: bytes, error: Exception) -> None:
        """The application says which methods it allows, also where the parser does not know the method."""
        method, rest = method_of(head)
        if self._unknown_method:
            raise malformed(error)
        self._unknown_method = method.decode("ascii")
        self._parser = httptools.HttpRequestParser(self)
        self._feed(_KNOWN_METHOD + rest)

    # Functions that the parser calls

    def on_message_begin(self) -> None:
        """Stop the parser behind a chunked body: the next request waits for the response.

        Raises:
            RequestRejected: for `_feed_body`.
        """
        if self._is_busy:
            raise malformed("a request behind a chunked body")

    def on_url(self, url: bytes) -> None:
        """Add to the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field. Fields after a chunked body are dropped."""
        if not self._is_in_head:
            return
        if len(self._headers) == _FIELDS:
            message = f"there are more than {_FIELDS} header fields"
            raise RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"content-length":
            value = value.lstrip(b"0") or b"0"  # also for applications: Python limits the number of digits
            self._body_left = int(value)
        elif name == b"transfer-encoding":
            self._body_left = None
        elif name == b"expect":
            self._expects_continue = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Serve a request with a body: its application may reject it early."""
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            message = f"HTTP/{version} is not supported: use HTTP/1.1"
            raise RequestRejected(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, message)
        url = httptools.parse_url(self._url)
        raw_path: bytes = url.path or b"/"
        path = raw_path.decode("ascii")
        method = self._unknown_method or self._parser.get_method().decode("ascii")
        self._scope = {
            **self._scope_of(method, unquote(path) if "%" in path else path),
            "http_version": version,
            "raw_path": raw_path,
            "query_string": url.query or b"",
        }
        self._keeps_alive = version == "1.1" and self._parser.should_keep_alive()
        self._expects_continue &= version == "1.1"
        self._is_in_head = False
        if self._body_left != 0:
            self._is_served = True
            self._serve()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the application."""
        self._framing = 0
        if self._body_left is not None:
            self._body_left -= len(body)
        if self._cycle is None:
            return
        self._cycle.add(body)
        if self._cycle.buffered > _BUFFERED:
            self._flow.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end of the request. One without a body is served from now on."""
        is_served, self._is_served = self._is_served, False
        self._is_in_head, self._body_left, self._expects_continue = True, 0, False
        self._framing = 0
        self._url, self._headers, self._unknown_method = b"", [], ""
        if is_served and self._cycle is not None:
            self._cycle.end()
        elif self._begin is None:
            self._serve().end()
        else:
            self._is_pending = True
            try:
                self._begin(self._scope, self._respond, self._run)
            except Exception:
                logger.exception("the application could not begin a request")
                self._transport.abort()

    # Output

    def _serve(self) -> Cycle:
        """Serve the request in a task."""
        self._cycle = Cycle(
            self._scope,
            self._transport,
            self._flow,
            date=self._date,
            expects_continue=self._expects_continue,
            keeps_alive=self._keeps_alive,
            on_end=self._on_response_end,
        )
        self._cycle.has_eof = self._has_eof
        task = self._loop.create_task(self._cycle.run(self._application))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)
        return self._cycle

    def _run(self) -> None:
        self._is_pending = False
        if not self._is_lost:
            self._serve().end()

    def _respond(self, head: bytes, body: bytes) -> None:
        self._is_pending = False
        if self._transport.is_closing():
            return
        end = b"\r\n\r\n" if self._keeps_alive else b"\r\nconnection: close\r\n\r\n"
        self._transport.write(b"".join((head, b"date: ", self._date, end, body)))
        if self._keeps_alive:
            self._idle_since = self._loop.time()
            self._continue()
        else:
            self._close()

    def _reject(self, rejection: Rejection) -> None:
        """Have the application answer with an error, and read no further request."""
        self._ends, self._keeps_alive = True, False
        if self._is_served and self._cycle is not None:  # its body is malformed
            self._cycle.truncate()
            return
        self._scope = self._scope_of("-", "")
        mark_rejected(self._scope, rejection)
        self._serve().truncate()

    def _scope_of(self, method: str, path: str) -> Scope:
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": b"",
            "query_string": b"",
            "root_path": "",
            "headers": self._headers,
            "server": self._local,
            "client": self._client,
        }

    @property
    def _date(self) -> bytes:
        return self._server.default_headers[0][1]

    def _on_response_end(self) -> None:
        """Go on with the next request, or end the connection."""
        if self._transport.is_closing():
            return
        self._idle_since = self._loop.time()
        cycle = self._cycle
        if cycle is None or cycle.keeps_alive:
            self._continue()
        elif (cycle.has_more or self._ends or self._held) and not cycle.has_eof:
            self._linger()
        else:
            self._close()

    def _linger(self) -> None:
        self._ends, self._held = True, b""
        self._transport.write_eof()
        self._flow.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER_TIME, self._transport.abort)
