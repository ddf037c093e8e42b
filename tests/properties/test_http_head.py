"""Heads of HTTP requests are found in whatever parts they arrive."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_control.serving.http_head import HeadBuffer, RequestRejected

names = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
values = st.from_regex(rb"[!-~]{0,40}", fullmatch=True)
heads = st.builds(
    lambda method, fields: b"%b / HTTP/1.1\r\n%b\r\n" % (method, b"".join(fields)),
    st.sampled_from([b"GET", b"POST", b"M-SEARCH", b"BREW"]),
    st.lists(st.builds(lambda name, value: b"%b: %b\r\n" % (name, value), names, values), max_size=5),
)


def found_in(parts: list[bytes]) -> list[bytes]:
    buffer, found = HeadBuffer(), []
    for part in parts:
        start = 0
        while start < len(part):
            head, start = buffer.split(part, start)
            if head:
                found.append(head)
    return found


def parts_of(sent: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(sent), *cuts})
    return [sent[start:stop] for start, stop in pairwise(borders)]


def renamed(head: bytes) -> bytes:
    return re.sub(rb"(?i)(?<=\n)upgrade(?=[ \t]*:)", b"ignored", head)


@given(st.lists(heads, min_size=1, max_size=5), st.data())
def test_heads_are_the_same_however_they_are_split(expected: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(expected)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=10))
    assert found_in(parts_of(sent, cuts)) == [renamed(head) for head in expected]


@given(st.binary(min_size=1, max_size=100))
def test_what_is_no_request_is_rejected_at_once(data: bytes) -> None:
    if re.match(rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}( |$)", data) or b"\r\n\r\n" in data:
        return
    with pytest.raises(RequestRejected) as error:
        HeadBuffer().split(data)
    assert error.value.rejection.status == 400


@pytest.mark.parametrize(("begin", "status"), [(b"GET /", 414), (b"GET / HTTP/1.1\r\nX: ", 431)])
def test_a_head_without_an_end_is_limited(begin: bytes, status: int) -> None:
    buffer, size = HeadBuffer(), 0
    assert buffer.split(begin) == (b"", len(begin))
    rejected = None
    while rejected is None and size < 200_000:
        size += 10_000
        try:
            buffer.split(b"a" * 10_000)
        except RequestRejected as error:
            rejected = error.rejection.status
    assert rejected == status


@given(st.binary(max_size=30), st.integers(5, 100))
def test_only_a_few_empty_lines_come_before_a_request(rest: bytes, number: int) -> None:
    with pytest.raises(RequestRejected):
        HeadBuffer().split(b"\n" * number + rest.replace(b"\r\n\r\n", b""))
