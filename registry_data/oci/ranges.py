"""Byte ranges: of a blob to be read (checklist 42-45), and of an upload's piece (checklist 61-67)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from typing import Final

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

_LONGEST_UNIT: Final = 16  # characters: there is none but bytes
RANGE_LIMIT: Final = 1024  # ranges of one request; pullers of parts of a layer ask for a few hundred

# More than any size there is: some say "to the end" by the largest number they know.
_NUMBER: Final = "[0-9]{1,40}"
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


def parse_ranges(header: str | None, size: int) -> tuple[ByteRange, ...]:
    """Read a Range header for a blob of `size` bytes; nothing means to send the whole blob with a 200.

    Several ranges come in the order asked for, those without a byte left out. Overlapping ones are made one,
    in the order of the blob, so that no request gets more than the blob has; what asks for more than
    RANGE_LIMIT, or holds one that is malformed, gets the whole blob (RFC 9110, section 14.2). Raises
    RANGE_INVALID when no range holds a byte.
    """
    if not header or "," not in header or not size:
        part = parse_range(header, size)
        return () if part is None else (part,)
    unit, _, listed = header.partition("=")
    if listed.count(",") > 2 * RANGE_LIMIT or len(unit) > _LONGEST_UNIT:
        return ()
    # An element of a list may be empty (RFC 9110, section 5.6.1).
    matches = [_RANGE.fullmatch(f"{unit}={text}") for text in listed.split(",") if text.strip()]
    found = [match for match in matches if match is not None]
    if not found or len(found) != len(matches) or len(found) > RANGE_LIMIT:
        return ()
    parts = [part for match in found if (part := _part(match, size)) is not None]
    if not parts:
        raise _refusal(header, size)
    return _apart(parts)


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
    part = _part(match, size)
    if part is None:
        raise _refusal(match.string, size)
    return part


def _part(match: re.Match[str], size: int) -> ByteRange | None:
    """The bytes that one range of a blob holds, None when that is none."""
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    return ByteRange(start, stop) if start < stop else None


def _refusal(header: str, size: int) -> ProtocolError:
    return ProtocolError(
        ErrorCode.RANGE_INVALID,
        f"range {shown(header)} holds no byte of a blob of {size} bytes",
        headers={"Content-Range": f"bytes */{size}"},
    )


def _apart(parts: Sequence[ByteRange]) -> tuple[ByteRange, ...]:
    """The same bytes without overlaps; without any, the parts as they are."""
    ordered = sorted(parts, key=lambda part: part.start)
    if all(before.stop <= after.start for before, after in pairwise(ordered)):
        return tuple(parts)
    merged = [ordered[0]]
    for part in ordered[1:]:
        last = merged[-1]
        if part.start < last.stop:
            merged[-1] = ByteRange(last.start, max(last.stop, part.stop))
        else:
            merged.append(part)
    return tuple(merged)


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
