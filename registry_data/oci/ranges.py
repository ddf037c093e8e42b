"""Byte ranges: Range headers of blob downloads (OCI 42-45), Content-Range headers of uploads (OCI 61-67)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from typing import Final

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

_LONGEST_UNIT: Final = 16  # characters; the only unit is bytes
RANGE_LIMIT: Final = 1024  # ranges of one request; clients that pull parts of a layer request a few hundred

# More digits than any size has: some clients request up to the largest number instead of up to the end.
_NUMBER: Final = "[0-9]{1,40}"
_RANGE: Final = re.compile(rf"bytes=\s*(?:({_NUMBER})-({_NUMBER})?|-({_NUMBER}))\s*", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(
    rf"(?:bytes[ =])?\s*({_NUMBER})-({_NUMBER})(?:/(?:{_NUMBER}|\*))?\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes of a blob from `start` (inclusive) to `stop` (exclusive); never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Return the Content-Range header of a 206 response for a blob of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_ranges(header: str | None, size: int) -> tuple[ByteRange, ...]:
    """Parse a Range header for a blob of `size` bytes; empty means to send the whole blob with 200.

    Several ranges are returned in the requested order, without those beyond the end. Overlapping ranges are
    merged, in the order of the blob, so that no response is longer than the blob. If there are more than
    RANGE_LIMIT ranges, or a malformed one, the header is ignored (RFC 9110, section 14.2). Raises
    RANGE_INVALID if all ranges are beyond the end.
    """
    if not header or "," not in header or not size:
        part = parse_range(header, size)
        return () if part is None else (part,)
    unit, _, listed = header.partition("=")
    if listed.count(",") > 2 * RANGE_LIMIT or len(unit) > _LONGEST_UNIT:
        return ()
    # Elements of a list may be empty (RFC 9110, section 5.6.1).
    matches = [_RANGE.fullmatch(f"{unit}={text}") for text in listed.split(",") if text.strip()]
    found = [match for match in matches if match is not None]
    if not found or len(found) != len(matches) or len(found) > RANGE_LIMIT:
        return ()
    parts = [part for match in found if (part := _part(match, size)) is not None]
    if not parts:
        raise _refusal(header, size)
    return _apart(parts)


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Parse a Range header with one range for a blob of `size` bytes; None means to send the whole blob.

    None is the result for no header, another unit, several ranges and a malformed range: a server may ignore
    what it does not support (RFC 9110, section 14.2). An empty blob is always sent whole, because the
    Content-Range of a 206 cannot be empty. Raises RANGE_INVALID (416, with Content-Range) for a range that
    begins at or after the end, and for one whose last byte is before its first.
    """
    match = _RANGE.fullmatch(header) if header and size else None
    if match is None:
        return None
    part = _part(match, size)
    if part is None:
        raise _refusal(match.string, size)
    return part


def _part(match: re.Match[str], size: int) -> ByteRange | None:
    """The part of a blob that a range selects, None if it is beyond the end."""
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    return ByteRange(start, stop) if start < stop else None


def _refusal(header: str, size: int) -> ProtocolError:
    return ProtocolError(
        ErrorCode.RANGE_INVALID,
        f"range {shown(header)} selects no byte of a blob of {size} bytes",
        headers={"Content-Range": f"bytes */{size}"},
    )


def _apart(parts: Sequence[ByteRange]) -> tuple[ByteRange, ...]:
    """Merge overlapping parts; if none overlap, return the parts unchanged."""
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
    """Parse the Content-Range of a chunk of an upload: its first and last byte, both inclusive.

    The form of the specification is `0-99`; clients send `bytes 0-99/200` and `bytes=0-99` as well (OCI 63).
    The total is ignored. Raises RANGE_INVALID: 416 if the last byte is before the first (OCI 67), 400 if
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
