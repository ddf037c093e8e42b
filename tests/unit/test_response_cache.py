"""Cached responses: sent for equal requests until a dependency changes or they expire."""

import math
import time
from collections.abc import Collection
from http import HTTPStatus

import pytest
from starlette.types import Message, Scope

from registry_control.common.request_context import start
from registry_data.http.messages import Request, Response, first_values
from registry_data.http.response_cache import LARGEST, CachedResponse, Key, ResponseCache, key_of
from registry_data.http.routes import route
from registry_data.scoped_cache import ChangeTracker

BODY = Response(HTTPStatus.OK, {"etag": '"e"'}, b"body", cacheable_until=math.inf)
IMAGE = "image:a"


def scope(
    method: str = "GET", *, headers: list[tuple[bytes, bytes]] | None = None, query: bytes = b""
) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": "/v2/a/b/manifests/1",
        "query_string": query,
        "headers": [(b"host", b"registry.example:5000"), *(headers or [])],
    }


def key_for(request_scope: Scope) -> Key | None:
    return key_of(request_scope, first_values(request_scope))


async def receive() -> Message:
    raise AssertionError("a read has no body")


class Cache:
    """A response cache, with requests and responses to store in it."""

    def __init__(self) -> None:
        self.tracker = ChangeTracker()
        self.cache = ResponseCache(self.tracker)

    def put(
        self,
        response: Response,
        *,
        method: str = "GET",
        query: bytes = b"",
        scopes: Collection[str] | None = (IMAGE,),
        version: int | None = 0,
    ) -> CachedResponse | None:
        """Store the response to a request, and look it up for the next one."""
        made_for = scope(method, query=query)
        request = Request(made_for, receive, idle_time=1, context=start(None), version=version)
        request.route = route(request.path)
        request.context.principal = "user:1"
        request.dependencies.add(scopes)
        key = self.key(method, query)
        self.cache.put(key, request, response)
        return self.cache.get(key)

    def key(self, method: str = "GET", query: bytes = b"") -> Key:
        key = key_for(scope(method, query=query))
        assert key is not None
        return key


def test_a_cached_response_has_body_headers_route_and_principal() -> None:
    found = Cache().put(BODY)
    assert found is not None
    assert found.body == b"body"
    assert found.status == HTTPStatus.OK
    assert dict(found.headers)[b"content-length"] == b"4"
    assert (found.route.name, found.route.reference, found.principal) == ("a/b", "1", "user:1")


def test_a_response_is_evicted_by_a_change_of_its_dependencies() -> None:
    cache = Cache()
    assert cache.put(BODY)
    cache.tracker.apply({"image:b"})
    assert cache.cache.get(cache.key())
    cache.tracker.apply({IMAGE})
    assert cache.cache.get(cache.key()) is None


def test_a_response_from_before_a_change_is_not_stored_after_it() -> None:
    cache = Cache()
    cache.tracker.apply({IMAGE})  # another request applied it while this response was computed
    assert cache.put(BODY, version=0) is None
    assert cache.put(BODY, version=1)


@pytest.mark.parametrize(
    "response",
    [
        Response(HTTPStatus.OK, {}, b"body"),
        Response(HTTPStatus.OK, {}, b"x" * (LARGEST + 1), cacheable_until=math.inf),
        Response(HTTPStatus.OK, {}, iter([b"body"]), cacheable_until=math.inf),
        Response(HTTPStatus.OK, {}, b"body", cacheable_until=time.time() - 1),
    ],
)
def test_uncacheable_large_streamed_and_expired_responses_are_not_cached(response: Response) -> None:
    assert Cache().put(response) is None


def test_without_a_version_or_known_dependencies_nothing_is_cached() -> None:
    assert Cache().put(BODY, version=None) is None
    assert Cache().put(BODY, scopes=None) is None
    assert Cache().put(BODY, scopes=()) is None


def test_the_body_of_a_head_is_not_stored() -> None:
    found = Cache().put(
        Response(HTTPStatus.OK, {"content-length": "4"}, b"body", cacheable_until=math.inf), method="HEAD"
    )
    assert found is not None
    assert found.body == b""


def test_memory_is_limited() -> None:
    cache, response = Cache(), Response(HTTPStatus.OK, {}, b"x" * LARGEST, cacheable_until=math.inf)
    for number in range(1000):
        assert cache.put(response, query=b"%d" % number)
    found = [number for number in range(1000) if cache.cache.get(cache.key(query=b"%d" % number))]
    assert 0 < len(found) * LARGEST < 33 * 1024 * 1024


def test_requests_with_different_methods_queries_or_credentials_have_different_keys() -> None:
    requests = [
        scope(),
        scope("HEAD"),
        scope(query=b"ns=docker.io"),
        scope(headers=[(b"authorization", b"Bearer x")]),
        scope(headers=[(b"authorization", b"Bearer y")]),
    ]
    assert len({key_for(request) for request in requests}) == len(requests)


def test_hosts_share_responses_and_a_request_without_a_valid_host_has_no_key() -> None:
    elsewhere = {**scope(), "headers": [(b"host", b"[::1]:5000")]}
    assert key_for(elsewhere) == key_for(scope())
    assert key_for({**scope(), "headers": []}) is None
    assert key_for({**scope(), "headers": [(b"host", b"a b")]}) is None
    assert key_for(scope(headers=[(b"host", b"registry.example:5000")])) is None  # a second one


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
def test_writes_range_conditional_and_ambiguous_requests_have_no_key(request_scope: Scope) -> None:
    assert key_for(request_scope) is None
