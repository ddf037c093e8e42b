"""Sends one request without authentication, reads bounded bodies, and converts failures to errors."""

import json
import re
import ssl
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import httpx

from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import RemoteDenied, RemoteError, RemoteRefused, RemoteUnavailable
from registry_data.client.network import NETWORK_ERRORS, GuardedTransport

ANSWER_TIMEOUT: Final = 60.0  # seconds for a response, and without progress of a body
_CONNECT_TIMEOUT: Final = 10.0  # seconds for each address
_ERROR_BODY: Final = 16 * 1024  # bytes
_SHOWN: Final = 200  # characters of a registry's own message
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_DENIED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_RETRYABLE: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class Sender:
    """A connection pool with the guard and the time-outs. Thread-safe."""

    def __init__(self, egress: EgressPolicy, *, insecure: bool, user_agent: str) -> None:
        # Not an `httpx.Client`: it would log URLs, whose query strings may be signatures, keep cookies, read
        # proxies and passwords from the environment, and parse redirects.
        self._transport = GuardedTransport(egress, insecure=insecure)
        # A content coding would change the bytes, and could expand a small response without limit.
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def abort(self) -> None:
        """Make every request that other threads are waiting for fail at once."""
        self._transport.abort()

    @contextmanager
    def send(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        content: bytes | Iterable[bytes] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Iterator[httpx.Response]:
        """Send a request; in the context, the headers have arrived and the body can be read.

        Raises:
            EgressRefused: the host must not be connected to.
            RemoteUnavailable: there was no response, or its body was cut.
            RemoteRefused: the response has a content coding.
        """
        timeouts = httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT, write=ANSWER_TIMEOUT, pool=ANSWER_TIMEOUT)
        request = httpx.Request(
            method,
            url,
            headers={**self._headers, **headers},
            content=content,
            extensions={"timeout": timeouts.as_dict()},
        )
        try:
            response = self._transport.handle_request(request)
        except NETWORK_ERRORS as error:
            raise _unavailable(url, error) from error
        response.request = request
        try:
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
                raise RemoteRefused(f"{url.host} compressed a response, which the request did not accept")
            yield response
        except NETWORK_ERRORS as error:
            raise _unavailable(url, error) from error
        finally:
            response.close()

    def body(self, response: httpx.Response, *, limit: int) -> bytes:
        """Read a body of at most `limit` bytes; raise RemoteRefused if it is longer."""
        received = bytearray()
        for piece in response.iter_raw():
            received += piece
            if len(received) > limit:
                raise RemoteRefused(
                    f"{response.url.host} sent a response of more than {limit} bytes",
                    status=response.status_code,
                )
        return bytes(received)

    def expect(
        self,
        response: httpx.Response,
        statuses: Container[int],
        what: str,
        *,
        denied: str | None = None,
    ) -> None:
        """Raise the error for a response unless its status is one of `statuses`.

        Args:
            response: the response; its body must not have been read.
            statuses: the expected ones.
            what: the subject of the request, such as "the manifest a/b:1".
            denied: the beginning of the message of a 401 or 403.
        """
        if response.status_code not in statuses:
            raise self._error(response, what, denied)

    def _error(self, response: httpx.Response, what: str, denied: str | None) -> RemoteError:
        status = response.status_code
        code, said = self._said(response)
        sentence = f"{response.url.host} answered {status} for {what}{said}"
        if status in _DENIED:
            if denied is not None:
                sentence = f"{denied}: it answered {status} for {what}{said}"
            return RemoteDenied(sentence, status=status, code=code)
        if status in _RETRYABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return RemoteUnavailable(sentence, status=status, code=code, retry_after=_retry_after(response))
        return RemoteRefused(sentence, status=status, code=code)

    def _said(self, response: httpx.Response) -> tuple[str | None, str]:
        """The code of an OCI error response, and its code and message in parentheses; None and "" if none."""
        try:
            body = self.body(response, limit=_ERROR_BODY)
            first = json.loads(body)["errors"][0]
            code, words = str(first["code"]), f"{first['code']}: {first['message']}"
        except (RemoteError, *NETWORK_ERRORS, ValueError, LookupError, TypeError, RecursionError):
            return None, ""
        return code, " (" + re.sub(r"[^\x20-\x7e]+", " ", words)[:_SHOWN] + ")"


def _unavailable(url: httpx.URL, error: Exception) -> RemoteUnavailable:
    cause = error.args[0] if error.args else None  # of httpcore's exceptions, the one of the socket
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RemoteUnavailable(
            f"the certificate of {url.host} is not trusted ({cause.verify_message}): install its authority "
            "on the workers, or set `insecure` for the target"
        )
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()  # such as "connect timeout"
    detail = str(error)
    return RemoteUnavailable(f"{url.host} cannot be reached: {kind}{': ' + detail if detail else ''}")


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds of a Retry-After header, which may contain a number or a date; None without one."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
