"""The data plane as an ASGI application: find the endpoint, call it, send its response."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from registry_data.connections import TOO_MANY, Connections
from registry_data.http.app_context import AppContext, Endpoint, Exchange
from registry_data.http.authentication import challenge
from registry_data.http.ended_responses import EndedResponses
from registry_data.http.endpoints import blobs, extensions, lists, manifests, service, uploads
from registry_data.http.errors import to_response
from registry_data.http.hosts import check_host
from registry_data.http.messages import Idle, Request, Response, client_address, content_length, first_values
from registry_data.http.rates import check_rate, count_request
from registry_data.http.response_cache import CachedResponse, ResponseCache, key_of
from registry_data.http.routes import Kind, Route, route
from registry_data.http.sending import send_response, start_of
from registry_data.oci.errors import ErrorCode, ProtocolError, shown
from registry_data.proxies import client_scope
from registry_data.registry.authorization import AccessDenied
from registry_data.rejections import rejection_of
from registry_data.scoped_cache import catch_up

logger = logging.getLogger(__name__)

ENDPOINTS: Final[Mapping[Kind, Mapping[str, Endpoint]]] = MappingProxyType(
    {
        Kind.ROOT: {"GET": service.root, "HEAD": service.root},
        Kind.PING: {"GET": service.ping, "HEAD": service.ping},
        Kind.MANIFEST: {
            "GET": manifests.get,
            "HEAD": manifests.get,
            "PUT": manifests.put,
            "DELETE": manifests.delete,
        },
        Kind.BLOB: {"GET": blobs.get, "HEAD": blobs.get, "DELETE": blobs.delete},
        Kind.UPLOADS: {"POST": uploads.start},
        Kind.UPLOAD: {
            "PATCH": uploads.append,
            "PUT": uploads.finish,
            "GET": uploads.status,
            "HEAD": uploads.status,
            "DELETE": uploads.cancel,
        },
        Kind.TAGS: {"GET": lists.tags, "HEAD": lists.tags},
        Kind.REFERRERS: {"GET": lists.referrers, "HEAD": lists.referrers},
        Kind.CATALOG: {"GET": lists.catalog, "HEAD": lists.catalog},
        Kind.EXTENSIONS: {"GET": extensions.of_registry, "HEAD": extensions.of_registry},
        Kind.REPOSITORY_EXTENSIONS: {"GET": extensions.of_repository, "HEAD": extensions.of_repository},
        Kind.TOKEN: {"GET": service.token_by_get, "POST": service.token_by_post},
        Kind.KEYS: {"GET": service.keys, "HEAD": service.keys},
        Kind.HEALTH: {"GET": service.health, "HEAD": service.health},
    }
)

_EXCHANGE: Final = "stowage.exchange"  # in the scope of a request whose response is not cached
_ID: Final = b"x-request-id: %b\r\n"
_READS: Final = frozenset({"GET", "HEAD"})
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

# The rest of a body is read and dropped within these limits, so that the connection stays usable (OCI 4).
_DRAINED: Final = 8 * 1024 * 1024  # bytes
_DRAIN_TIME: Final = 10  # seconds
_ANONYMOUS_DRAIN_TIME: Final = 0.05  # seconds, of a request without credentials
_TARGET: Final = 32 * 1024  # bytes of path and query
# Enough for the longest accepted token and all other headers; limits the time to parse list headers.
_HEADERS: Final = 128 * 1024  # bytes


class App:
    """The ASGI callable."""

    def __init__(self, context: AppContext, connections: Connections | None = None) -> None:
        self._context = context
        self._connections = connections
        self._cache = ResponseCache(context.tracker)
        self._ended = EndedResponses(context.on_response)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one HTTP request, or the startup and shutdown events of the ASGI lifespan protocol."""
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        return self._serve(scope, receive, send)

    def begin(self, scope: Scope, respond: Callable[[bytes, bytes], None], run: Callable[[], None]) -> None:
        """Send the response to a request without a body if it is cached; `run` serves it otherwise.

        A task and ASGI messages for each cached response would add half of its cost (ADR 28).
        """
        exchange = self._exchange(scope)
        if self._connections is not None and not self._connections.is_admitted(scope["client"]):
            run()
            return
        exchange.key = key_of(exchange.scope, exchange.headers)
        if exchange.key is None:
            run()
            return

        def look(is_current: bool) -> None:
            try:
                cached = self._cached(exchange) if is_current else None
            except Exception:  # the request must not wait for ever
                logger.exception("a cached response could not be sent")
                cached = None
            if cached is None:
                exchange.version = self._context.tracker.version if is_current else None
                scope[_EXCHANGE] = exchange
                run()
                return
            respond(cached.head + _ID % exchange.context.request_id.encode(), cached.body)
            exchange.sent = len(cached.body)
            self._end(exchange)

        self._context.feed.when_current(look)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = scope.pop(_EXCHANGE, None)
        is_new = exchange is None
        if exchange is None:
            exchange = self._exchange(scope)
        self._context.use_request(exchange.context)
        try:
            cached = await self._look_up(exchange, scope) if is_new else None
            if cached is not None:
                await send(start_of(cached.status, cached.headers, exchange))
                exchange.sent = len(cached.body)
                await send({"type": "http.response.body", "body": cached.body})
            else:
                await self._respond(exchange, receive, send)
        finally:
            self._end(exchange)

    def _exchange(self, scope: Scope) -> Exchange:
        began = time.perf_counter()
        scope = client_scope(scope, self._context.config.trusted_proxies)
        headers = first_values(scope)
        incoming_id = headers.get(b"x-request-id")
        context = self._context.new_request(incoming_id.decode("latin-1") if incoming_id else None)
        return Exchange(scope, headers, context, began=began)

    async def _look_up(self, exchange: Exchange, scope: Scope) -> CachedResponse | None:
        """The cached response, after every change committed before now; `scope` names the connection."""
        if self._connections is not None:
            exchange.is_admitted = await self._connections.admits(scope["client"])
        is_current = await catch_up(self._context.feed)
        exchange.version = self._context.tracker.version if is_current else None
        if not exchange.is_admitted or not is_current:
            return None
        exchange.key = key_of(exchange.scope, exchange.headers)
        return self._cached(exchange)

    def _end(self, exchange: Exchange) -> None:
        exchange.seconds, exchange.ended_at = time.perf_counter() - exchange.began, time.time()
        self._ended.add(exchange)

    def report_responses(self) -> None:
        """Pass the responses that have ended to the hooks now, instead of within some milliseconds."""
        self._ended.report()

    async def _respond(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Serve a request whose response is not cached."""
        request = Request(
            exchange.scope,
            receive,
            idle_time=self._context.config.idle_time,
            context=exchange.context,
            version=exchange.version,
        )
        if not exchange.is_admitted:
            response = to_response(_too_many_connections())
            await send_response(response, request, exchange, self._context, send)
            return
        response = _with_origin(await self._response(request), self._context.config.public_origin)
        exchange.route, exchange.pull = request.route, request.pull
        if exchange.key is not None:
            self._cache.put(exchange.key, request, response)
        await send_response(response, request, exchange, self._context, send)

    def _cached(self, exchange: Exchange) -> CachedResponse | None:
        """The cached response; None if the caller is over its rate limit, which check_rate() then reports."""
        cached = None if exchange.key is None else self._cache.get(exchange.key)
        if cached is None:
            return None
        if self._context.rates is not None and count_request(
            self._context, client_address(exchange.scope), cached.principal
        ):
            return None
        exchange.status, exchange.from_cache = cached.status, True
        exchange.route, exchange.context.principal = cached.route, cached.principal
        exchange.pull = cached.pull
        return cached

    async def _response(self, request: Request) -> Response:
        try:
            response = await self._result(request)
            if request.method not in _READS and not await _drained(request):
                return Response(response.status, {**response.headers, "connection": "close"}, response.body)
        except ClientDisconnect as error:
            return _incomplete_body(request, error)
        return response

    async def _result(self, request: Request) -> Response:
        try:
            found = request.route = _find(request)
            if found.kind is not Kind.HEALTH:
                await check_rate(self._context, request)
            endpoints = ENDPOINTS[found.kind]
            endpoint = endpoints.get(request.method)
            if endpoint is None:
                raise _not_allowed(request.method, endpoints)
            if self._context.config.read_only and request.method in _WRITES and found.kind is not Kind.TOKEN:
                raise _read_only(endpoints)
            return await endpoint(self._context, request, found)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where every other error becomes a response
            return await self._refusal(request, error)

    async def _refusal(self, request: Request, error: Exception) -> Response:
        response = to_response(error)
        if isinstance(error, AccessDenied):
            header = challenge(error, request, self._context.config)
            if header is not None:
                response = Response(
                    response.status, {**response.headers, "www-authenticate": header}, response.body
                )
        return response

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self._context.bridge.close()
                self._context.feed.close()
                self.report_responses()
                for call in self._context.on_shutdown:
                    call()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _with_origin(response: Response, origin: str | None) -> Response:
    """Make Location absolute where an origin is configured; a relative one follows the client's own URL."""
    location = response.headers.get("location", "")
    if origin is None or not location.startswith("/"):
        return response
    return replace(response, headers={**response.headers, "location": f"{origin}{location}"})


def _incomplete_body(request: Request, error: ClientDisconnect) -> Response:
    """The response to a request whose body ended early.

    A client that only stopped sending can still read it. Without a response, the server would send a 500.
    """
    if isinstance(error, Idle):
        logger.info("timeout while reading the body of %s %s", request.method, request.path)
        message = "timeout while reading the body: resume at the offset of the upload, or send the body again"
        status, headers = HTTPStatus.REQUEST_TIMEOUT, {"connection": "close"}
        return to_response(ProtocolError(ErrorCode.SIZE_INVALID, message, status=status, headers=headers))
    logger.info("client disconnected during %s %s", request.method, request.path)
    message = "the body is incomplete: send the request again"
    return to_response(ProtocolError(ErrorCode.SIZE_INVALID, message))


def _find(request: Request) -> Route:
    """Check the request line and the headers, and find the route.

    Raises:
        ProtocolError: the server has rejected the request, the target or the headers are too large, the
            transfer encoding is not supported, the Host header is missing or invalid, or no route matches the
            path.
    """
    rejection = rejection_of(request.scope)
    if rejection is not None:
        raise ProtocolError(ErrorCode.UNSUPPORTED, rejection.message, status=rejection.status)
    if request.target_size > _TARGET:
        message = f"path and query are longer than {_TARGET} bytes"
        raise ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.REQUEST_URI_TOO_LONG)
    if request.headers_size > _HEADERS:
        raise _headers_too_large()
    encodings = request.raw_values(b"transfer-encoding")
    if encodings and encodings[0].lower() != b"chunked":
        message = "the only transfer encoding that is supported is chunked"
        raise ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.NOT_IMPLEMENTED)
    found = route(request.path)
    if found is not None and found.kind is Kind.HEALTH:
        return found  # a load balancer checks it under any host name
    check_host(request)
    if found is None:
        raise _no_route(request.path)
    return found


