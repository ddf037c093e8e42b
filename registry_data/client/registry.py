"""A client for other registries that speak the OCI distribution protocol: sources and targets of replication.

Docker Hub, docker-registry, distribution, Harbor, zot, GitLab, GHCR, ECR, Quay and Stowage differ in what
they leave out and in how they authenticate; the modules below handle that.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from registry_data.client.auth import Credentials
from registry_data.client.blobs import Blobs
from registry_data.client.connection import Connection
from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import RemoteRefused
from registry_data.client.headers import resolve_location
from registry_data.client.lists import NAMES_LIMIT, PAGE_SIZE, names, pages
from registry_data.client.manifests import Manifests, RemoteManifest
from registry_data.client.referrers import Referrers
from registry_data.client.uploads import RemoteUpload, Uploads
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.manifest import Descriptor, parse_manifest
from registry_data.oci.reference import check_name, parse_reference, parse_tag

_CATALOG_SCOPE: Final = ("registry:catalog:*",)


class RemoteRegistry:
    """A registry at a URL. Thread-safe; close it, or use it as a context manager.

    Every method raises a `RemoteError`: `EgressRefused` if the address must not be connected to,
    `RemoteDenied` for 401 and 403, `RemoteUnavailable` if a later attempt may succeed, `RemoteRefused`
    otherwise. Methods that take names raise `ProtocolError` for malformed ones.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password: str = "",
        insecure: bool = False,
        egress: EgressPolicy,
        user_agent: str = "stowage",
    ) -> None:
        """Define the registry; nothing is sent.

        Args:
            url: `https://host[:port]` or `http://host[:port]`.
            username: empty for anonymous requests.
            password: of the user.
            insecure: whether to accept any TLS certificate.
            egress: the addresses that may be connected to besides those of the internet.
            user_agent: name and version of this program.

        Raises:
            ValueError: the URL has another form.
        """
        self._connection = Connection(
            url, Credentials(username, password), insecure=insecure, egress=egress, user_agent=user_agent
        )
        self._manifests = Manifests(self._connection)
        self._referrers = Referrers(self._connection, self._manifests)
        self._blobs = Blobs(self._connection)
        self._uploads = Uploads(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def abort(self) -> None:
        """Make every request that other threads are waiting for fail at once, as RemoteUnavailable."""
        self._connection.abort()

    def check(self) -> None:
        """Check that there is a registry which accepts the credentials."""
        with self._connection.request("GET", self._connection.url("/v2/"), follow=False) as response:
            if location := response.headers.get("location"):
                origin = resolve_location(response.url, location).copy_with(raw_path=b"/")
                raise RemoteRefused(
                    f"{self._connection.host} redirects to {origin}: use its URL", status=response.status_code
                )
            self._connection.expect(response, {HTTPStatus.OK}, "the check of its version")

    def catalog(self) -> Iterator[str]:
        """Yield the names of the repositories that the registry lists; many list none, or refuse."""
        url = self._connection.url(f"/v2/_catalog?n={PAGE_SIZE}")
        for page in pages(
            self._connection, url, scopes=_CATALOG_SCOPE, what="the list of repositories", limit=NAMES_LIMIT
        ):
            yield from filter(_is_name, names(page, "repositories", self._connection.host))

    def tags(self, repository: str) -> Iterator[str]:
        """Yield the tags of a repository, none if it does not exist."""
        name = self._name(repository)
        url = self._connection.url(f"/v2/{name}/tags/list?n={PAGE_SIZE}")
        scopes = (f"repository:{name}:pull",)
        for page in pages(
            self._connection, url, scopes=scopes, what=f"the tags of {repository}", limit=NAMES_LIMIT
        ):
            yield from filter(_is_tag, names(page, "tags", self._connection.host))

    def head_manifest(self, repository: str, reference: str | Digest) -> Descriptor | None:
        """Return media type, digest and size of a manifest, None if it does not exist."""
        return self._manifests.head(self._name(repository), _reference(reference))

    def get_manifest(self, repository: str, reference: str | Digest) -> RemoteManifest | None:
        """Return a manifest of at most 4 MiB with its verified digest, None if it does not exist.

        Raises ContentMismatch if the payload has another digest.
        """
        return self._manifests.get(self._name(repository), _reference(reference))

    def put_manifest(
        self, repository: str, reference: str | Digest, *, media_type: str, payload: bytes
    ) -> None:
        """Store a manifest under a tag or its digest.

        If it has a subject and the registry has no referrers API, it is also added to the index with the
        fallback tag of the subject. Raises ContentMismatch if the registry stored something else.
        """
        name = self._name(repository)
        parsed = parse_manifest(payload, media_type)
        has_subject = self._manifests.put(name, _reference(reference), media_type=media_type, payload=payload)
        if parsed.subject is not None and not has_subject:
            self._referrers.add_to_tag(name, parsed, Digest.of(payload), len(payload))

    def delete_manifest(self, repository: str, reference: str | Digest) -> bool:
        """Delete a tag, or a manifest by digest; return False if it does not exist.

        Not every registry deletes tags: RemoteRefused.
        """
        return self._manifests.delete(self._name(repository), _reference(reference))

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        """Return the manifests whose subject is `digest`, with the referrers API or the fallback tag."""
        return self._referrers.descriptors(self._name(repository), digest)

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if the repository does not have it."""
        return self._blobs.size(self._name(repository), digest)

    def read_blob(self, repository: str, digest: Digest, *, size: int, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a blob from `start` on, and continue where the connection is cut.

        The digest is verified after the last piece; if `start` is not 0, the caller must verify it. Raises
        ContentMismatch if the content is longer than `size` or has another digest.
        """
        return self._blobs.read(self._name(repository), digest, size=size, start=start)

    def mount_blob(self, repository: str, digest: Digest, *, source: str) -> bool:
        """Add a blob of the repository `source` to `repository` without sending it; False if that fails.

        A registry may support no mounts, lack the blob, or not let the user read the source.
        """
        return self._uploads.mount(self._name(repository), digest, source=self._name(source))

    def start_upload(self, repository: str) -> RemoteUpload:
        """Open an upload session."""
        return self._uploads.start(self._name(repository))

    def resume_upload(self, state: Mapping[str, str | int]) -> RemoteUpload:
        """Create a session from the `state` of another process; `status` asks for its offset."""
        return RemoteUpload.resumed(self._connection, state)

    def _name(self, repository: str) -> str:
        return self._connection.full_name(check_name(repository))


def _reference(reference: str | Digest) -> str:
    return str(parse_reference(str(reference)))


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ProtocolError:
        return False
    return True


def _is_tag(text: str) -> bool:
    try:
        parse_tag(text)
    except ProtocolError:
        return False
    return True
