"""/livez and /readyz of both planes (ADR 59).

They are answered before any other code sees the request: under any Host header, for anyone, beyond the limits
of rates and connections, and while every thread waits for a database or storage that hangs. They are not in
the access log; `Readiness` logs each change.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from registry_control.common import request_context
from registry_control.serving.readiness import Readiness, Status

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_Application: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]
_Respond: TypeAlias = Callable[[bytes, bytes], None]
_Begin: TypeAlias = Callable[[_Message, _Respond, Callable[[], None]], None]

LIVE: Final = "/livez"
READY: Final = "/readyz"
_METHODS: Final = ("GET", "HEAD")


def _unless_probe(begin: _Begin, scope: _Message, respond: _Respond, run: Callable[[], None]) -> None:
    if scope["path"] in (LIVE, READY):
        run()
    else:
        begin(scope, respond, run)


class Probes:
    """The ASGI callable in front of a plane's application."""

    def __init__(self, application: _Application, readiness: Readiness, begin: _Begin | None = None) -> None:
        """`begin` is the application's, if it has one (`registry_control.serving.http_protocol.Begin`)."""
        self._application = application
        self._readiness = readiness
        self.begin = None if begin is None else partial(_unless_probe, begin)

    def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> Awaitable[None]:
        """Answer a probe, or pass on any other request and the events of the ASGI lifespan protocol.

        No coroutine, so that the others cost no further one.
        """
        if scope["type"] == "lifespan":
            self._readiness.start()  # so that the first probe need not wait, and a missing bucket is created
        if scope["type"] != "http" or scope["path"] not in (LIVE, READY):
            return self._application(scope, receive, send)
        return self._respond(scope, send)

    async def _respond(self, scope: _Message, send: _Send) -> None:
        if scope["method"] not in _METHODS:
            await _respond(scope, send, HTTPStatus.METHOD_NOT_ALLOWED, {"status": "GET and HEAD are allowed"})
        elif scope["path"] == LIVE:
            await _respond(scope, send, HTTPStatus.OK, {"status": Status.OK})
        else:
            await self._respond_ready(scope, send)

    async def _respond_ready(self, scope: _Message, send: _Send) -> None:
        results = await self._readiness.results()
        is_ready = all(status is Status.OK for status in results.values())
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        body = {"status": "ok" if is_ready else "unavailable", "checks": dict(results)}
        await _respond(scope, send, status, body)


async def _respond(scope: _Message, send: _Send, status: HTTPStatus, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    incoming_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    context = request_context.start(incoming_id.decode("latin-1"))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-request-id", context.request_id.encode()),
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers += [(b"allow", b"GET, HEAD"), (b"connection", b"close")]  # its body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})
