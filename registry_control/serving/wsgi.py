"""The control plane's WSGI application behind an ASGI server (ADR 13).

asgiref builds the WSGI environment. This adapter adds what that of asgiref lacks: bodies are limited in size,
time and total memory; requests run in several threads, each with the context variables of its request; and a
response is sent after its thread is free, so that slow clients do not occupy threads. Bodies and responses
are buffered in memory, which suffices for a management API.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http import HTTPStatus
from io import BytesIO
from json import dumps
from typing import Any, Final
from wsgiref.types import WSGIApplication

from asgiref.wsgi import WsgiToAsgiInstance
from starlette.types import Message, Receive, Scope, Send

from registry_control.serving.bodies import Body, BodyBudget, RequestRejected, check_head, header
from registry_data.connections import TOO_MANY

logger = logging.getLogger(__name__)

BODY_TIME: Final = 30.0  # seconds; timeout for a whole body


class _Response:
    """The response of a WSGI application. A second call of `start` replaces the first."""

    def __init__(self) -> None:
        self.status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        self.headers: list[tuple[str, str]] = []
        self.body = b""

    def start(
        self, status: str, headers: list[tuple[str, str]], _: object = None
    ) -> Callable[[bytes], object]:
        """WSGI's `start_response`."""
        self.status, self.headers, self.body = int(status.split()[0]), headers, b""
        return self._write

    def _write(self, data: bytes) -> None:
        self.body += data


class WsgiInThreads:
    """The ASGI callable."""

    def __init__(
        self,
        application: WSGIApplication,
        *,
        threads: int,
        body_limit: Callable[[Scope], int],
        body_time: float = BODY_TIME,
        budget: BodyBudget | None = None,
    ) -> None:
        """Run at most `threads` requests at once.

        `body_limit` returns how many bytes of a request's body are read. With 0, the application is called
        immediately with an empty body.
        """
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._body_limit = body_limit
        self._body_time = body_time
        self._budget = budget or BodyBudget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the startup and shutdown events of the ASGI lifespan protocol."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = Body(receive, self._budget)
        try:
            check_head(scope)
            async with asyncio.timeout(self._body_time):
                await body.read(self._body_limit(scope), header(scope, b"content-length"))
            call = copy_context().run
            response = await asyncio.get_running_loop().run_in_executor(
                self._pool, call, self._run, scope, body
            )
        except TimeoutError:
            response = _error_response(
                HTTPStatus.REQUEST_TIMEOUT, "timeout while reading the body: send the request again"
            )
        except RequestRejected as error:
            response = _error_response(error.status, str(error))
        finally:
            body.release()
        if not body.is_complete:
            response.headers.append(("Connection", "close"))
        await _send(response, send)

    def _run(self, scope: Scope, body: Body) -> _Response:
        """Call the application, in a thread of the pool."""
        response = _Response()
        try:
            parts = self._application(_environ(scope, body.take()), response.start)
            try:
                response.body += b"".join(parts)
            finally:
                if (close := getattr(parts, "close", None)) is not None:
                    close()
        except Exception:
            logger.exception("the WSGI application raised an exception")
            return _error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
        return response

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        self._pool.shutdown()
        await send({"type": f"{message['type']}.complete"})


def _environ(scope: Scope, body: BytesIO) -> dict[str, Any]:
    """The WSGI environment.

    Headers with an underscore are dropped: WSGI maps X_Name and X-Name to the same variable, and only a proxy
    may set some of these. A chunked body gets a Content-Length, because it has been read completely.
    """
    cookies = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
    dropped = (b"cookie", b"transfer-encoding", b"content-length")
    headers = [(name, value) for name, value in scope["headers"] if b"_" not in name and name not in dropped]
    if cookies:
        headers.append((b"cookie", cookies))
    instance: Any = WsgiToAsgiInstance(None)  # type: ignore[no-untyped-call]
    instance.scope = {**scope, "headers": headers, "query_string": b""}
    environ: dict[str, Any] = instance.build_environ(instance.scope, body)
    environ["CONTENT_LENGTH"] = str(len(body.getbuffer()))
    environ["QUERY_STRING"] = scope["query_string"].decode("latin-1")
    return environ


def _error_response(status: HTTPStatus, message: str) -> _Response:
    response = _Response()
    response.status = status
    response.body = dumps({"type": status.phrase.lower().replace(" ", "_"), "message": message}).encode()
    response.headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(response.body))),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers.append(("Retry-After", "5"))
    return response


async def reject_connection(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
    """Respond with 503 because the client address has too many connections, and close the connection."""
    response = _error_response(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY)
    response.headers.append(("Connection", "close"))
    await _send(response, send)


async def _send(response: _Response, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    start: Message = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body})
