"""Parses the headers of responses that name other addresses: challenges, links and locations."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from registry_data.client.errors import RemoteRefused

_HEADER_LIMIT: Final = 16 * 1024  # characters that are parsed
_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+"
# An element of a WWW-Authenticate list: a scheme, a parameter, or a scheme with its first parameter. Runs of
# white space are collapsed before, which keeps the time of a match linear.
_ELEMENT: Final = re.compile(
    rf" ?(?:(?P<scheme>{_WORD})(?= ?(?:,|$)| [^=]))? ?"
    rf'(?:(?P<name>{_WORD}) ?= ?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>{_WORD})))? ?(?:,|$)'
)
_LINK: Final = re.compile(r"<(?P<target>[^<>]*)>(?P<parameters>[^<]*)")
_NEXT: Final = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next(?=[\s;,]|$))', re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge of a WWW-Authenticate header; names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Parse WWW-Authenticate headers (RFC 9110, section 11.6.1).

    One header may contain several challenges. What follows a malformed element is ignored.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for header in values:
        value = re.sub(r"\s+", " ", header[:_HEADER_LIMIT])
        at = 0
        own: dict[str, str] | None = None
        while at < len(value):
            match = _ELEMENT.match(value, at)
            if match is None or match.end() == at:
                break
            at = match.end()
            if match["scheme"] is not None:
                own = {}
                found.append((match["scheme"].lower(), own))
            if own is not None and match["name"] is not None:
                quoted = match["quoted"]
                text = match["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                own.setdefault(match["name"].lower(), text)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def next_page(values: Iterable[str]) -> str | None:
    """Return the target of the first link with rel=next in Link headers (RFC 8288), None if there is none."""
    for value in values:
        for match in _LINK.finditer(value[:_HEADER_LIMIT]):
            if _NEXT.search(match["parameters"]):
                return match["target"]
    return None


def resolve_location(base: httpx.URL, location: str) -> httpx.URL:
    """Resolve a Location or a link, which may be relative.

    Registries behind a TLS proxy that they do not know of answer `http://` with their own name; such a
    location keeps the scheme and port of `base`.

    Raises:
        RemoteRefused: it is no http or https URL, or leads from https to http at another host.
    """
    if not location or len(location) > _HEADER_LIMIT:
        raise RemoteRefused(f"{base.host} sent no usable Location header")
    try:
        url = base.join(location)
        _ = url.port, url.host, url.raw_host
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise RemoteRefused(f"{base.host} sent a malformed Location header") from error
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise RemoteRefused(f"{base.host} sent a Location header that is no http or https URL")
    url = url.copy_with(fragment=None, username=None, password=None)
    if base.scheme == "https" and url.scheme == "http":
        if url.host != base.host:
            raise RemoteRefused(f"{base.host} leads to http://{url.host} without TLS, which is refused")
        url = url.copy_with(scheme=base.scheme, port=base.port)
    return url


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)
