"""Blobs that an image has."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from registry_control.access.policy import Action
from registry_control.access.services import Caller
from registry_control.catalog.selectors import resolve
from registry_control.catalog.services import blobs
from registry_control.common.clock import now
from registry_control.common.lru_cache import LruCache, size_of_bytes
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import Credentials, identify, is_allowed, require, scope_of
from registry_data.registry.use_case import unavailable, use_case
from registry_data.storage.base import BlobStore, Key, NotStored

SMALL_BLOB: Final = 64 * 1024  # bytes; a blob up to this size is sent from memory
_recent: Final = LruCache[str, bytes](32 * 1024 * 1024, size_of_bytes)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Where a blob's bytes are, and how many; whether saying so to a pusher needs a promise first."""

    key: Key
    size: int  # bytes
    lease_is_due: bool
    cacheable_until: float  # when that ends for the caller by the clock alone, in seconds since the epoch


def find(credentials: Credentials, repository: Repository, digest: Digest, *, lease: timedelta) -> StoredBlob:
    """A blob of an image. Reads only; a HEAD is a promise, see `promise` (invariant 2).

    Raises:
        Refused, ProtocolError: not allowed; the image does not have it.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PULL))
        record, blob = _find(caller, repository, digest)
        due = _lease_runs_out(blob, now(), lease) and is_allowed(
            caller, Action.PUSH, repository, record.facts
        )
        # What hangs on a lease changes with its age.
        cacheable_until = caller.ends_at if blob.linked else 0.0
        return StoredBlob(Key(blob.storage_key), blob.size, due, cacheable_until)


def renew_lease(credentials: Credentials, repository: Repository, digest: Digest) -> None:
    """Keep a blob for whoever may push a manifest that names it.

    Raises:
        Refused, ProtocolError: not allowed; the image does not have it any more.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PULL))
        record, blob = _find(caller, repository, digest)
        if record.image_id is not None:
            # A HEAD is a part of pulling, which goes on while an image is locked.
            blobs.promise(blob_id=blob.id, image_id=record.image_id, even_read_only=True)


def _find(
    caller: Caller, repository: Repository, digest: Digest
) -> tuple[resolve.RepositoryRecord, resolve.BlobRecord]:
    record, blob = resolve.blob(repository.namespace, repository.image, str(digest))
    require(caller, Action.PULL, repository, record)
    if blob is None or not blob.held_at(now()):
        raise unknown(digest)
    return record, blob


def _lease_runs_out(blob: resolve.BlobRecord, moment: datetime, lease: timedelta) -> bool:
    """Hot HEADs stay reads: a link or the better half of a lease is promise enough."""
    return not blob.linked and (blob.leased_until is None or blob.leased_until - moment < lease / 2)


def unknown(digest: Digest) -> ProtocolError:
    """Build the answer to a digest that the image does not have."""
    return ProtocolError(
        ErrorCode.BLOB_UNKNOWN,
        f"this repository has no blob {digest}: it was never pushed here, or has been deleted",
        digest=str(digest),
    )


def read(store: BlobStore, key: Key, *, start: int, stop: int) -> Iterator[bytes]:
    """A blob's bytes in pieces.

    Raises:
        ProtocolError: the storage is away; the row says that the bytes are there, so absence is no 404.
    """
    with use_case():
        try:
            return store.read(key, start=start, stop=stop)
        except NotStored as error:
            raise unavailable("the blob's bytes cannot be read just now") from error


def check_readable(store: BlobStore, blob: StoredBlob) -> None:
    """See that a blob's bytes can be read, all of them: whoever sends a file by its path does not say so.

    Raises:
        ProtocolError: they cannot, now; the row says that they are there, so it is no 404.
    """
    with use_case():
        read(store, blob.key, start=0, stop=0)
        try:
            whole = store.size(blob.key) == blob.size
        except NotStored:
            whole = False
        if not whole:
            raise unavailable("the blob's bytes cannot be read just now")


def recent(key: Key) -> bytes | None:
    """A small blob's bytes, if this process has read them lately: what a key stands for never changes."""
    return _recent.get(key)


def read_small(store: BlobStore, blob: StoredBlob) -> bytes:
    """All bytes of a small blob at once.

    Raises:
        ProtocolError: the storage is away, or has something else.
    """
    with use_case():
        content = b"".join(read(store, blob.key, start=0, stop=blob.size))
        if len(content) != blob.size:
            raise unavailable("the blob's bytes cannot be read just now")
    _recent.put(blob.key, content)
    return content


def delete(credentials: Credentials, repository: Repository, digest: Digest) -> None:
    """Take a blob out of this image only (checklist 136).

    Raises:
        Refused, ProtocolError: not allowed; not there; needed by a manifest.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.DELETE))
        record, blob = resolve.blob(repository.namespace, repository.image, str(digest))
        require(caller, Action.DELETE, repository, record)
        if blob is None or record.image_id is None or not blob.held_at(now()):
            raise unknown(digest)
        blobs.remove(actor=caller.actor, image_id=record.image_id, blob_id=blob.id, digest=str(digest))
