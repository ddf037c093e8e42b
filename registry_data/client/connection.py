"""Sends authenticated requests to one registry and follows its redirects."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, TypeAlias

import httpx

from registry_data.client.auth import Authenticator, Credentials
from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import RemoteDenied, RemoteRefused, RemoteUnavailable
from registry_data.client.headers import is_same_origin, parse_challenges, resolve_location
from registry_data.client.sending import ANSWER_TIMEOUT, Sender

# A body: bytes, or a function that produces it once more when a request is repeated.
Content: TypeAlias = bytes | Callable[[], Iterable[bytes]]

_REDIRECTS: Final = 5
_REDIRECTED: Final = (
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
)
_DOCKER_HUB: Final = "registry-1.docker.io"
_DOCKER_HUB_NAMES: Final = ("docker.io", "index.docker.io", "hub.docker.com", _DOCKER_HUB)
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Connection:
    """Requests to one registry. Thread-safe."""

    def __init__(
        self, url: str, credentials: Credentials, *, insecure: bool, egress: EgressPolicy, user_agent: str
    ) -> None:
        """Define the registry; nothing is sent.

        Raises:
            ValueError: the URL is not `https://host[:port]` or `http://host[:port]`.
        """
        self.base: Final = parse_base(url)
        self.sender: Final = Sender(egress, insecure=insecure, user_agent=user_agent)
        self._auth = Authenticator(self.base, credentials, self.sender)

    @property
    def host(self) -> str:
        """The registry's host, for messages."""
        return self.base.host

    def url(self, path: str) -> httpx.URL:
        """Return the URL of a path with a query string; names in it must be valid."""
        return self.base.copy_with(raw_path=path.encode())

    def full_name(self, repository: str) -> str:
        """Return a repository's name in the API: Docker Hub's official images are in `library`."""
        return f"library/{repository}" if self.host == _DOCKER_HUB and "/" not in repository else repository

    @contextmanager
    def request(
        self,
        method: str,
        url: httpx.URL,
        *,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] = _NO_HEADERS,
        content: Content | None = None,
        timeout: float = ANSWER_TIMEOUT,
        follow: bool = True,
    ) -> Iterator[httpx.Response]:
        """Send a request, and repeat it with credentials if the registry challenges it.

        Only GET and HEAD follow redirects. Another origin, of a redirect or an upload's location, does not
        get the Authorization header.

        Raises:
            RemoteError: there was no response, or no authentication. Other statuses are left to `expect`.
        """
        with ExitStack() as stack:

            def send(authorization: str | None) -> httpx.Response:
                own = {**headers, "Authorization": authorization} if authorization else headers
                return self._follow(
                    stack, method, url, own, content, timeout, follow=follow and method in ("GET", "HEAD")
                )

            authorization = self._auth.header(scopes) if self.is_own(url) else None
            response = send(authorization)
            if response.status_code == HTTPStatus.UNAUTHORIZED and self.is_own(response.url):
                challenges = parse_challenges(response.headers.get_list("www-authenticate"))
                stack.close()
                response = send(self._auth.answer(challenges, scopes, refused=authorization))
            yield response

    def expect(self, response: httpx.Response, statuses: Container[int], what: str) -> None:
        """Raise the error for a response unless its status is one of `statuses`; `what` is its subject.

        Raises:
            RemoteDenied: 401 or 403.
            RemoteUnavailable: 408, 425, 429 and 5xx, and 401 or 403 of a storage to which the registry
                redirected: the next redirect has a new signature.
            RemoteRefused: any other status.
        """
        try:
            denied = self._auth.denial if self.is_own(response.url) else None
            self.sender.expect(response, statuses, what, denied=denied)
        except RemoteDenied as error:
            if self.is_own(response.url):
                raise
            raise RemoteUnavailable(str(error), status=error.status) from error

    def body(self, response: httpx.Response, *, limit: int) -> bytes:
        """Read a body of at most `limit` bytes; raise RemoteRefused if it is longer."""
        return self.sender.body(response, limit=limit)

    def is_own(self, url: httpx.URL) -> bool:
        """Return whether a URL is at the registry itself, and not at its storage."""
        return is_same_origin(url, self.base)

    def close(self) -> None:
        """Close all connections."""
        self.sender.close()

    def abort(self) -> None:
        """Make every request that other threads are waiting for fail at once."""
        self.sender.abort()

    def _follow(
        self,
        stack: ExitStack,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: Content | None,
        timeout: float,
        *,
        follow: bool,
    ) -> httpx.Response:
        for _ in range(_REDIRECTS + 1):
            body = content() if callable(content) else content
            sent = headers if self.is_own(url) else _without_authorization(headers)
            response = stack.enter_context(
                self.sender.send(method, url, headers=sent, content=body, timeout=timeout)
            )
            if not follow or response.status_code not in _REDIRECTED:
                return response
            url = resolve_location(url, response.headers.get("location", ""))
            stack.close()
        raise RemoteRefused(f"{self.host} redirected more than {_REDIRECTS} times")


def _without_authorization(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name != "Authorization"}


def parse_base(url: str) -> httpx.URL:
    """Return the URL of a registry.

    Raises:
        ValueError: it is not `https://host[:port]` or `http://host[:port]`.
    """
    try:
        parsed = httpx.URL(url)
        _ = parsed.port, parsed.host, parsed.raw_host
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise ValueError(f"{url!r} is not a URL") from error
    is_bare = parsed.raw_path in (b"", b"/") and not parsed.userinfo and not parsed.fragment
    if parsed.scheme not in ("http", "https") or not parsed.host or not is_bare:
        raise ValueError("the URL of a registry is https://host[:port] or http://host[:port], without a path")
    return parsed.copy_with(host=_DOCKER_HUB) if parsed.host in _DOCKER_HUB_NAMES else parsed
