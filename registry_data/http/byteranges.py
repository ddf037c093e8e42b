"""Responses with several ranges of a blob: multipart/byteranges (RFC 9110, section 14.6)."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from registry_data.oci.media_types import OCTET_STREAM
from registry_data.oci.ranges import ByteRange

# Bytes of a piece at least; a thousand parts of one byte are sent as one piece.
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ByteRanges:
    """The requested parts of a blob of `size` bytes, with the delimiters between them."""

    parts: Sequence[ByteRange]
    size: int
    boundary: str = field(
        default_factory=lambda: secrets.token_hex(16)
    )  # random, so that it cannot occur in the content

    @property
    def content_type(self) -> str:
        """The Content-Type of the response."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The Content-Length of the response."""
        return sum(len(self._head(part)) + part.length for part in self.parts) + len(self._tail)

    def pieces(self, read: Callable[[ByteRange], Iterator[bytes]]) -> Iterator[bytes]:
        """Return the body; one part is open at a time.

        The first part is opened by this call, so that an error is raised before the response has begun.
        """
        return _coalesce(self._from(read(self.parts[0]), read))

    def _from(self, first: Iterator[bytes], read: Callable[[ByteRange], Iterator[bytes]]) -> Iterator[bytes]:
        yield self._head(self.parts[0])
        yield from first
        for part in self.parts[1:]:
            yield self._head(part)
            yield from read(part)
        yield self._tail

    def _head(self, part: ByteRange) -> bytes:
        return (
            f"\r\n--{self.boundary}\r\nContent-Type: {OCTET_STREAM}\r\n"
            f"Content-Range: {part.content_range(self.size)}\r\n\r\n"
        ).encode()

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()


def _coalesce(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces to larger ones."""
    buffer = bytearray()
    for piece in pieces:
        if buffer or len(piece) < _PIECE:
            buffer += piece
        else:
            yield piece
        if len(buffer) >= _PIECE:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
