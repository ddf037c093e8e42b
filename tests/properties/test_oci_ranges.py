"""Any requested range selects existing bytes only."""

import re
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from registry_data.oci.errors import ProtocolError
from registry_data.oci.ranges import parse_content_range, parse_range, parse_ranges
from tests.properties.outcome import outcome

numbers = st.integers(0, 300) | st.integers(0, 10**20)
sizes = st.integers(0, 300) | st.integers(0, 2**63 - 1)
headers = (
    st.tuples(numbers, numbers).map(lambda pair: f"bytes={pair[0]}-{pair[1]}")
    | numbers.map(lambda first: f"bytes={first}-")
    | numbers.map(lambda length: f"bytes=-{length}")
    | st.text("bytes=-, 0123456789", max_size=24)
    | st.text()
)


@given(headers, sizes)
@example("bytes=-1", 1)
@example("bytes=0-0", 1)
def test_a_range_is_within_the_blob_and_not_empty(header: str, size: int) -> None:
    part = outcome(parse_range, header, size)
    if isinstance(part, ProtocolError):
        assert part.headers == {"Content-Range": f"bytes */{size}"}
    elif part is not None:
        assert 0 <= part.start < part.stop <= size
        assert part.length == part.stop - part.start
        assert part.content_range(size) == f"bytes {part.start}-{part.start + part.length - 1}/{size}"


lists = st.lists(headers.map(lambda header: header.removeprefix("bytes=")), min_size=1, max_size=6).map(
    lambda elements: "bytes=" + ",".join(elements)
)


@given(lists, sizes)
@example("bytes=0-9,,20-29 , -1", 100)
@example("bytes=5-2,9-", 3)
def test_several_ranges_are_within_the_blob_and_do_not_overlap(header: str, size: int) -> None:
    parts = outcome(parse_ranges, header, size)
    if isinstance(parts, ProtocolError):
        assert parts.headers == {"Content-Range": f"bytes */{size}"}
        return
    ordered = sorted(parts, key=lambda part: part.start)
    assert all(0 <= part.start < part.stop <= size for part in ordered)
    assert all(before.stop <= after.start for before, after in pairwise(ordered))


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), min_size=2, max_size=8))
def test_several_ranges_contain_exactly_the_requested_bytes(pairs: list[tuple[int, int]]) -> None:
    size, content = 100, range(100)
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in pairs)
    wanted = {byte for first, last in pairs for byte in content[first : last + 1]}
    parts = outcome(parse_ranges, header, size)
    if isinstance(parts, ProtocolError):
        assert not wanted
    else:
        assert {byte for part in parts for byte in content[part.start : part.stop]} == wanted
        assert sum(part.length for part in parts) == len(wanted)


@given(st.data(), st.integers(1, 10_000))
def test_a_range_inside_the_blob_is_parsed_exactly_in_all_three_forms(data: st.DataObject, size: int) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    content = range(size)

    for header, wanted in (
        (f"bytes={first}-{last}", content[first : last + 1]),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last + 1}", content[-(last + 1) :]),
    ):
        part = parse_range(header, size)
        assert part is not None
        assert content[part.start : part.stop] == wanted


@given(numbers, numbers, st.sampled_from(["{}-{}", "bytes {}-{}/*", "bytes={}-{}", "bytes {}-{}/7"]))
def test_a_content_range_is_parsed_in_every_form_or_rejected(first: int, last: int, form: str) -> None:
    parsed = outcome(parse_content_range, form.format(first, last))
    refused = first > last or last >= 10**18
    assert refused if isinstance(parsed, ProtocolError) else parsed == (first, last)


@given(st.text() | st.text("bytes=-/* 0123456789", max_size=24))
def test_any_text_is_accepted_as_a_content_range_or_rejected(header: str) -> None:
    parsed = outcome(parse_content_range, header)
    if isinstance(parsed, ProtocolError):
        assert parsed.status in {400, 416}
    else:
        first, last = parsed
        assert first <= last
        assert re.search(rf"0*{first}-0*{last}", header)
