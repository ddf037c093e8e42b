"""Several ranges of one blob in one answer: multipart/byteranges (RFC 9110, section 14.6)."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from registry_data.oci.media_types import OCTET_STREAM
from registry_data.oci.ranges import ByteRange

# Bytes that are worth being sent by themselves: a thousand parts of one byte are not.
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ByteRanges:
    """The parts of a blob of `size` bytes, and what goes between them."""

    parts: Sequence[ByteRange]
    size: int
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))  # no content can know it

    @property
    def content_type(self) -> str:
        """The answer's Content-Type."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The answer's Content-Length."""
        return sum(len(self._head(part)) + part.length for part in self.parts) + len(self._tail)

    def pieces(self, read: Callable[[ByteRange], Iterator[bytes]]) -> Iterator[bytes]:
        """The answer's body, opening one part at a time; the first at the call, so that it fails there."""
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
    """The same bytes, small pieces made one."""
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
