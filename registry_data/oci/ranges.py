"""Byte ranges: of a blob to be read (checklist 42-45), and of an upload's piece (checklist 61-67)."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

# 18 digits say any size there is, and int() never meets more than it converts.
_NUMBER: Final = "[0-9]{1,18}"
_RANGE: Final = re.compile(rf"bytes=\s*(?:({_NUMBER})-({_NUMBER})?|-({_NUMBER}))\s*", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(
    rf"(?:bytes[ =])?\s*({_NUMBER})-({_NUMBER})(?:/(?:{_NUMBER}|\*))?\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of a blob, from `start` up to but not including `stop`. Never empty, never beyond the end."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Write the Content-Range header of a 206 for a blob of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Read a Range header for a blob of `size` bytes; None means to send the whole blob with a 200.

    That is the answer to no header, another unit, several ranges, and one that is malformed: a server may
    ignore what it does not understand (RFC 9110, section 14.2). An empty blob is whole in any range, because
    no 206 can say "nothing". Raises RANGE_INVALID (416, with Content-Range) for a range that begins at or
    after the end, and for one whose last byte is before its first.
    """
    match = _RANGE.fullmatch(header) if header and size else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    if start >= stop:
        raise ProtocolError(
            ErrorCode.RANGE_INVALID,
            f"range {shown(match.string)} holds no byte of a blob of {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return ByteRange(start, stop)


def parse_content_range(header: str) -> tuple[int, int]:
    """Read the Content-Range of an upload's piece: its first and its last byte, both inclusive.

    The spec's form is `0-99`; `bytes 0-99/200` and `bytes=0-99` are sent as well (checklist 63); a total is
    not looked at. Raises RANGE_INVALID: 416 when the last byte is before the first (checklist 67), 400 when
    malformed.
    """
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        raise ProtocolError(
            ErrorCode.RANGE_INVALID,
            f"Content-Range {shown(header)} is malformed; write it as <first byte>-<last byte>",
            status=HTTPStatus.BAD_REQUEST,
        )
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise ProtocolError(
            ErrorCode.RANGE_INVALID,
            f"Content-Range {shown(header)} ends before it begins; both bytes are inclusive",
        )
    return first, last
