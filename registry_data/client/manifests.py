"""Reads and writes manifests of another registry."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

import httpx

from registry_data.client.connection import Connection
from registry_data.client.errors import ContentMismatch, RemoteRefused
from registry_data.client.uploads import push_scopes
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.manifest import MANIFEST_SIZE_LIMIT, Descriptor
from registry_data.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    normalise,
)

ACCEPTED: Final = f"{OCI_INDEX}, {DOCKER_LIST}, {OCI_MANIFEST}, {DOCKER_MANIFEST}"
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest as the registry stores it; the digest is that of the payload."""

    media_type: str
    digest: Digest
    payload: bytes


class Manifests:
    """The manifests of one registry. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return media type, digest and size of a manifest, None if it does not exist."""
        with self._request("HEAD", repository, reference, headers={"Accept": ACCEPTED}) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            self._connection.expect(response, {200}, f"the manifest {reference} of {repository}")
            digest = self._digest(response)
            length = response.headers.get("content-length", "")
            if digest is not None and length.isascii() and length.isdigit():
                return Descriptor(_media_type(response), digest, int(length[:18]))
        manifest = self.get(repository, reference)
        if manifest is None:
            return None
        return Descriptor(manifest.media_type, manifest.digest, len(manifest.payload))

    def get(self, repository: str, reference: str) -> RemoteManifest | None:
        """Return a manifest of at most 4 MiB, None if it does not exist.

        Raises:
            ContentMismatch: the payload does not match the requested digest, or that of the response.
            RemoteError: any other failure.
        """
        with self._request("GET", repository, reference, headers={"Accept": ACCEPTED}) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            what = f"the manifest {reference} of {repository}"
            self._connection.expect(response, {200}, what)
            payload = self._connection.body(response, limit=MANIFEST_SIZE_LIMIT)
            expected = Digest.parse(reference) if ":" in reference else self._digest(response)
        digest = Digest.of(payload) if expected is None else Digest.of(payload, expected.algorithm)
        if expected not in (None, digest):
            raise ContentMismatch(f"{self._connection.host} sent other content than that of {what}")
        return RemoteManifest(_media_type(response), digest, payload)

    def put(self, repository: str, reference: str, *, media_type: str, payload: bytes) -> bool:
        """Store a manifest under a tag or its digest; return whether the registry registered its subject.

        Raises:
            ContentMismatch: the registry stored it under another digest, or does not have it afterwards.
            RemoteError: any other failure.
        """
        with self._request(
            "PUT", repository, reference, headers={"Content-Type": media_type}, content=payload
        ) as response:
            what = f"the manifest {reference} of {repository}"
            self._connection.expect(response, {200, 201, 202, 204}, what)
            stored = self._digest(response)
            has_subject = "oci-subject" in response.headers
        if stored is None:
            found = self.head(repository, reference)
            stored = found.digest if found is not None else None
        if stored is None or stored != Digest.of(payload, stored.algorithm):
            raise ContentMismatch(f"{self._connection.host} stored other content for {what}")
        return has_subject

    def delete(self, repository: str, reference: str) -> bool:
        """Delete a tag, or a manifest by digest; return False if it does not exist."""
        with self._request("DELETE", repository, reference) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return False
            self._connection.expect(response, {200, 202, 204}, f"the manifest {reference} of {repository}")
            return True

    def _request(
        self,
        method: str,
        repository: str,
        reference: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        content: bytes | None = None,
    ) -> AbstractContextManager[httpx.Response]:
        return self._connection.request(
            method,
            self._connection.url(f"/v2/{repository}/manifests/{quote(reference, safe=':')}"),
            scopes=_scopes(method, repository),
            headers=headers,
            content=content,
        )

    def _digest(self, response: httpx.Response) -> Digest | None:
        header = response.headers.get("docker-content-digest")
        if not header:
            return None
        try:
            return Digest.parse(header)
        except ProtocolError as error:
            raise RemoteRefused(f"{self._connection.host} sent a malformed digest") from error


def _scopes(method: str, repository: str) -> tuple[str]:
    match method:
        case "PUT":
            return push_scopes(repository)
        case "DELETE":
            return (f"repository:{repository}:delete,pull",)
        case _:
            return (f"repository:{repository}:pull",)


def _media_type(response: httpx.Response) -> str:
    return normalise(response.headers.get("content-type", ""))
