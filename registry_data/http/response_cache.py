"""The short way of a pull: an answer is given again while nothing that it depends on has changed.

What is kept is the whole answer to one request: method, path, query and Authorization header. It is good
for one state of the database (registry_data.freshness), so a privacy change, a revoked key or a moved tag
acts on the very next request; and until the caller's key or token ends by itself.
"""

import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from starlette.types import Message, Scope

from registry_data.freshness import DatabaseVersion, VersionedCache
from registry_data.http.hosts import is_host
from registry_data.http.messages import Response

Key: TypeAlias = tuple[str, str, bytes, bytes]

LARGEST: Final = 64 * 1024  # bytes of a body that is kept
_CAPACITY: Final = 32 * 1024 * 1024  # bytes
_OVERHEAD: Final = 2048  # bytes of a kept answer without its body, about

# Whoever sends one of these wants a part, or an answer that depends on what they have.
_CONDITIONS: Final = frozenset(
    (b"range", b"if-range", b"if-none-match", b"if-match", b"if-modified-since", b"if-unmodified-since")
)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as the server wants it."""

    start: Message
    body: Message
    until: float  # seconds since the epoch


def key_of(scope: Scope) -> Key | None:
    """What an answer depends on besides the database; None when it must be made for this request alone.

    That is also so without one proper Host: what such a request gets is a refusal, or for HTTP/1.0 an answer.
    """
    method: str = scope["method"]
    if method not in ("GET", "HEAD"):
        return None
    authorization = host = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            if authorization:
                return None
            authorization = value
        elif name == b"host":
            if host or not is_host(value):
                return None
            host = value
        elif name in _CONDITIONS:
            return None
    if not host:
        return None
    return method, scope["path"], scope["query_string"], authorization


class ResponseCache:
    """Answers of one state of the database."""

    def __init__(self) -> None:
        self._kept: VersionedCache[Key, KeptAnswer] = VersionedCache(_CAPACITY)

    def get(self, key: Key, stamp: DatabaseVersion | None) -> KeptAnswer | None:
        """The answer kept for a request in this state of the database."""
        kept = self._kept.get(key, stamp)
        return kept if kept is not None and kept.until > time.time() else None

    def put(self, key: Key, stamp: DatabaseVersion | None, answer: Response) -> KeptAnswer | None:
        """Keep an answer that was made after the stamp was taken, unless that state has passed.

        Returns it in the form in which it is sent, or None if it may not be given again.
        """
        if not answer.cacheable_until or not isinstance(answer.body, bytes):
            return None
        body = b"" if key[0] == "HEAD" else answer.body
        if len(body) > LARGEST:
            return None
        kept = KeptAnswer(
            start={"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers()},
            body={"type": "http.response.body", "body": body},
            until=answer.cacheable_until,
        )
        asked = sum(map(len, key))
        self._kept.put(key, stamp, kept, _OVERHEAD + asked + len(body))
        return kept
