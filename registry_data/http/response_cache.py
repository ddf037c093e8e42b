"""Response cache for small GET and HEAD responses, each valid until a scope that it depends on changes.

The key is method, path, query and Authorization header. A change of visibility, a deleted key or a moved tag
evicts a response before the next request (invariant 5, ADR 43). It also expires with the key or token.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias

from starlette.types import Scope

from registry_data.http.hosts import is_host
from registry_data.http.messages import Request, Response
from registry_data.http.routes import Route
from registry_data.registry.pulls import Pull
from registry_data.scoped_cache import ChangeTracker, ScopedCache

Key: TypeAlias = tuple[str, str, bytes, bytes]

LARGEST: Final = 64 * 1024  # bytes of a body that is cached
_CAPACITY: Final = 32 * 1024 * 1024  # bytes
_OVERHEAD: Final = 2048  # bytes, approximate size of a cached response without its body

# With one of these headers, a response is partial or depends on the content that the client has.
_CONDITIONS: Final = frozenset(
    (b"range", b"if-range", b"if-none-match", b"if-match", b"if-modified-since", b"if-unmodified-since")
)


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response, with what the access log, rate limits and last-pulled times need."""

    status: int
    headers: list[tuple[bytes, bytes]]
    head: bytes  # the status line and the headers, as they are sent
    body: bytes
    expires_at: float  # seconds since the epoch
    route: Route
    principal: str  # empty for an anonymous caller
    pull: Pull | None


def key_of(scope: Scope, headers: Mapping[bytes, bytes]) -> Key | None:
    """The part of a request on which its response depends; None if the response cannot be cached.

    A request without exactly one valid Host header has no key: it is rejected, or uses HTTP/1.0. `headers`
    are the first values of the request's headers.
    """
    method: str = scope["method"]
    if method not in ("GET", "HEAD") or not _CONDITIONS.isdisjoint(headers):
        return None
    if len(headers) != len(scope["headers"]) and _is_ambiguous(scope["headers"]):
        return None
    host = headers.get(b"host")
    if not host or not is_host(host):
        return None
    return method, scope["path"], scope["query_string"], headers.get(b"authorization", b"")


def _is_ambiguous(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a header is repeated that may occur only once, even if it is empty."""
    names = [name for name, _ in headers]
    return names.count(b"authorization") > 1 or names.count(b"host") > 1


class ResponseCache:
    """Responses that are valid in the current version of the database."""

    def __init__(self, tracker: ChangeTracker) -> None:
        self._cache: ScopedCache[Key, CachedResponse] = ScopedCache(tracker, _CAPACITY)

    def get(self, key: Key) -> CachedResponse | None:
        """The cached response. The caller must have applied the change log."""
        cached = self._cache.get(key)
        return cached if cached is not None and cached.expires_at > time.time() else None

    def put(self, key: Key, request: Request, response: Response) -> None:
        """Cache a response if it is small, cacheable, and has known dependencies."""
        dependencies, body = request.dependencies, response.body
        if not response.cacheable_until or not isinstance(body, bytes) or request.route is None:
            return
        if request.method == "HEAD":
            body = b""
        # Without scopes, the response was not created by a use case that declares its dependencies.
        if len(body) > LARGEST or not dependencies.is_cacheable or not dependencies.scopes:
            return
        assert dependencies.version is not None  # noqa: S101 - it would not be cacheable
        headers = response.raw_headers()
        cached = CachedResponse(
            status=response.status,
            headers=headers,
            head=_head(response.status, headers),
            body=body,
            expires_at=response.cacheable_until,
            route=request.route,
            principal=request.context.principal,
            pull=request.pull,
        )
        self._cache.put(
            key,
            cached,
            since=dependencies.version,
            scopes=dependencies.scopes,
            size=_OVERHEAD + sum(map(len, key)) + len(body),
        )


def _head(status: HTTPStatus, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b"%b: %b" % header for header in headers)]
    return b"".join(line + b"\r\n" for line in lines)
