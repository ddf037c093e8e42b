from http import HTTPStatus

import pytest

from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.paging import Page, next_link, parse_page


@pytest.mark.parametrize(
    ("n", "length"),
    [
        (None, 1000),
        ("0", 0),
        ("1", 1),
        ("999", 999),
        ("1000", 1000),
        ("1001", 1000),
        ("0005", 5),
        ("0" * 5000, 0),
        (f"{'0' * 5000}7", 7),
        ("9" * 5000, 1000),
    ],
)
def test_a_page_has_the_requested_length_up_to_the_maximum(n: str | None, length: int) -> None:
    assert parse_page(n, None, maximum=1000) == Page(length, None)


@pytest.mark.oci(118)
@pytest.mark.parametrize(
    "n", ["", " ", " 1", "-1", "-0", "+1", "1e3", "1.0", "0x10", "1_000", "٣", "²", "abc", "1\n"]
)
def test_an_invalid_number_is_rejected(n: str) -> None:
    with pytest.raises(ProtocolError, match="must be an integer, 0 or more") as raised:
        parse_page(n, None, maximum=1000)
    assert raised.value.code is ErrorCode.PAGINATION_NUMBER_INVALID
    assert raised.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    ("last", "after"),
    [
        (None, None),
        ("", None),
        ("v1.0", "v1.0"),
        ("no tag/at all", "no tag/at all"),
        ("v1\0x", "v1"),
        ("\0", None),
    ],
)
def test_a_page_can_begin_after_any_text(last: str | None, after: str | None) -> None:
    assert parse_page(None, last, maximum=10).last == after


@pytest.mark.oci(120)
def test_the_link_to_the_next_page_is_relative_and_contains_the_last_entry() -> None:
    link = next_link("/v2/acme/app/tags/list", 100, "v1.0")
    assert link == '</v2/acme/app/tags/list?n=100&last=v1.0>; rel="next"'


@pytest.mark.oci(127)
def test_a_link_contains_the_filter_and_is_escaped() -> None:
    link = next_link("/v2/a/b/referrers/sha256:00", 10, 'x>; "&y', {"artifactType": "application/a+b;c/d e"})
    assert link == (
        "</v2/a/b/referrers/sha256:00?n=10&last=x%3E%3B%20%22%26y"
        '&artifactType=application%2Fa%2Bb%3Bc%2Fd%20e>; rel="next"'
    )
