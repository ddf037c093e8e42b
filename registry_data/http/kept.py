"""The short way of a pull: an answer is given again while nothing that it depends on has changed.

What is kept is the whole answer to one request: method, path, query and Authorization header. It is good
for one state of the database (registry_data.freshness), so a privacy change, a revoked key or a moved tag
acts on the very next request; and for a second, because keys, tokens and leases also end by themselves.
"""

import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from starlette.types import Message, Scope

from registry_data.freshness import Stamp
from registry_data.http.wire import Answer

Key: TypeAlias = tuple[str, str, bytes, bytes]

LIFE: Final = 1.0  # seconds, the most that a fact may be old (invariant 5)
LARGEST: Final = 64 * 1024  # bytes of a body that is kept
_CAPACITY: Final = 32 * 1024 * 1024  # bytes
_OVERHEAD: Final = 2048  # bytes of a kept answer without its body, about

# Whoever sends one of these wants a part, or an answer that depends on what they have.
_CONDITIONS: Final = frozenset(
    (b"range", b"if-range", b"if-none-match", b"if-match", b"if-modified-since", b"if-unmodified-since")
)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as the server wants it."""

    start: Message
    body: Message
    until: float  # on the monotonic clock


def key_of(scope: Scope) -> Key | None:
    """What an answer depends on besides the database; None when it must be made for this request alone."""
    method: str = scope["method"]
    if method not in ("GET", "HEAD"):
        return None
    authorization = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            if authorization:
                return None
            authorization = value
        elif name in _CONDITIONS:
            return None
    return method, scope["path"], scope["query_string"], authorization


class KeptAnswers:
    """Answers of one state of the database; those of the state before go all at once."""

    def __init__(self) -> None:
        self._stamp: Stamp | None = None
        self._kept: dict[Key, Kept] = {}
        self._left = _CAPACITY

    def get(self, key: Key, stamp: Stamp | None) -> Kept | None:
        """The answer kept for a request in this state of the database."""
        if stamp is None or stamp != self._stamp:
            self._clear(stamp)
            return None
        kept = self._kept.get(key)
        return kept if kept is not None and kept.until > time.monotonic() else None

    def put(self, key: Key, stamp: Stamp | None, answer: Answer) -> None:
        """Keep an answer that was made after the stamp was taken, if it may be given again."""
        if (
            stamp is None
            or stamp != self._stamp
            or not answer.repeatable
            or not isinstance(answer.body, bytes)
        ):
            return
        body = b"" if key[0] == "HEAD" else answer.body
        if len(body) > LARGEST:
            return
        if self._left < _OVERHEAD + len(body):
            self._clear(stamp)
        if key not in self._kept:
            self._left -= _OVERHEAD + len(body)
        self._kept[key] = Kept(
            start={"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers()},
            body={"type": "http.response.body", "body": body},
            until=time.monotonic() + LIFE,
        )

    def _clear(self, stamp: Stamp | None) -> None:
        self._kept.clear()
        self._left = _CAPACITY
        self._stamp = stamp
