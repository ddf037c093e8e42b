"""A WSGI application behind an ASGI server, with threads for work and none for waiting.

A WSGI server gives a request its thread with the first byte, so a handful of clients that send half a body
and fall silent hold up everybody else. Here a request gets its thread when all of its body has come, and
gives it back before the first byte of the answer goes out. Bodies and answers are in memory meanwhile: the
management API has none that are large.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from json import dumps
from typing import Any, Final, TypeAlias
from wsgiref.types import WSGIApplication

logger = logging.getLogger(__name__)

BODY_TIME: Final = 30.0
"""Seconds that a client has for sending a whole body."""

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


class _ClientGone(Exception):
    """Nobody is left who could be answered."""


@dataclass(slots=True)
class _Answer:
    """What a WSGI application has to say, or what is said for it."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def start(
        self, status: str, headers: list[tuple[str, str]], _: object = None
    ) -> Callable[[bytes], object]:
        """WSGI's `start_response`. A second call replaces the first: nothing has been sent yet."""
        self.status, self.headers, self.body = int(status.split()[0]), headers, b""
        return self._write

    def _write(self, data: bytes) -> None:
        self.body += data


class WsgiInThreads:
    """The ASGI callable."""

    def __init__(
        self, application: WSGIApplication, *, threads: int, max_body: int, body_time: float = BODY_TIME
    ) -> None:
        """At most `threads` requests are worked on at once; a body has at most `max_body` bytes."""
        self._application = application
        self._body_time = body_time
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._max_body = max_body

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            async with asyncio.timeout(self._body_time):
                body = await self._body(scope, receive)
        except _ClientGone:
            return
        except TimeoutError:
            await _send(_refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time"), send)
            return
        if body is None:
            await _send(_refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large"), send)
            return
        environ = _environ(scope, body)
        loop = asyncio.get_running_loop()
        await _send(await loop.run_in_executor(self._pool, copy_context().run, self._work, environ), send)

    async def _lifespan(self, receive: _Receive, send: _Send) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        self._pool.shutdown()
        await send({"type": f"{message['type']}.complete"})

    async def _body(self, scope: _Message, receive: _Receive) -> bytes | None:
        """All of it, or None when that would be too much."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if int(declared) > self._max_body:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            body += message.get("body", b"")
            if len(body) > self._max_body:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    def _work(self, environ: dict[str, Any]) -> _Answer:
        """Runs in a thread of the pool."""
        answer = _Answer()
        try:
            pieces = self._application(environ, answer.start)
            try:
                answer.body += b"".join(pieces)
            finally:
                if (close := getattr(pieces, "close", None)) is not None:
                    close()
        except Exception:
            logger.exception("the application itself has failed")
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
        return answer


def _environ(scope: _Message, body: bytes) -> dict[str, Any]:
    """PEP 3333. What was not ASCII is bytes in the guise of Latin-1 there."""
    host, port = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("", 0))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").upper()
        # X_Name would pass for X-Name, which perhaps only a proxy is trusted to set.
        if name == "CONTENT-LENGTH" or "_" in name:
            continue
        key = "CONTENT_TYPE" if name == "CONTENT-TYPE" else f"HTTP_{name.replace('-', '_')}"
        value = raw_value.decode("latin-1")
        separator = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def _refusal(status: HTTPStatus, message: str) -> _Answer:
    body = dumps({"type": status.phrase.lower().replace(" ", "_"), "message": message}).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    return _Answer(status, headers, body)


async def _send(answer: _Answer, send: _Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
