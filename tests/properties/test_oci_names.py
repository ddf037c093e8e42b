"""Digests, names, scopes and pages: formatting and parsing are inverse, and errors are ProtocolErrors."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.oci.digest import ALGORITHMS, Digest, Hashers
from registry_data.oci.errors import ProtocolError
from registry_data.oci.paging import next_link, parse_page
from registry_data.oci.reference import NAME_LIMIT, parse_reference, parse_repository, parse_tag
from registry_data.oci.scopes import Scope, format_scope, parse_scopes
from tests.properties.outcome import outcome

COMPONENT = r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}"
digests = st.builds(Digest.of, st.binary(max_size=64), st.sampled_from(ALGORITHMS))
names = st.from_regex(rf"{COMPONENT}(/{COMPONENT}){{1,4}}", fullmatch=True)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)
scopes = st.builds(
    Scope,
    st.from_regex("[a-z0-9]{1,12}", fullmatch=True),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60),
    st.frozensets(st.sampled_from(["pull", "push", "delete", "*", "dance"])),
)


@given(digests)
def test_a_formatted_digest_can_be_parsed(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert parse_reference(str(digest)) == digest


@given(st.lists(digests))
def test_digests_are_ordered_like_their_text(some: list[Digest]) -> None:
    assert [str(digest) for digest in sorted(some)] == sorted(str(digest) for digest in some)


@given(st.lists(st.binary(max_size=32)), st.sampled_from(ALGORITHMS))
def test_the_digest_of_a_stream_does_not_depend_on_its_pieces(pieces: list[bytes], algorithm: str) -> None:
    hashers = Hashers(ALGORITHMS)
    for piece in pieces:
        hashers.update(piece)
    assert hashers.digest(algorithm) == Digest.of(b"".join(pieces), algorithm)


@given(names)
def test_a_formatted_repository_name_can_be_parsed(name: str) -> None:
    repository = parse_repository(name)
    assert str(repository) == name
    assert "/" not in repository.namespace


@given(tags)
def test_every_valid_tag_is_parsed_as_a_reference(tag: str) -> None:
    assert parse_reference(tag) == parse_tag(tag) == tag


@given(st.text(max_size=NAME_LIMIT + 5) | st.text("abc./:_-AZ09", max_size=20))
def test_any_text_is_accepted_as_a_name_or_rejected(text: str) -> None:
    for parse in (parse_repository, parse_tag, parse_reference, Digest.parse):
        parsed = outcome(parse, text)
        if isinstance(parsed, ProtocolError):
            assert parsed.message.isprintable()
        else:
            assert str(parsed) == text


@given(st.lists(scopes, unique_by=lambda scope: (scope.type, scope.name)))
def test_formatted_scopes_can_be_parsed(some: list[Scope]) -> None:
    written = [format_scope(scope) for scope in some]
    assert parse_scopes(written) == tuple(some)
    assert parse_scopes([" ".join(written)]) == tuple(some)


@given(st.lists(scopes))
def test_repeated_scopes_are_parsed_once(some: list[Scope]) -> None:
    written = [format_scope(scope) for scope in some]
    assert parse_scopes(written + written) == parse_scopes(written)


@given(st.lists(st.text() | st.text("repo:()a, *")))
def test_scopes_of_any_text_can_be_formatted(values: list[str]) -> None:
    parsed = parse_scopes(values)
    assert parse_scopes(map(format_scope, parsed)) == parsed


@given(st.none() | st.text() | st.integers().map(str), st.none() | st.text(), st.integers(1, 10_000))
def test_a_page_is_never_longer_than_the_maximum(n: str | None, last: str | None, maximum: int) -> None:
    page = outcome(parse_page, n, last, maximum=maximum)
    if isinstance(page, ProtocolError):
        assert n is not None
        assert not re.fullmatch("[0-9]+", n)
    else:
        assert 0 <= page.n <= maximum
        assert page.last != ""
        assert "\0" not in (page.last or "")


@given(
    st.integers(0, 1000), st.text(min_size=1), st.dictionaries(st.just("artifactType"), st.text(min_size=1))
)
def test_the_link_of_a_page_is_parsed_as_the_next_page(n: int, last: str, extra: dict[str, str]) -> None:
    # given a link, and the URL between its angle brackets
    link = next_link("/v2/acme/app/tags/list", n, last, extra)
    target, _, parameters = link.removeprefix("<").partition(">")
    assert parameters == '; rel="next"'

    # then the URL contains all parameters, in characters that are allowed in a header
    assert target.isascii()
    assert target.isprintable()
    query = parse_qs(urlsplit(target).query, strict_parsing=True)
    assert query == {"n": [str(n)], "last": [last], **{name: [value] for name, value in extra.items()}}


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "a-" * 50_000, "a/" * 50_000, "0" * 100_000 + "x", "a:" * 50_000]
)
def test_long_texts_are_rejected_in_linear_time(text: str) -> None:
    # Each of these would take minutes if a regular expression backtracked.
    for parse in (parse_repository, parse_tag, parse_reference):
        with pytest.raises(ProtocolError):
            parse(text)
    with pytest.raises(ProtocolError):
        parse_page(text, None, maximum=10)
    assert parse_scopes([f"{text}A", f"repository:{text}A", f"repository:a:{text}A"]) == ()