def _too_many_connections() -> ProtocolError:
    return ProtocolError(
        ErrorCode.TOOMANYREQUESTS,
        TOO_MANY,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        headers={"Retry-After": "5", "Connection": "close"},
    )


def _headers_too_large() -> ProtocolError:
    message = f"the headers are too large; {_HEADERS} bytes at most are allowed"
    return ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def _no_route(path: str) -> ProtocolError:
    message = f"unknown path {shown(path)}: it is not a path of the OCI distribution API"
    return ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.NOT_FOUND)


def _not_allowed(method: str, endpoints: Mapping[str, Endpoint]) -> ProtocolError:
    allowed = ", ".join(sorted(endpoints))
    return ProtocolError(
        ErrorCode.UNSUPPORTED,
        f"{method} is not allowed on this path; allowed: {allowed}",
        headers={"Allow": allowed},
    )


def _read_only(endpoints: Mapping[str, Endpoint]) -> ProtocolError:
    """Build the error for a write to a read-only registry (OCI 145).

    It is not a 503: clients would retry for minutes, though only an administrator can end the read-only mode.
    """
    allowed = ", ".join(sorted(endpoints.keys() - _WRITES))
    return ProtocolError(
        ErrorCode.UNSUPPORTED,
        "this registry is read-only at present: pulls work, pushes and deletions do not; "
        "try again after its administrator has ended the read-only mode",
        headers={"Allow": allowed},
    )


async def _drained(request: Request) -> bool:
    """Read and drop the rest of the body; True if the body was read to its end.

    A body whose Content-Length exceeds the limit is not read: a client that reads the response early can stop
    sending. An error while reading is ignored, because the response is already decided.
    """
    if request.is_read or (content_length(request) or 0) > _DRAINED:
        return request.is_read
    try:
        anonymous = "authorization" not in request.headers
        async with asyncio.timeout(_ANONYMOUS_DRAIN_TIME if anonymous else _DRAIN_TIME):
            return await request.drain(_DRAINED)
    except (TimeoutError, ClientDisconnect):
        return False
