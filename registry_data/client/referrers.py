"""Referrers of manifests, with the API or, at older registries, with tags.

The tag schema is that of the distribution specification: the index with the tag `<algorithm>-<hex>` lists the
referrers of a digest, and clients maintain it.
"""

import json
import re
from typing import Any, Final

from registry_data.client.connection import Connection
from registry_data.client.errors import RemoteRefused, RemoteUnavailable
from registry_data.client.lists import pages
from registry_data.client.manifests import Manifests
from registry_data.oci.digest import Digest
from registry_data.oci.document import invalid, read_document
from registry_data.oci.errors import ProtocolError
from registry_data.oci.manifest import MANIFEST_SIZE_LIMIT, Descriptor, ParsedManifest
from registry_data.oci.media_types import OCI_INDEX

_ENTRIES: Final = 100_000  # of one page
_LIST: Final = 64 * 1024 * 1024  # bytes of all pages
_UNSUPPORTED: Final = frozenset({400, 404, 405, 406})
_FALLBACK: Final = re.compile("(?:sha256|sha512)-[0-9a-f]{64}")
_WRITES: Final = 5  # attempts to add an entry while other clients write the same tag


def fallback_tag(digest: Digest) -> str:
    """Return the tag of the index that lists the referrers of a digest."""
    return f"{digest.algorithm}-{digest.encoded[:64]}"


def is_fallback_tag(tag: str) -> bool:
    """Return whether clients maintain a tag as the list of the referrers of a digest."""
    return _FALLBACK.fullmatch(tag) is not None


class Referrers:
    """The referrers in one registry. Thread-safe."""

    def __init__(self, connection: Connection, manifests: Manifests) -> None:
        self._connection = connection
        self._manifests = manifests

    def descriptors(self, repository: str, digest: Digest) -> list[Descriptor]:
        """Return the descriptors of all manifests whose subject is `digest`, without duplicates."""
        listed = self._from_api(repository, digest)
        if listed is None:
            listed = self._from_tag(repository, digest)
        return list({entry.digest: entry for entry in listed}.values())

    def add_to_tag(self, repository: str, manifest: ParsedManifest, digest: Digest, size: int) -> None:
        """Add a manifest to the index with the fallback tag of its subject, unless it is in there.

        Another client may write the tag at the same time, so it is read again afterwards.

        Raises:
            RemoteUnavailable: other clients overwrote the entry several times.
            RemoteError: the index cannot be read or written.
        """
        subject = manifest.subject
        if subject is None:
            raise ValueError("the manifest has no subject")
        entry = json.loads(manifest.descriptor(digest, size))
        for _ in range(_WRITES):
            index = self._tagged(repository, subject.digest)
            if any(listed.get("digest") == str(digest) for listed in index["manifests"]):
                return
            index["manifests"].append(entry)
            self._manifests.put(
                repository,
                fallback_tag(subject.digest),
                media_type=OCI_INDEX,
                payload=json.dumps(index, ensure_ascii=False).encode(),
            )
        raise RemoteUnavailable(
            f"other clients of {self._connection.host} overwrite {repository}:{fallback_tag(subject.digest)}"
        )

    def _from_api(self, repository: str, digest: Digest) -> list[Descriptor] | None:
        """The list of the API, None if the registry does not have it."""
        url = self._connection.url(f"/v2/{repository}/referrers/{digest}")
        scopes = (f"repository:{repository}:pull",)
        listed: list[Descriptor] | None = None
        read = 0
        for page in pages(
            self._connection,
            url,
            scopes=scopes,
            what=f"the referrers of {digest}",
            limit=MANIFEST_SIZE_LIMIT,
            absent=_UNSUPPORTED,
        ):
            read += len(page)
            if read > _LIST:
                raise RemoteRefused(
                    f"{self._connection.host} sent more than {_LIST} bytes of referrers of {digest}"
                )
            try:
                entries = _descriptors(page)
            except ProtocolError as error:
                if listed is None:
                    return None  # the response is no index, such as the page of a web application
                raise RemoteRefused(f"{self._connection.host} sent a malformed list of referrers") from error
            listed = (listed or []) + entries
        return listed

    def _from_tag(self, repository: str, digest: Digest) -> list[Descriptor]:
        manifest = self._manifests.get(repository, fallback_tag(digest))
        if manifest is None:
            return []
        try:
            return _descriptors(manifest.payload)
        except ProtocolError as error:
            raise _malformed_tag(repository, digest, error) from error

    def _tagged(self, repository: str, subject: Digest) -> dict[str, Any]:
        """The index with the fallback tag, an empty one if there is none."""
        manifest = self._manifests.get(repository, fallback_tag(subject))
        if manifest is None:
            return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        try:
            _descriptors(manifest.payload)
        except ProtocolError as error:
            raise _malformed_tag(repository, subject, error) from error
        index: dict[str, Any] = json.loads(manifest.payload)
        return {**index, "manifests": index["manifests"] or []}


def _malformed_tag(repository: str, subject: Digest, error: ProtocolError) -> RemoteRefused:
    return RemoteRefused(
        f"the tag {fallback_tag(subject)} of {repository} is not a list of referrers: {error}"
    )


def _descriptors(payload: bytes) -> list[Descriptor]:
    """The entries of an index; raises ProtocolError if it is malformed."""
    index = read_document(payload)
    if "manifests" not in index.values:
        raise invalid("manifests is missing")
    return [
        Descriptor(
            media_type=entry.text("mediaType"),
            digest=Digest.parse(entry.text("digest")),
            size=entry.integer("size"),
            annotations=entry.text_map("annotations"),
        )
        for entry in index.children("manifests", limit=_ENTRIES)
    ]
