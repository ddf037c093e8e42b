"""Uploads blobs to another registry, in sessions that another process can resume."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import quote

import httpx

from registry_data.client.connection import Connection, Content
from registry_data.client.errors import (
    ContentMismatch,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    UploadLost,
)
from registry_data.client.headers import resolve_location
from registry_data.client.sending import ANSWER_TIMEOUT
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.ranges import parse_content_range

# Some registries copy the blob within their storage before they answer.
_COPY_RATE: Final = 4 * 1024 * 1024  # bytes per second at least
_LONGEST_COPY: Final = 840.0  # seconds
_CREATED: Final = frozenset({200, 201, 202, 204})
# Registries answer these when an upload expired, was completed, or is not where its location says.
_GONE: Final = frozenset({400, 404, 405, 409, 410, 416})
_LOST_CODES: Final = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"})
_LOST_STATUSES: Final = frozenset({404, 410, 416})
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class RemoteUpload:
    """An upload session; `location` and `offset` change with each response. Not thread-safe."""

    def __init__(
        self,
        connection: Connection,
        repository: str,
        *,
        location: str,
        offset: int = 0,
        minimum_chunk: int = 0,
    ) -> None:
        self._connection = connection
        self.repository: Final = repository
        self.location = location
        self.offset = offset  # bytes that the registry has stored
        self.minimum_chunk = minimum_chunk  # bytes that every chunk but the last must have

    @classmethod
    def resumed(cls, connection: Connection, state: Mapping[str, str | int]) -> Self:
        """Create the session from `state`; `status` then asks for its offset."""
        return cls(
            connection,
            str(state["repository"]),
            location=str(state["location"]),
            offset=int(state["offset"]),
            minimum_chunk=int(state["minimum_chunk"]),
        )

    @property
    def state(self) -> dict[str, str | int]:
        """What another process needs to resume the upload; contains no credentials."""
        return {
            "repository": self.repository,
            "location": self.location,
            "offset": self.offset,
            "minimum_chunk": self.minimum_chunk,
        }

    def append(self, chunk: Content, length: int | None = None) -> None:
        """Send `length` bytes from the current offset on; `offset` is where the registry continues.

        If the registry expects another offset, `offset` is set to that and nothing is stored.

        Args:
            chunk: the bytes, or a function that produces them.
            length: their number; needed with a function.

        Raises:
            UploadLost: the registry no longer knows the upload.
            RemoteError: the registry refused the chunk or did not respond.
        """
        size = len(chunk) if isinstance(chunk, bytes) else length
        if not size:
            raise ValueError("a chunk has at least one byte, and a function needs its length")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if self.offset:  # without it at first, as docker does: not every registry accepts it there
            headers["Content-Range"] = f"{self.offset}-{self.offset + size - 1}"
        with self._request("PATCH", self._url(), headers=headers, content=chunk) as response:
            if (
                response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                and "range" in response.headers
            ):
                self._moved(response, self.offset)
                return
            self._expect(response, f"a chunk of a blob of {self.repository}")
            self._moved(response, self.offset + size)

    def status(self) -> int | None:
        """Ask for the offset; None if the registry no longer knows the upload."""
        with self._request("GET", self._url()) as response:
            if response.status_code in _GONE:
                return None
            self._connection.expect(response, _CREATED, f"an upload to {self.repository}")
            self._moved(response, 0)
        return self.offset

    def finish(self, digest: Digest, last: Content = b"", length: int = 0) -> None:
        """Complete the blob, with its last bytes if there are any.

        Raises:
            ContentMismatch: the registry computed another digest.
            UploadLost: the registry no longer knows the upload.
            RemoteError: the registry refused or did not respond. The blob may exist nevertheless.
        """
        size = len(last) if isinstance(last, bytes) else length
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        separator = "&" if "?" in self.location else "?"  # the query stays as it is
        url = httpx.URL(f"{self.location}{separator}digest={digest}")
        timeout = ANSWER_TIMEOUT + min((self.offset + size) / _COPY_RATE, _LONGEST_COPY)
        with self._request("PUT", url, headers=headers, content=last, timeout=timeout) as response:
            try:
                self._expect(response, f"the blob {digest}")
            except RemoteRefused as error:
                if error.code == "DIGEST_INVALID":
                    raise ContentMismatch(str(error), status=error.status, code=error.code) from error
                raise
            stored = response.headers.get("docker-content-digest", str(digest))
            if stored.partition(":")[0] == digest.algorithm and stored != str(digest):
                raise ContentMismatch(
                    f"{self._connection.host} stored the blob {digest} under another digest"
                )

    def cancel(self) -> None:
        """Ask the registry to forget the upload; failures are ignored, because uploads expire."""
        try:
            with self._request("DELETE", self._url()):
                pass
        except RemoteError:
            return

    def _request(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        content: Content | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> AbstractContextManager[httpx.Response]:
        return self._connection.request(
            method,
            url,
            scopes=push_scopes(self.repository),
            headers=headers,
            content=content,
            timeout=timeout,
            follow=False,
        )

    def _expect(self, response: httpx.Response, what: str) -> None:
        try:
            self._connection.expect(response, _CREATED, what)
        except RemoteRefused as error:
            if error.code in _LOST_CODES or error.status in _LOST_STATUSES:
                raise UploadLost(str(error), status=error.status, code=error.code) from error
            raise

    def _url(self) -> httpx.URL:
        return httpx.URL(self.location)

    def _moved(self, response: httpx.Response, offset: int) -> None:
        """Take over the location and the offset of a response; `offset` if it contains none."""
        if location := response.headers.get("location"):
            self.location = str(resolve_location(response.url, location))
        self.offset = _stored(response.headers.get("range"), offset)


class Uploads:
    """Uploads to one registry. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, repository: str) -> RemoteUpload:
        """Open an upload session."""
        with self._post(repository, "", push_scopes(repository)) as response:
            self._connection.expect(response, {202}, f"an upload to {repository}")
            return self._opened(repository, response)

    def mount(self, repository: str, digest: Digest, *, source: str) -> bool:
        """Add a blob of the repository `source` to `repository` without sending it.

        False if the registry does not do that; some support no mounts, and it is optional for all.
        """
        query = f"?mount={quote(str(digest))}&from={quote(source, safe='')}"
        scopes = (*push_scopes(repository), f"repository:{source}:pull")
        try:
            with self._post(repository, query, scopes) as response:
                if response.status_code == HTTPStatus.CREATED:
                    return True
                self._connection.expect(response, {202}, f"a mount of the blob {digest}")
                upload = self._opened(repository, response)
        except (RemoteDenied, RemoteRefused):
            # Perhaps the user may not read the source. An upload shows whether the target may be written.
            return False
        upload.cancel()
        return False

    def _post(
        self, repository: str, query: str, scopes: Sequence[str]
    ) -> AbstractContextManager[httpx.Response]:
        url = self._connection.url(f"/v2/{repository}/blobs/uploads/{query}")
        return self._connection.request("POST", url, scopes=scopes, content=b"")

    def _opened(self, repository: str, response: httpx.Response) -> RemoteUpload:
        location = resolve_location(response.url, response.headers.get("location", ""))
        minimum = response.headers.get("oci-chunk-min-length", "")
        return RemoteUpload(
            self._connection,
            repository,
            location=str(location),
            minimum_chunk=int(minimum[:18]) if minimum.isascii() and minimum.isdigit() else 0,
        )


def push_scopes(repository: str) -> tuple[str]:
    """Return the token scope of a push."""
    return (f"repository:{repository}:pull,push",)


def _stored(header: str | None, default: int) -> int:
    """The number of bytes that a Range header confirms. 0-0 stands for none, as distribution sends it."""
    if header is None:
        return default
    try:
        last = parse_content_range(header)[1]
    except ProtocolError:
        return default
    return last + 1 if last else 0
