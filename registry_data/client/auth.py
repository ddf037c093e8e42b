"""Authenticates requests to another registry: Basic, or bearer tokens of its token server (ADR 54).

The credentials are sent to the registry itself, and to the token server that it names: Docker Hub and others
run it under another name, so a registry can pass its credentials on, as it could after Basic authentication.
A token server without TLS is refused if the registry uses TLS.
"""

import base64
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

import httpx
from cachetools import TLRUCache

from registry_data.client.errors import RemoteDenied, RemoteRefused
from registry_data.client.headers import Challenge, resolve_location
from registry_data.client.sending import Sender

_TOKENS: Final = 1000  # cached tokens
_SHORTEST: Final = 60  # seconds that a token is valid at least, and if the response does not say
_LONGEST: Final = 3600  # seconds that a token is cached
_MARGIN: Final = 15  # seconds before its end when a token is no longer used
_TOKEN_ANSWER: Final = 256 * 1024  # bytes
_VISIBLE: Final = re.compile("[!-~]{1,65536}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, both empty for anonymous requests."""

    username: str
    password: str

    def __bool__(self) -> bool:
        return bool(self.username or self.password)

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ***)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _TokenServer:
    realm: httpx.URL
    service: str


class Authenticator:
    """Produces Authorization headers for one registry, and caches tokens by scope. Thread-safe."""

    def __init__(self, registry: httpx.URL, credentials: Credentials, sender: Sender) -> None:
        self._registry = registry
        self._credentials = credentials
        self._sender = sender
        self._lock = Lock()
        self._is_basic = False
        self._server: _TokenServer | None = None
        self._tokens: TLRUCache[str, tuple[str, float]] = TLRUCache(
            _TOKENS, ttu=lambda _, token, now: now + token[1], timer=monotonic
        )

    def header(self, scopes: Sequence[str]) -> str | None:
        """Return the header for a request that needs these scopes, None before the first challenge.

        Raises what `answer` raises, because it may request a token.
        """
        with self._lock:
            if self._is_basic:
                return self._credentials.basic
            if self._server is None:
                return None
            return self._bearer(self._server, scopes)

    def answer(self, challenges: Iterable[Challenge], scopes: Sequence[str], *, refused: str | None) -> str:
        """Return the header for the repetition of a request that was answered 401.

        Args:
            challenges: those of the response.
            scopes: what the request needs.
            refused: the header with which the request was sent.

        Raises:
            RemoteDenied: there are no other credentials to try.
            RemoteRefused: the token server violates the protocol, or has no TLS.
            RemoteUnavailable: the token server does not respond.
        """
        by_scheme = {challenge.scheme: challenge for challenge in reversed(tuple(challenges))}
        with self._lock:
            if "bearer" in by_scheme:
                return self._answer_bearer(by_scheme["bearer"], scopes, refused)
            if "basic" in by_scheme and self._credentials and refused is None:
                self._is_basic = True
                return self._credentials.basic
        raise RemoteDenied(self.denial, status=401)

    def _answer_bearer(self, challenge: Challenge, scopes: Sequence[str], refused: str | None) -> str:
        self._is_basic = False
        self._server = self._token_server(challenge)
        key = _key(scopes)
        cached = self._tokens.get(key)
        if cached is not None and f"Bearer {cached[0]}" == refused:
            del self._tokens[key]  # revoked, or its rights have changed
        wanted = dict.fromkeys((*scopes, *challenge.parameters.get("scope", "").split()))
        header = self._bearer(self._server, tuple(wanted), key=key)
        if header == refused:
            raise RemoteDenied(self.denial, status=401)
        return header

    def _token_server(self, challenge: Challenge) -> _TokenServer:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise RemoteRefused(f"{self._registry.host} names no token server in its challenge")
        return _TokenServer(resolve_location(self._registry, realm), challenge.parameters.get("service", ""))

    def _bearer(self, server: _TokenServer, scopes: Sequence[str], *, key: str | None = None) -> str:
        key = _key(scopes) if key is None else key
        cached = self._tokens.get(key)
        if cached is None:
            cached = self._tokens[key] = self._requested(server, scopes)
        return f"Bearer {cached[0]}"

    def _requested(self, server: _TokenServer, scopes: Sequence[str]) -> tuple[str, float]:
        """A new token, and for how many seconds it may be used."""
        url = server.realm
        for name, values in (("service", filter(None, (server.service,))), ("scope", scopes)):
            for value in values:
                url = url.copy_add_param(name, value)
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        # Redirects are not followed: they would carry the password on.
        with self._sender.send("GET", url, headers=headers) as response:
            self._sender.expect(response, {200}, "a token", denied=self.denial)
            body = self._sender.body(response, limit=_TOKEN_ANSWER)
        return _parsed_token(body, server.realm.host)

    @property
    def denial(self) -> str:
        """The sentence for a request that was refused in spite of the credentials, or without any."""
        if self._credentials:
            return (
                f"{self._registry.host} refuses the user name and password, or they lack the right to do this"
            )
        return f"{self._registry.host} requires a user name and a password"


def _key(scopes: Sequence[str]) -> str:
    return " ".join(sorted(scopes))


def _parsed_token(body: bytes, host: str) -> tuple[str, float]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not _VISIBLE.fullmatch(token):
        raise RemoteRefused(f"the token server {host} sent no token")
    lifetime = fields.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not lifetime > _SHORTEST:
        lifetime = _SHORTEST
    return token, min(lifetime, _LONGEST) - _MARGIN
