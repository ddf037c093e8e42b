from http import HTTPStatus

import pytest

from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.ranges import RANGE_LIMIT, ByteRange, parse_content_range, parse_range, parse_ranges


@pytest.mark.oci(42)
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=2047-2047", 2047, 2048),
        ("bytes=-48", 2000, 2048),
        ("bytes=-5000", 0, 2048),
        ("bytes=0-", 0, 2048),
        (f"bytes=0-{'9' * 18}", 0, 2048),
        ("BYTES= 1-2 ", 1, 3),
    ],
)
def test_a_range_is_limited_to_the_blob(header: str, start: int, stop: int) -> None:
    assert parse_range(header, 2048) == ByteRange(start, stop)


def test_a_range_has_a_length_and_a_content_range_header() -> None:
    part = ByteRange(2000, 2048)
    assert part.length == 48
    assert part.content_range(2048) == "bytes 2000-2047/2048"


@pytest.mark.oci(43)
@pytest.mark.parametrize(
    "header", ["bytes=2048-", "bytes=5000-10000", "bytes=500-0", "bytes=-0", f"bytes={'9' * 18}-"]
)
def test_a_range_beyond_the_end_is_416_with_the_size(header: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_range(header, 2048)
    assert raised.value.code is ErrorCode.RANGE_INVALID
    assert raised.value.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    assert raised.value.headers == {"Content-Range": "bytes */2048"}
    assert "2048 bytes" in raised.value.message


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=٣-٣",
        "bytes=0-9,20-29",
        "lines=0-9",
        "0-9",
        f"bytes={'9' * 5000}-",
    ],
)
def test_other_range_headers_are_ignored(header: str | None) -> None:
    assert parse_range(header, 2048) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-", None])
def test_ranges_of_an_empty_blob_are_ignored(header: str | None) -> None:
    assert parse_range(header, 0) is None


@pytest.mark.oci(63)
@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("0-99", 0, 99),
        ("0-0", 0, 0),
        ("100-199", 100, 199),
        ("bytes 0-99/200", 0, 99),
        ("bytes 0-99/*", 0, 99),
        ("bytes=0-99", 0, 99),
        ("Bytes=5-6", 5, 6),
        ("0-99/200", 0, 99),
    ],
)
def test_content_range_is_parsed_in_all_forms_that_clients_send(header: str, first: int, last: int) -> None:
    assert parse_content_range(header) == (first, last)


@pytest.mark.parametrize(
    "header",
    ["", "0", "-", "0-", "-9", "a-b", "0-9-10", "bytes", "bytes */200", "٣-٣", "0-9,10-19", "9" * 5000],
)
def test_a_malformed_content_range_is_400_with_the_correct_form(header: str) -> None:
    with pytest.raises(ProtocolError, match="write it as <first byte>-<last byte>") as raised:
        parse_content_range(header)
    assert raised.value.code is ErrorCode.RANGE_INVALID
    assert raised.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.oci(67)
def test_a_content_range_that_ends_before_it_begins_is_416() -> None:
    with pytest.raises(ProtocolError, match="ends before it begins") as raised:
        parse_content_range("10-9")
    assert raised.value.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


def test_too_many_ranges_are_ignored_without_parsing_each() -> None:
    assert parse_ranges("bytes=" + ",".join(["0-0"] * RANGE_LIMIT), 10) == (ByteRange(0, 1),)
    assert parse_ranges("bytes=" + ",".join(["0-0"] * (RANGE_LIMIT + 1)), 10) == ()
    assert parse_ranges("bytes=0-0" + "," * 3 * RANGE_LIMIT, 10) == ()
