"""Answers that are given again: only to the same request, in the same state, until a key or token ends."""

import math
import time
from http import HTTPStatus
from pathlib import Path

import pytest
from starlette.types import Scope

from registry_data.freshness import DatabaseVersion
from registry_data.http.messages import FileBody, Response
from registry_data.http.response_cache import LARGEST, ResponseCache, key_of

FIRST, SECOND = DatabaseVersion("1"), DatabaseVersion("2")
KEY = ("GET", "/v2/a/b/manifests/1", b"", b"Bearer x")
ANSWER = Response(HTTPStatus.OK, {"etag": '"e"'}, b"body", cacheable_until=math.inf)


def scope(
    method: str = "GET", *, headers: list[tuple[bytes, bytes]] | None = None, query: bytes = b""
) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": "/v2/a/b/manifests/1",
        "query_string": query,
        "headers": [(b"host", b"registry.example:5000"), *(headers or [])],
    }


def kept_with(answer: Response) -> ResponseCache:
    kept = ResponseCache()
    assert kept.get(KEY, FIRST) is None
    kept.put(KEY, FIRST, answer)
    return kept


def test_an_answer_is_given_again_whole() -> None:
    found = kept_with(ANSWER).get(KEY, FIRST)
    assert found is not None
    assert found.body == {"type": "http.response.body", "body": b"body"}
    assert found.start["status"] == HTTPStatus.OK
    assert dict(found.start["headers"])[b"content-length"] == b"4"


def test_the_next_state_of_the_database_knows_nothing_of_the_last_one() -> None:
    kept = kept_with(ANSWER)
    assert kept.get(KEY, SECOND) is None
    assert kept.get(KEY, FIRST) is None


def test_without_a_stamp_nothing_is_given_or_kept() -> None:
    kept = kept_with(ANSWER)
    assert kept.get(KEY, None) is None
    kept.put(KEY, None, ANSWER)
    assert kept.get(KEY, None) is None


def test_an_answer_made_in_a_state_that_has_passed_is_not_kept() -> None:
    kept = ResponseCache()
    kept.get(KEY, FIRST)
    kept.get(KEY, SECOND)  # another request saw a change, while the first one was still being answered
    kept.put(KEY, FIRST, ANSWER)
    assert kept.get(KEY, SECOND) is None


@pytest.mark.parametrize(
    "answer",
    [
        Response(HTTPStatus.OK, {}, b"body"),
        Response(HTTPStatus.OK, {}, b"x" * (LARGEST + 1), cacheable_until=math.inf),
        Response(HTTPStatus.OK, {}, FileBody(Path("/dev/null")), cacheable_until=math.inf),
    ],
)
def test_what_must_not_or_had_better_not_be_kept_is_not(answer: Response) -> None:
    assert kept_with(answer).get(KEY, FIRST) is None


def test_a_head_keeps_no_body() -> None:
    kept, key = ResponseCache(), ("HEAD", *KEY[1:])
    kept.get(key, FIRST)
    kept.put(key, FIRST, Response(HTTPStatus.OK, {"content-length": "4"}, b"body", cacheable_until=math.inf))
    found = kept.get(key, FIRST)
    assert found is not None
    assert found.body["body"] == b""


def test_an_answer_ends_with_the_key_or_token_it_was_given_to() -> None:
    until = time.time() + 60
    assert kept_with(Response(HTTPStatus.OK, {}, b"body", cacheable_until=until)).get(KEY, FIRST) is not None
    ended = time.time()
    assert kept_with(Response(HTTPStatus.OK, {}, b"body", cacheable_until=ended)).get(KEY, FIRST) is None


def test_memory_is_bounded() -> None:
    kept, answer = ResponseCache(), Response(HTTPStatus.OK, {}, b"x" * LARGEST, cacheable_until=math.inf)
    keys = [("GET", f"/v2/a/b/manifests/{number}", b"", b"") for number in range(1000)]
    kept.get(keys[0], FIRST)
    for key in keys:
        kept.put(key, FIRST, answer)
    found = [key for key in keys if kept.get(key, FIRST)]
    assert 0 < len(found) * LARGEST < 33 * 1024 * 1024


def test_requests_that_differ_in_what_decides_have_different_keys() -> None:
    requests = [
        scope(),
        scope("HEAD"),
        scope(query=b"ns=docker.io"),
        scope(headers=[(b"authorization", b"Bearer x")]),
        scope(headers=[(b"authorization", b"Bearer y")]),
    ]
    assert len({key_of(request) for request in requests}) == len(requests)


def test_hosts_share_their_answers_and_a_request_without_a_proper_one_has_no_key() -> None:
    elsewhere = {**scope(), "headers": [(b"host", b"[::1]:5000")]}
    assert key_of(elsewhere) == key_of(scope())
    assert key_of({**scope(), "headers": []}) is None
    assert key_of({**scope(), "headers": [(b"host", b"a b")]}) is None
    assert key_of(scope(headers=[(b"host", b"registry.example:5000")])) is None  # a second one


@pytest.mark.parametrize(
    "request_scope",
    [
        scope("PUT"),
        scope("DELETE"),
        scope(headers=[(b"range", b"bytes=0-1")]),
        scope(headers=[(b"if-none-match", b'"x"')]),
        scope(headers=[(b"if-match", b'"x"')]),
        scope(headers=[(b"authorization", b"Bearer x"), (b"authorization", b"Bearer y")]),
    ],
)
def test_requests_of_their_own_kind_have_no_key(request_scope: Scope) -> None:
    assert key_of(request_scope) is None
