"""Requests and responses of the data plane: thin values over ASGI, with Starlette's parsers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from registry_data.scoped_cache import Dependencies

if TYPE_CHECKING:
    from registry_data.http.routes import Route
    from registry_data.registry.pulls import Pull

# On every response (OCI 11); old container engines require it.
API_VERSION: Final = (b"docker-distribution-api-version", b"registry/2.0")
# Also on every response: a browser must not interpret pushed content as a page or a script.
NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")


_MOST_PARTS: Final = 1000  # in one piece of a body
_MOST_DIGITS: Final = 20  # of a Content-Length


class RequestContext(Protocol):
    """The request as the layers below see it (`registry_control.common.request_context`)."""

    request_id: str
    principal: str  # empty while unknown and for anonymous callers


class Idle(ClientDisconnect):
    """The client is still connected, but no part of the body arrived within the idle timeout."""


@dataclass(frozen=True, slots=True)
class Response:
    """A status, headers in lower case, and a body: bytes, or pieces read in a thread.

    Content-Length is computed from a body of bytes unless it is among the headers, where HEAD and pieces
    need it. The response may be cached until `cacheable_until`, in seconds since the epoch, and while no
    scope that it depends on changes; 0 means not at all.
    """

    status: HTTPStatus
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    cacheable_until: float = 0.0

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI requires them."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        raw += (API_VERSION, NO_SNIFF)
        if "content-length" not in self.headers and isinstance(self.body, bytes) and self._may_have_length:
            raw.append((b"content-length", b"%d" % len(self.body)))
        return raw

    @property
    def _may_have_length(self) -> bool:
        return self.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Request:
    """One request. Headers and query are parsed on first access."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        *,
        idle_time: float,
        context: RequestContext,
        version: int | None = None,
    ) -> None:
        """Wrap an ASGI scope.

        `idle_time` is the timeout for the next part of the body, in seconds; `version` is the version of the
        change log when the request arrived, None if unknown.
        """
        self.scope = scope
        self._receive = receive
        self._idle_time = idle_time
        self._receiving: asyncio.Task[None] | None = None
        self._is_buffering = self._disconnected = False
        self._parts: list[bytes] = []
        self._query: QueryParams | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.context = context
        self.dependencies = Dependencies(version)
        self.route: Route | None = None  # None before routing
        self.pull: Pull | None = None  # set if the response counts as a pull of a manifest
        self._headers: Headers | None = None
        # No endpoint uses the body of a GET or HEAD request, so their headers are not examined.
        self._ended = self.method not in ("GET", "HEAD") and self._has_no_body()

    @property
    def headers(self) -> Headers:
        """The headers."""
        if self._headers is None:
            self._headers = Headers(scope=self.scope)
        return self._headers

    def raw_values(self, name: bytes) -> list[bytes]:
        """The values of a header that every request needs, for a fraction of the cost of `headers`."""
        return [value for each, value in self.scope["headers"] if each == name]

    @property
    def headers_size(self) -> int:
        """The length of the names and values of all headers in bytes."""
        size = 0
        for name, value in self.scope["headers"]:
            size += len(name) + len(value)
        return size

    @property
    def query(self) -> QueryParams:
        """The query, decoded; unknown parameters are ignored (OCI 7)."""
        if self._query is None:
            self._query = QueryParams(self.scope.get("query_string", b""))
        return self._query

    @property
    def target_size(self) -> int:
        """The length of path and query in bytes."""
        return len(self.scope.get("raw_path") or self.path.encode()) + len(
            self.scope.get("query_string", b"")
        )

    @property
    def http_version(self) -> str:
        """The HTTP version, for example 1.1."""
        return str(self.scope["http_version"])

    @property
    def scheme(self) -> str:
        """The scheme of the client's URL: http or https."""
        return str(self.scope["scheme"])

    @property
    def client_address(self) -> str:
        """The client's address, also behind a trusted proxy (registry_data.proxies)."""
        return client_address(self.scope)

    @property
    def is_read(self) -> bool:
        """Whether all of the body has been read."""
        return self._ended

    def _has_no_body(self) -> bool:
        if "transfer-encoding" in self.headers:
            return False
        if "content-length" in self.headers:
            return content_length(self) == 0
        # An HTTP/1 request without both headers has no body (RFC 9112, 6.3); HTTP/2 needs neither header.
        return self.http_version.startswith("1")

    async def body(self) -> AsyncIterator[bytes]:
        """The parts of the body as they arrive.

        Raises:
            ClientDisconnect: the client disconnected before the end of the body.
            Idle: no part arrived within the idle timeout.
        """
        while True:
            while self._parts:
                yield self._parts.pop(0)
            if self._disconnected:
                raise ClientDisconnect
            if self._ended:
                return
            await self._wait_for_part()

    async def _wait_for_part(self) -> None:
        """Wait for the next part until the idle timeout."""
        receiving, self._receiving = self._receiving, None
        try:
            async with asyncio.timeout(self._idle_time):
                await (receiving or self._receive_part())
        except TimeoutError:
            self._ended = True
            raise Idle from None

    async def _receive_part(self) -> None:
        message = await self._receive()
        self._disconnected = message["type"] == "http.disconnect"
        self._ended = self._disconnected or not message.get("more_body", False)
        if part := message.get("body", b""):
            self._parts.append(part)

    async def body_at_once(self, size: int, wait_time: float) -> bytes | None:
        """The whole body if it is small and arrives soon, otherwise None.

        Small means a Content-Length of at most `size`, soon means within `wait_time` seconds. After None,
        body() begins with the parts that have arrived.
        """
        length = content_length(self)
        if length is None or length > size or "transfer-encoding" in self.headers:
            return None
        if not self._ended and not await self._buffer(wait_time):
            return None
        parts, self._parts = self._parts, []
        return b"".join(parts)

    async def _buffer(self, wait_time: float) -> bool:
        """Buffer parts until the end of the body or for `wait_time` seconds; True if the body is complete."""
        self._is_buffering = True
        # The task is not cancelled after that: it could lose a part that arrives at that moment.
        self._receiving = asyncio.ensure_future(self._receive_parts())
        await asyncio.wait((self._receiving,), timeout=wait_time)
        self._is_buffering = False
        if self._receiving.done():
            self._receiving = None
        return self._ended and not self._disconnected

    async def _receive_parts(self) -> None:
        while self._is_buffering and not self._ended:
            await self._receive_part()

    async def pieces(self, size: Callable[[], int]) -> AsyncIterator[bytes]:
        """The body in pieces of at least `size()` bytes; the last one may be shorter.

        A megabyte arrives in a dozen parts. As one piece it is hashed and written in one call each, so that a
        thread waits less often for Python's global lock. A piece has at most 1000 parts: the objects of many
        small parts need more memory than their bytes.

        Raises:
            ClientDisconnect: after the last part that arrived.
        """
        parts: list[bytes] = []
        length = 0
        try:
            async for part in self.body():
                parts.append(part)
                length += len(part)
                if length >= size() or len(parts) >= _MOST_PARTS:
                    piece, parts, length = b"".join(parts), [], 0
                    yield piece
        except ClientDisconnect:
            if parts:
                yield b"".join(parts)
            raise
        if parts:
            yield b"".join(parts)

    async def drain(self, limit: int) -> bool:
        """Read and drop up to `limit` bytes of the body, so that the client can read the response (OCI 4).

        Returns whether the end of the body was reached.
        """
        async for part in self.body():
            limit -= len(part)
            if limit < 0:
                return False
        return True


def first_values(scope: Scope) -> dict[bytes, bytes]:
    """The first value of each header: at once, for the few that every request needs."""
    return dict(reversed(scope["headers"]))


def client_address(scope: Scope) -> str:
    """The client's address; empty for a connection without one."""
    client: tuple[str, int] | None = scope.get("client")
    return client[0] if client else ""


def content_length(request: Request) -> int | None:
    """The value of Content-Length in bytes; None if it is missing or invalid."""
    value = request.headers.get("content-length", "")
    if not (value.isascii() and value.isdigit()):
        return None
    digits = value.lstrip("0")
    return int(digits or "0") if len(digits) <= _MOST_DIGITS else None
