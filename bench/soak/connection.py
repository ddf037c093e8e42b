"""A client's connection, which can be cut in the middle of a request or a response."""

import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Final

_PIECE: Final = 16 * 1024
LOST: Final = (OSError, HTTPException)
"""The exceptions of a request without a complete response."""


class Cut(OSError):
    """This client has closed the connection itself."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    call: str  # method and path
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Connects when necessary, and again after every loss."""

    def __init__(self, host: str, secret: str, chance: random.Random, *, cuts: float) -> None:
        """`cuts` is the share of requests that are cut, from 0 to 1."""
        self._connection = HTTPConnection(host, timeout=60)
        self._authorization = "Basic " + b64encode(f"soak:{secret}".encode()).decode()
        self._chance = chance
        self._cuts = cuts

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        """Send a request and read its response.

        Raises:
            LOST: there was no complete response; the request may or may not have been processed.
        """
        cut = self._chance.random() < self._cuts
        sent = {"Authorization": self._authorization, "Content-Length": str(len(body))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._connection.request(method, path, self._pieces(body, cut=cut) if body else None, sent)
            if cut and not body:
                raise Cut
            received = self._connection.getresponse()
            content = received.read(_PIECE if cut else None)
            if cut:
                raise Cut
        except BaseException:
            self._connection.close()
            raise
        header_fields = {name.lower(): value for name, value in received.getheaders()}
        return Response(f"{method} {path}", received.status, header_fields, content)

    def _pieces(self, body: bytes, *, cut: bool) -> Iterator[bytes]:
        stop = self._chance.randrange(len(body)) if cut else len(body)
        stop = 0 if stop == 1 else stop  # An offset of one byte cannot be told from an empty upload.
        for start in range(0, stop, _PIECE):
            yield body[start : min(start + _PIECE, stop)]
        # Half of the cuts come after the last byte, so that the request is processed and its response lost.
        if cut and self._chance.random() < 0.5:
            raise Cut
        yield body[stop:]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
