"""Requests and answers as this plane uses them: thin values over ASGI, with Starlette's parsers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from registry_data.scoped_cache import Dependencies

if TYPE_CHECKING:
    from registry_data.http.routes import Route

# On every answer (checklist 11); old engines look for it.
API_VERSION: Final = (b"docker-distribution-api-version", b"registry/2.0")
# Also on every response: a browser must not take pushed content for a page or a script.
NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")


_PARTS: Final = 1000  # that are gathered at most
_DIGITS: Final = 20  # of a length; the server takes none that has more


class RequestContext(Protocol):
    """The request as the layers below know it (`registry_control.common.request_context`)."""

    request_id: str
    principal: str  # empty while unknown and for anonymous callers


class Idle(ClientDisconnect):
    """The client is still there, but has stopped sending in the middle of a body."""


@dataclass(frozen=True, slots=True)
class FileBody:
    """A whole file that the server may send itself."""

    path: Path


@dataclass(frozen=True, slots=True)
class Response:
    """A status, headers in lower case, and a body: bytes, a file, or pieces read in a thread.

    Content-Length is the body's own unless given, as it is for HEAD and for pieces. Until `cacheable_until`,
    in seconds since the epoch, it may be sent again to the same request as long as no scope that it depends
    on changes.
    """

    status: HTTPStatus
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody | Iterator[bytes] = b""
    cacheable_until: float = 0.0

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI wants them."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        raw += (API_VERSION, NO_SNIFF)
        if "content-length" not in self.headers and isinstance(self.body, bytes) and self._may_have_length:
            raw.append((b"content-length", b"%d" % len(self.body)))
        return raw

    @property
    def _may_have_length(self) -> bool:
        return self.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Request:
    """One request. Headers and query are parsed when first asked for."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        *,
        idle_time: float,
        context: RequestContext,
        version: int | None = None,
    ) -> None:
        """`idle_time` is how long the next part of the body may take to come, in seconds.

        `version` is that of the change log when the request came; None if it is not known.
        """
        self._scope = scope
        self._receive = receive
        self._idle_time = idle_time
        self._ahead: asyncio.Task[None] | None = None
        self._gathers = self._gone = False
        self._parts: list[bytes] = []
        self._query: QueryParams | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.context = context
        self.dependencies = Dependencies(version)
        self.route: Route | None = None  # once it is known
        self.headers = Headers(scope=scope)
        # Reads have none that anybody looks at, so nobody asks.
        self._ended = self.method not in ("GET", "HEAD") and self._has_no_body()

    @property
    def query(self) -> QueryParams:
        """The query, decoded; unknown parameters are nobody's business (checklist 7)."""
        if self._query is None:
            self._query = QueryParams(self._scope.get("query_string", b""))
        return self._query

    @property
    def target_size(self) -> int:
        """The length of path and query in bytes."""
        return len(self._scope.get("raw_path") or self.path.encode()) + len(
            self._scope.get("query_string", b"")
        )

    @property
    def http_version(self) -> str:
        """Such as 1.1."""
        return str(self._scope["http_version"])

    @property
    def scheme(self) -> str:
        """Http or https, as the client used it."""
        return str(self._scope["scheme"])

    @property
    def client_address(self) -> str:
        """The client's address, also behind a trusted proxy (registry_data.proxies)."""
        client: tuple[str, int] | None = self._scope.get("client")
        return client[0] if client else ""

    @property
    def sends_paths(self) -> bool:
        """Whether the server can send a file by its path."""
        return "http.response.pathsend" in self._scope.get("extensions", {})

    @property
    def is_read(self) -> bool:
        """Whether all of the body has been read."""
        return self._ended

    def _has_no_body(self) -> bool:
        if "transfer-encoding" in self.headers:
            return False
        if "content-length" in self.headers:
            return content_length(self) == 0
        # Only HTTP/1 says of every body that there is one (RFC 9112, 6.3).
        return self.http_version.startswith("1")

    async def body(self) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            ClientDisconnect: the client went away before its end.
            Idle: it is there, but sends nothing more.
        """
        while True:
            while self._parts:
                yield self._parts.pop(0)
            if self._gone:
                raise ClientDisconnect
            if self._ended:
                return
            await self._more()

    async def _more(self) -> None:
        """Wait for the next part, as long as it may take."""
        coming, self._ahead = self._ahead, None
        try:
            async with asyncio.timeout(self._idle_time):
                await (coming or self._take())
        except TimeoutError:
            self._ended = True
            raise Idle from None

    async def _take(self) -> None:
        message = await self._receive()
        self._gone = message["type"] == "http.disconnect"
        self._ended = self._gone or not message.get("more_body", False)
        if part := message.get("body", b""):
            self._parts.append(part)

    async def body_at_once(self, size: int, patience: float) -> list[bytes] | None:
        """The whole body, if it is announced to be at most `size` bytes and here within `patience` seconds.

        None if not; what has come by then is the beginning of `body`.
        """
        length = content_length(self)
        if length is None or length > size or "transfer-encoding" in self.headers:
            return None
        if not self._ended and not await self._gathered(patience):
            return None
        parts, self._parts = self._parts, []
        return parts

    async def _gathered(self, patience: float) -> bool:
        """Take parts until the end or until patience is; whether that was the end."""
        self._gathers = True
        # A task that is left to itself: to cancel it would lose a part that comes just then.
        self._ahead = asyncio.ensure_future(self._gather())
        await asyncio.wait((self._ahead,), timeout=patience)
        self._gathers = False
        if self._ahead.done():
            self._ahead = None
        return self._ended and not self._gone

    async def _gather(self) -> None:
        while self._gathers and not self._ended:
            await self._take()

    async def pieces(self, size: Callable[[], int]) -> AsyncIterator[list[bytes]]:
        """The body's parts as they came, gathered to at least `size()` bytes, the last ones excepted.

        Parts of a few bytes, which take more memory than they hold, are not gathered that far.

        Raises:
            ClientDisconnect: after the last part that came.
        """
        gathered: list[bytes] = []
        length = 0
        try:
            async for part in self.body():
                gathered.append(part)
                length += len(part)
                if length >= size() or len(gathered) >= _PARTS:
                    yield gathered
                    gathered, length = [], 0
        except ClientDisconnect:
            if gathered:
                yield gathered
            raise
        if gathered:
            yield gathered

    async def gone(self) -> None:
        """Wait until the client has gone away."""
        while not self._gone:
            await self._take()
            self._parts.clear()

    async def drain(self, limit: int) -> bool:
        """Read and drop up to `limit` bytes of what is left, so that a refusal can be heard (4).

        Returns whether that was all.
        """
        async for part in self.body():
            limit -= len(part)
            if limit < 0:
                return False
        return True


def content_length(request: Request) -> int | None:
    """The announced length in bytes, None for a chunked body."""
    value = request.headers.get("content-length", "")
    if not (value.isascii() and value.isdigit()):
        return None
    digits = value.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS else None
