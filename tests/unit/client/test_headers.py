"""Headers of other registries: challenges, links and locations."""

import string
import time
from typing import Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.client.errors import RemoteRefused
from registry_data.client.headers import next_page, parse_challenges, resolve_location

BASE: Final = httpx.URL("https://registry.example/v2/a/blobs/uploads/")

_words: Final = st.text(string.ascii_letters + string.digits + "-._", min_size=1, max_size=12)
_values: Final = st.text(string.printable.strip() + " ", max_size=30).filter(lambda text: "  " not in text)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def challenges(*headers: str) -> list[tuple[str, dict[str, str]]]:
    return [(one.scheme, dict(one.parameters)) for one in parse_challenges(headers)]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,push"'],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "r",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (["Basic realm=test"], [("basic", {"realm": "test"})]),
        (['BASIC REALM="a b"'], [("basic", {"realm": "a b"})]),
        (
            ['Basic realm="x", Bearer realm="https://y/",  error="invalid_token"'],
            [("basic", {"realm": "x"}), ("bearer", {"realm": "https://y/", "error": "invalid_token"})],
        ),
        (["Negotiate", "Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            ['Bearer realm = "https://y/" , service = r'],
            [("bearer", {"realm": "https://y/", "service": "r"})],
        ),
        (['Bearer realm="a\\"b"'], [("bearer", {"realm": 'a"b'})]),
        (['Bearer realm="never closed'], [("bearer", {})]),
        ([""], []),
        (['realm="x"'], []),
        ([], []),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    found = challenges(*headers)
    if headers == ['Bearer realm="never closed']:  # whether the scheme counts does not matter
        assert found in ([], expected)
    else:
        assert found == expected


@given(st.lists(st.tuples(_words, st.dictionaries(_words.map(str.lower), _values, max_size=4)), max_size=4))
def test_serialized_challenges_are_parsed(given_: list[tuple[str, dict[str, str]]]) -> None:
    header = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in parameters.items())}".strip()
        for scheme, parameters in given_
    )
    expected = [(scheme.lower(), parameters) for scheme, parameters in given_]
    assert challenges(header) == expected


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_raises(values: list[str]) -> None:
    parse_challenges(values)
    next_page(values)


@pytest.mark.parametrize(
    "header",
    [" " * 60_000, "a " * 30_000, "a=" * 30_000, 'a="' * 20_000, ";rel=" * 20_000, "<>;" + " " * 60_000],
)
def test_long_headers_take_no_time(header: str) -> None:
    started = time.process_time()
    parse_challenges([header])
    next_page([header, f"<x>{header}"])
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['</v2/a/tags/list?last=b&n=2>; rel="next"'], "/v2/a/tags/list?last=b&n=2"),
        (["<https://x/?a=1,2>;rel=next"], "https://x/?a=1,2"),
        (['</a>; rel="prev", </b>; title="x"; rel="up next"'], "/b"),
        (['</a>; rel="prev"', "</c>; REL=NEXT; title=x"], "/c"),
        (['</a>; rel="nextest"'], None),
        (["</a>"], None),
        ([], None),
    ],
)
def test_links(headers: list[str], expected: str | None) -> None:
    assert next_page(headers) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/x?_state=a%3D%3D", "https://registry.example/v2/x?_state=a%3D%3D"),
        ("1234?a=b", "https://registry.example/v2/a/blobs/uploads/1234?a=b"),
        ("https://registry.example:443/x", "https://registry.example/x"),
        ("https://storage.example/x?X-Signature=y%2F", "https://storage.example/x?X-Signature=y%2F"),
        # A registry behind a TLS proxy that it does not know of.
        ("http://registry.example/x?y", "https://registry.example/x?y"),
        ("http://registry.example:5000/x", "https://registry.example/x"),
        ("https://user:password@storage.example/x#y", "https://storage.example/x"),
    ],
)
def test_locations(location: str, expected: str) -> None:
    assert str(resolve_location(BASE, location)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://storage.example/x",
        "file:///etc/passwd",
        "ftp://x/y",
        "https://a:b/",
        "x" * 20_000,
    ],
)
def test_unusable_locations_are_refused_without_repeating_them(location: str) -> None:
    with pytest.raises(RemoteRefused) as refused:
        resolve_location(BASE, location)
    assert "/x" not in str(refused.value).replace("http://storage.example", "")


@given(st.text(max_size=100))
def test_every_location_is_a_url_or_refused(location: str) -> None:
    try:
        url = resolve_location(BASE, location)
    except RemoteRefused:
        return
    assert url.scheme in ("http", "https")
    assert url.host
    assert url.scheme == "https" or url.host != BASE.host
