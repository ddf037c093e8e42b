"""Use cases that read and delete the blobs of an image."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from registry_control.access.policy import Action
from registry_control.access.services import Caller
from registry_control.catalog.selectors import resolve
from registry_control.catalog.services import blobs
from registry_control.common.lru_cache import LruCache, size_of_bytes
from registry_control.integrity.services import suspects
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import Credentials, identify, is_allowed, require, scope_of
from registry_data.registry.use_case import RETRY_AFTER, use_case
from registry_data.storage.base import BlobStore, HasPaths, Key, NotStored
from registry_data.storage.keys import parse_key

SMALL_BLOB: Final = 64 * 1024  # bytes; a blob of at most this size is cached and sent from memory
_recent: Final = LruCache[str, bytes](32 * 1024 * 1024, size_of_bytes)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob of an image.

    `lease_is_due` means that a HEAD of this caller must renew the lease (invariant 2). `cacheable_until` is
    the Unix time at which the caller's token or key expires; 0 if the response must not be cached, because a
    lease expires.
    """

    key: Key
    size: int  # bytes
    lease_is_due: bool
    cacheable_until: float


def find(credentials: Credentials, repository: Repository, digest: Digest, *, lease: timedelta) -> StoredBlob:
    """Find a blob of an image, without changes; a HEAD must call `renew_lease` too (invariant 2).

    Raises:
        AccessDenied: the caller may not pull.
        ProtocolError: BLOB_UNKNOWN if the image does not have the blob.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PULL))
        record, blob = _find(caller, repository, digest)
        due = blob.needs_lease(lease) and is_allowed(caller, Action.PUSH, repository, record.facts)
        cacheable_until = caller.ends_at if blob.linked else 0.0
        return StoredBlob(Key(blob.storage_key), blob.size, due, cacheable_until)


def renew_lease(credentials: Credentials, repository: Repository, digest: Digest) -> None:
    """Lease a blob to its image, so that it exists until the caller has pushed the manifest.

    Raises:
        AccessDenied: the caller may not pull.
        ProtocolError: BLOB_UNKNOWN if the image does not have the blob any more.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PULL))
        record, blob = _find(caller, repository, digest)
        if record.image_id is not None:
            # A HEAD is part of a pull, and a read-only image can be pulled.
            blobs.promise(blob_id=blob.id, image_id=record.image_id, even_read_only=True)


def _find(
    caller: Caller, repository: Repository, digest: Digest
) -> tuple[resolve.RepositoryRecord, resolve.BlobRecord]:
    record, blob = resolve.blob(repository.namespace, repository.image, str(digest))
    require(caller, Action.PULL, repository, record)
    if blob is None or not blob.is_held:
        raise unknown(digest)
    return record, blob


def unknown(digest: Digest) -> ProtocolError:
    """Create the error for a digest that the image does not have."""
    return ProtocolError(
        ErrorCode.BLOB_UNKNOWN,
        f"this repository has no blob {digest}: it was never pushed here, or has been deleted",
        digest=str(digest),
    )


class BrokenContent(ProtocolError):
    """The content of a blob seems to be missing or damaged: `report` it.

    503 and not 404: the catalogue has the blob, and one look at the storage proves nothing (invariant 7).
    """

    def __init__(self, reason: str, *, is_missing: bool = False) -> None:
        super().__init__(
            ErrorCode.UNAVAILABLE, "the content of the blob cannot be read at present", headers=RETRY_AFTER
        )
        self.reason = reason
        self.is_missing = is_missing


def report(key: Key, error: BrokenContent) -> None:
    """Let a worker look again at content that could not be sent."""
    with use_case():
        suspects.report(key, error.reason, is_missing=error.is_missing)


def read(store: BlobStore, key: Key, *, start: int, stop: int) -> Iterator[bytes]:
    """Read the bytes of a blob in pieces.

    Raises:
        BrokenContent: the storage says that it has none.
        ProtocolError: UNAVAILABLE if the storage does not respond.
    """
    with use_case():
        try:
            return store.read(key, start=start, stop=stop)
        except NotStored as error:
            raise BrokenContent("a download found no content", is_missing=True) from error


def read_whole(store: BlobStore, blob: StoredBlob) -> Iterator[bytes]:
    """Read a whole blob in pieces.

    Where its size can be had without a request, it is compared before the response begins.

    Raises:
        BrokenContent: it does not exist or has another length.
        ProtocolError: UNAVAILABLE if the storage does not respond.
    """
    pieces = read(store, blob.key, start=0, stop=blob.size)
    if isinstance(store, HasPaths):
        with use_case():
            size = store.size(blob.key)
        if size != blob.size:
            raise BrokenContent(f"a download found {size} bytes instead of {blob.size}")
    return pieces


def recent(key: Key) -> bytes | None:
    """The bytes of a small blob from the cache; the content of a storage key never changes (invariant 1)."""
    return _recent.get(key)


def read_small(store: BlobStore, blob: StoredBlob) -> bytes:
    """Read a small blob, verify it and cache it.

    Raises:
        BrokenContent: it does not exist, or has another length or digest.
        ProtocolError: UNAVAILABLE if the storage does not respond.
    """
    with use_case():
        content = b"".join(read(store, blob.key, start=0, stop=blob.size))
        expected = Digest.parse(parse_key(blob.key)[0])
        if len(content) != blob.size or Digest.of(content, expected.algorithm) != expected:
            raise BrokenContent("a download found other content")
    _recent.put(blob.key, content)
    return content


def delete(credentials: Credentials, repository: Repository, digest: Digest) -> None:
    """Delete a blob from one image (OCI 136).

    Raises:
        AccessDenied: the caller may not delete.
        ProtocolError: BLOB_UNKNOWN if the image does not have it, UNSUPPORTED if a manifest refers to it.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.DELETE))
        record, blob = resolve.blob(repository.namespace, repository.image, str(digest))
        require(caller, Action.DELETE, repository, record)
        if blob is None or record.image_id is None or not blob.is_held:
            raise unknown(digest)
        blobs.remove(actor=caller.actor, image_id=record.image_id, blob_id=blob.id, digest=str(digest))
