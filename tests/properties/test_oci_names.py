"""Digests, names, scopes and pages: what is read is what was written, and nothing but ours is ever raised."""

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
def test_a_digest_is_read_back_as_it_was_written(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert parse_reference(str(digest)) == digest


@given(st.lists(digests))
def test_digests_sort_as_their_texts_do(some: list[Digest]) -> None:
    assert [str(digest) for digest in sorted(some)] == sorted(str(digest) for digest in some)


@given(st.lists(st.binary(max_size=32)), st.sampled_from(ALGORITHMS))
def test_a_stream_has_one_digest_however_it_is_cut(pieces: list[bytes], algorithm: str) -> None:
    hashers = Hashers(ALGORITHMS)
    for piece in pieces:
        hashers.update(piece)
    assert hashers.digest(algorithm) == Digest.of(b"".join(pieces), algorithm)


@given(names)
def test_a_repositorys_name_is_read_back_as_it_was_written(name: str) -> None:
    repository = parse_repository(name)
    assert str(repository) == name
    assert "/" not in repository.namespace


@given(tags)
def test_every_tag_of_the_grammar_is_a_reference_to_itself(tag: str) -> None:
    assert parse_reference(tag) == parse_tag(tag) == tag


@given(st.text(max_size=NAME_LIMIT + 5) | st.text("abc./:_-AZ09", max_size=20))
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    for parse in (parse_repository, parse_tag, parse_reference, Digest.parse):
        parsed = outcome(parse, text)
        if isinstance(parsed, ProtocolError):
            assert parsed.message.isprintable()
        else:
            assert str(parsed) == text


@given(st.lists(scopes, unique_by=lambda scope: (scope.type, scope.name)))
def test_scopes_are_read_back_as_they_were_written(some: list[Scope]) -> None:
    written = [format_scope(scope) for scope in some]
    assert parse_scopes(written) == tuple(some)
    assert parse_scopes([" ".join(written)]) == tuple(some)


@given(st.lists(scopes))
def test_asking_twice_asks_for_nothing_more(some: list[Scope]) -> None:
    written = [format_scope(scope) for scope in some]
    assert parse_scopes(written + written) == parse_scopes(written)


@given(st.lists(st.text() | st.text("repo:()a, *")))
def test_any_texts_make_scopes_that_can_be_written_again(values: list[str]) -> None:
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
def test_a_link_leads_to_the_page_that_it_names(n: int, last: str, extra: dict[str, str]) -> None:
    # given a link, and the address between its angle brackets
    link = next_link("/v2/acme/app/tags/list", n, last, extra)
    target, _, parameters = link.removeprefix("<").partition(">")
    assert parameters == '; rel="next"'

    # then the address alone says all of it, in characters that a header may hold
    assert target.isascii()
    assert target.isprintable()
    query = parse_qs(urlsplit(target).query, strict_parsing=True)
    assert query == {"n": [str(n)], "last": [last], **{name: [value] for name, value in extra.items()}}


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "a-" * 50_000, "a/" * 50_000, "0" * 100_000 + "x", "a:" * 50_000]
)
def test_long_texts_are_refused_as_fast_as_short_ones(text: str) -> None:
    # Each of these took minutes if a pattern went back over what it had read.
    for parse in (parse_repository, parse_tag, parse_reference):
        with pytest.raises(ProtocolError):
            parse(text)
    with pytest.raises(ProtocolError):
        parse_page(text, None, maximum=10)
    assert parse_scopes([f"{text}A", f"repository:{text}A", f"repository:a:{text}A"]) == ()
