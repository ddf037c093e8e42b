"""Reads blobs of another registry."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Final

import httpx

from registry_data.client.connection import Connection
from registry_data.client.errors import ContentMismatch, RemoteRefused, RemoteUnavailable
from registry_data.client.network import allow_long_body
from registry_data.client.retries import Retries
from registry_data.oci.digest import Digest, Hashers
from registry_data.oci.errors import ProtocolError
from registry_data.oci.ranges import parse_content_range

_PIECE: Final = 256 * 1024  # bytes
_UNKNOWN_LENGTH: Final = -1


class Blobs:
    """The blobs of one registry. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def size(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if the repository does not have it."""
        url = self._url(repository, digest)
        scopes = (f"repository:{repository}:pull",)
        # The signature of a redirect is often valid for GET only, so a HEAD does not follow it.
        with self._connection.request("HEAD", url, scopes=scopes, follow=False) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            if not 300 <= response.status_code < 400:
                self._connection.expect(response, {200}, f"the blob {digest}")
                length = _content_length(response)
                if length != _UNKNOWN_LENGTH:
                    return length
        return self._size_by_range(repository, digest)

    def _size_by_range(self, repository: str, digest: Digest) -> int | None:
        """The size as the response to a request for one byte tells it."""
        with self._get(repository, digest, {"Range": "bytes=0-0"}) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            total = response.headers.get("content-range", "").rpartition("/")[2]
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == "0":
                return 0
            self._connection.expect(response, {200, 206}, f"the blob {digest}")
            if response.status_code == HTTPStatus.PARTIAL_CONTENT and total.isascii() and total.isdigit():
                return int(total[:18])
            length = _content_length(response)
            if response.status_code == HTTPStatus.OK and length != _UNKNOWN_LENGTH:
                return length
        raise RemoteRefused(f"{self._connection.host} does not tell the size of the blob {digest}")

    def read(self, repository: str, digest: Digest, *, size: int, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a blob from `start` on, and continue where the connection is cut.

        The digest is verified after the last piece, unless `start` is behind the beginning: then the caller
        must verify it.

        Raises:
            ContentMismatch: the content is longer than `size` or does not match its digest.
            RemoteRefused: the blob does not exist (status 404), or the registry refused for another reason.
            RemoteUnavailable: several attempts in a row got no byte.
            RemoteError: any other failure.
        """
        hashers = Hashers((digest.algorithm,))
        at, retries = start, Retries()
        while at < size:
            try:
                for piece in self._read_once(repository, digest, at):
                    at += len(piece)
                    if at > size:
                        raise ContentMismatch(
                            f"{self._connection.host} sent more than the {size} bytes of the blob {digest}"
                        )
                    hashers.update(piece)
                    yield piece
            except RemoteUnavailable as error:
                retries.pause(error, at=at)
            else:
                if at < size:
                    raise ContentMismatch(
                        f"{self._connection.host} sent {at} bytes of the blob {digest}, which has {size}"
                    )
        if start == 0 and hashers.digest(digest.algorithm) != digest:
            raise ContentMismatch(
                f"{self._connection.host} sent other content than that of the blob {digest}"
            )

    def _read_once(self, repository: str, digest: Digest, start: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._get(repository, digest, headers) as response:
            self._connection.expect(response, {200, 206}, f"the blob {digest}")
            skipped = start - self._first_byte(response, digest)
            if skipped < 0:
                raise RemoteRefused(f"{self._connection.host} sent another range of the blob {digest}")
            allow_long_body(response)
            for piece in response.iter_raw(_PIECE):
                if len(piece) > skipped:
                    yield piece[skipped:]
                skipped = max(0, skipped - len(piece))

    def _first_byte(self, response: httpx.Response, digest: Digest) -> int:
        """The offset in the blob at which the body begins; a server may ignore the Range header."""
        if response.status_code == HTTPStatus.OK:
            return 0
        try:
            return parse_content_range(response.headers.get("content-range", ""))[0]
        except ProtocolError as error:
            raise RemoteRefused(
                f"{self._connection.host} sent a range of the blob {digest} without Content-Range"
            ) from error

    def _get(
        self, repository: str, digest: Digest, headers: Mapping[str, str]
    ) -> AbstractContextManager[httpx.Response]:
        return self._connection.request(
            "GET",
            self._url(repository, digest),
            scopes=(f"repository:{repository}:pull",),
            headers=headers,
        )

    def _url(self, repository: str, digest: Digest) -> httpx.URL:
        return self._connection.url(f"/v2/{repository}/blobs/{digest}")


def _content_length(response: httpx.Response) -> int:
    value = response.headers.get("content-length", "")
    return int(value[:18]) if value.isascii() and value.isdigit() else _UNKNOWN_LENGTH
