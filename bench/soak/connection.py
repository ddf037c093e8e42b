"""One client's connection, which may be cut in the middle of what it sends or receives."""

import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Final

_PIECE: Final = 16 * 1024
LOST: Final = (OSError, HTTPException)
"""How a request ends that got no answer."""


class Cut(OSError):
    """We have closed the connection ourselves."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    call: str  # method and path
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Connects when it must, and anew after every loss."""

    def __init__(self, host: str, secret: str, chance: random.Random, *, cuts: float) -> None:
        """`cuts` is the share of requests that are cut, from 0 to 1."""
        self._connection = HTTPConnection(host, timeout=60)
        self._authorization = "Basic " + b64encode(f"soak:{secret}".encode()).decode()
        self._chance = chance
        self._cuts = cuts

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send a request and read its answer.

        Raises:
            LOST: there was no whole answer; what the registry has done is not known.
        """
        cut = self._chance.random() < self._cuts
        sent = {"Authorization": self._authorization, "Content-Length": str(len(body))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._connection.request(method, path, self._pieces(body, cut=cut) if body else None, sent)
            if cut and not body:
                raise Cut
            answer = self._connection.getresponse()
            content = answer.read(_PIECE if cut else None)
            if cut:
                raise Cut
        except BaseException:
            self._connection.close()
            raise
        received = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(f"{method} {path}", answer.status, received, content)

    def _pieces(self, body: bytes, *, cut: bool) -> Iterator[bytes]:
        stop = self._chance.randrange(len(body)) if cut else len(body)
        stop = 0 if stop == 1 else stop  # One byte is what a status answer cannot tell from none.
        for start in range(0, stop, _PIECE):
            yield body[start : min(start + _PIECE, stop)]
        # Half of the cuts come when all is sent, so that the work is done and its answer is lost.
        if cut and self._chance.random() < 0.5:
            raise Cut
        yield body[stop:]

    def close(self) -> None:
        """Close it."""
        self._connection.close()
