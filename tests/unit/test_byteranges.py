"""Bodies of multipart/byteranges responses."""

import os
from collections.abc import Iterator

from registry_data.http.byteranges import ByteRanges
from registry_data.oci.ranges import ByteRange

CONTENT = os.urandom(300_000)


def read(part: ByteRange) -> Iterator[bytes]:
    """Read a range in pieces, as a storage driver does."""
    for start in range(part.start, part.stop, 100_000):
        yield CONTENT[start : min(start + 100_000, part.stop)]


def test_a_thousand_small_parts_are_combined_into_few_pieces() -> None:
    ranges = ByteRanges([ByteRange(start, start + 1) for start in range(0, 2048, 2)], len(CONTENT))
    pieces = list(ranges.pieces(read))
    assert len(pieces) == 2
    assert sum(map(len, pieces)) == ranges.length


def test_large_parts_are_sent_in_the_pieces_that_are_read() -> None:
    ranges = ByteRanges([ByteRange(0, 200_000), ByteRange(250_000, 300_000)], len(CONTENT))
    pieces = list(ranges.pieces(read))
    body = b"".join(pieces)
    assert len(body) == ranges.length
    assert CONTENT[:200_000] in body
    assert CONTENT[250_000:] in body
    assert max(map(len, pieces)) < 110_000
