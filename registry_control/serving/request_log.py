"""Request ids and the access log of the control plane, also where a request never reaches Django."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from registry_control.common import request_context
from registry_control.common.access_log import AccessLog

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_Application: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_HEADER: Final = b"x-request-id"


@dataclass(slots=True)
class _Sent:
    """The part of a response that has been sent."""

    status: int = 0
    size: int = 0  # bytes of the body


class RequestLog:
    """The ASGI callable. Every response gets X-Request-Id; with a log, every request gets a line."""

    def __init__(self, application: _Application, log: AccessLog | None) -> None:
        self._application = application
        self._log = log

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Pass on one request, or the events of the ASGI lifespan protocol."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            if self._log is not None:
                self._log.close()
            return
        began, sent = time.perf_counter(), _Sent()
        context = request_context.start(_header(scope, _HEADER))

        async def send_with_id(message: _Message) -> None:
            if message["type"] == "http.response.start":
                sent.status = message["status"]
                others = [(name, value) for name, value in message["headers"] if name.lower() != _HEADER]
                message = {**message, "headers": [*others, (_HEADER, context.request_id.encode())]}
            sent.size += len(message.get("body", b""))
            await send(message)

        try:
            await self._application(scope, receive, send_with_id)
        finally:
            if self._log is not None:
                _record(self._log, scope, sent, context, time.perf_counter() - began)


def _record(
    log: AccessLog, scope: _Message, sent: _Sent, context: request_context.RequestContext, seconds: float
) -> None:
    log.record(
        at=time.time(),
        client=(scope.get("client") or ("", 0))[0],
        method=scope["method"],
        path=scope["path"],
        status=sent.status,
        sent=sent.size,
        seconds=seconds,
        request_id=context.request_id,
        principal=context.principal,
        user_agent=_header(scope, b"user-agent") or "",
        cache="",
    )


def _header(scope: _Message, wanted: bytes) -> str | None:
    found = next((value for name, value in scope["headers"] if name == wanted), None)
    return None if found is None else found.decode("latin-1")
