"""Reads lists in pages: repositories, tags and referrers."""

import json
from collections.abc import Container, Iterator, Sequence
from http import HTTPStatus
from time import monotonic
from typing import Final

import httpx

from registry_data.client.connection import Connection
from registry_data.client.errors import RemoteRefused, RemoteUnavailable
from registry_data.client.headers import next_page, resolve_location

PAGE_SIZE: Final = 1000
NAMES_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a page of names. Older registries send all tags in one page: 100,000 commit ids have 4.3 MB."""

_PAGES: Final = 2000
_LIST_TIMEOUT: Final = 600.0  # seconds of waiting for all pages of a list


def pages(
    connection: Connection,
    url: httpx.URL,
    *,
    scopes: Sequence[str],
    what: str,
    limit: int,
    absent: Container[int] = (HTTPStatus.NOT_FOUND,),
) -> Iterator[bytes]:
    """Yield the body of each page; nothing if the list does not exist, which a status in `absent` says.

    Raises:
        RemoteRefused: a page has more than `limit` bytes.
        RemoteRefused: the links lead in a circle, to another host, or to more than 2000 pages.
        RemoteUnavailable: all pages together take more than ten minutes.
        RemoteError: a page cannot be read.
    """
    seen: set[str] = set()
    waited = 0.0
    while str(url) not in seen:
        if len(seen) == _PAGES:
            raise RemoteRefused(f"{connection.host} sent more than {_PAGES} pages of {what}")
        seen.add(str(url))
        started = monotonic()
        with connection.request("GET", url, scopes=scopes) as response:
            if response.status_code in absent:
                return
            connection.expect(response, {200}, what)
            body = connection.body(response, limit=limit)
            link = next_page(response.headers.get_list("link"))
        waited += monotonic() - started
        yield body
        if link is None:
            return
        if waited > _LIST_TIMEOUT:
            raise RemoteUnavailable(f"{connection.host} takes more than {_LIST_TIMEOUT:.0f} s to list {what}")
        url = resolve_location(url, link)
        if not connection.is_own(url):
            raise RemoteRefused(f"{connection.host} continues {what} at {url.host}, which is refused")
    raise RemoteRefused(f"{connection.host} repeats the pages of {what} in a circle")


def names(page: bytes, key: str, host: str) -> list[str]:
    """Return the strings in the list `key` of a page; a list that is null is empty, as in Go.

    Raises RemoteRefused if the page is not a JSON object with such a list.
    """
    try:
        found = json.loads(page)[key]
        listed = [] if found is None else found
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RemoteRefused(f"{host} sent a malformed list") from error
    if not isinstance(listed, list):
        raise RemoteRefused(f"{host} sent a malformed list")
    return [name for name in listed if isinstance(name, str)]
