"""How blobs and manifests enter the catalogue: from a push over HTTP, a replication or an import.

A blob is verified, deduplicated (ADR 35), published in the storage and recorded, in this order (invariant 4).
A manifest is verified and recorded together with its tags. This module knows nothing of HTTP: it raises the
errors of the catalogue and of the storage, and the data plane converts them to protocol errors.

The caller checks the rights of the actor.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from registry_control.audit.services import Actor
from registry_control.catalog.errors import BlobNotFound, CatalogError, DigestMismatch, UploadNotFound
from registry_control.catalog.models import Blob
from registry_control.catalog.selectors.holders import StoredBlob, find_blob
from registry_control.catalog.services import blobs, manifests, plausibility, uploads
from registry_data.oci.digest import CANONICAL, Digest, Hashers
from registry_data.oci.manifest import ParsedManifest
from registry_data.oci.preconditions import Preconditions
from registry_data.storage.base import BlobStore, Key, NotStored, StorageError, UploadId, UploadWriter
from registry_data.storage.keys import blob_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReceivedBlob:
    """The content of an upload session, which the caller has open, and what was computed from its bytes."""

    session_id: UUID
    image_id: UUID
    writer: UploadWriter
    digest: Digest
    size: int  # bytes

    @property
    def upload_id(self) -> UploadId:
        """The id of the upload in the storage."""
        return UploadId(self.session_id.hex)


def start_blob(*, actor: Actor, image_id: UUID, claimed: Digest, store: BlobStore) -> UUID:
    """Open an upload session for `continue_blob`, which any process can call; returns its id.

    Raises:
        ImageNotFound, ImageReadOnly, TooManyUploads: the image or the actor cannot have another upload.
        StorageError: the storage is full or does not respond.
    """
    session_id = uploads.start(actor=actor, image_id=image_id, algorithm=claimed.algorithm)
    store.create_upload(UploadId(session_id.hex))
    return session_id


def continue_blob(
    session_id: UUID,
    read: Callable[[int], Iterable[bytes]],
    *,
    image_id: UUID,
    claimed: Digest,
    store: BlobStore,
) -> None:
    """Store a blob from a stream that begins where the session ends: `read` is called with that offset.

    If `read` raises, what it produced before is saved and the session stays open. The bytes of earlier calls
    are read again to hash them.

    Raises:
        DigestMismatch: the digest of all bytes is not `claimed`; the session is cancelled.
        UploadNotFound: the session was finished or cancelled, or has expired.
        ImageNotFound, ImageReadOnly: the image was deleted or locked meanwhile.
        StorageError: the storage is full or does not respond, or another process has the session open.
    """
    session = uploads.get(session_id=session_id, image_id=image_id)
    session = uploads.keep_alive(session)
    upload, hashers = UploadId(session_id.hex), Hashers([claimed.algorithm])
    writer = store.open_upload(upload, at=None)
    try:
        if writer.offset:
            for piece in store.read_upload(upload):
                hashers.update(piece)
        for piece in read(writer.offset):
            hashers.update(piece)
            writer.write(piece)
            session = uploads.keep_alive(session)
    except BaseException:
        writer.close()
        raise
    received = ReceivedBlob(session_id, image_id, writer, hashers.digest(claimed.algorithm), writer.offset)
    try:
        store_blob(received, claimed, store=store)
    except DigestMismatch:
        with suppress(CatalogError, StorageError):  # the worker removes the session otherwise
            uploads.cancel(session_id=session_id, image_id=image_id, store=store)
        raise


@dataclass(frozen=True, slots=True)
class Duplicate:
    """What `deduplicate` found out about the content of an upload."""

    is_leased: bool = False
    """Whether an existing blob was leased to the image instead, which ended the upload."""

    lost: Key | None = None
    """The key of an existing blob whose bytes the storage is known to have lost (ADR 34)."""


def store_blob(
    received: ReceivedBlob, claimed: Digest, *, store: BlobStore, duplicate: Duplicate | None = None
) -> None:
    """Turn a completely written upload into a blob of its image, and close the upload in every case.

    Pass as `duplicate` what `deduplicate` returned, if it was called before.

    Raises:
        DigestMismatch: the content has another digest; the session stays open.
        ImageNotFound, ImageReadOnly: the image was deleted or locked meanwhile.
        UploadNotFound: the session was finished, was cancelled or expired meanwhile.
        StorageError: the storage is full or does not respond.
    """
    try:
        if received.digest != claimed:
            raise DigestMismatch(expected=str(claimed), actual=str(received.digest))
        duplicate = duplicate or deduplicate(received, store=store)
        if not duplicate.is_leased:
            _publish(received, store, replaces=duplicate.lost)
    finally:
        received.writer.close()


def deduplicate(received: ReceivedBlob, *, store: BlobStore) -> Duplicate:
    """Lease an existing blob with the same content to the image, instead of storing it again (ADR 35).

    The bytes need not be written yet. Only blobs of the same organization are leased, and only of those the
    storage is asked whether it still has the bytes: the duration of an upload must not reveal what other
    tenants have. For the others the worker asks (`copies`).

    Raises:
        ImageNotFound, ImageReadOnly, UploadNotFound, StorageError: as `store_blob`.
    """
    found = find_blob(str(received.digest), image_id=received.image_id)
    if found is None:
        return Duplicate()
    if found.state is not Blob.State.LIVE:  # the upload heals it
        if found.state is Blob.State.MISSING:
            _require_plausible(store)
        return Duplicate()
    if not found.is_in_organization:
        return Duplicate()
    blob = found.stored
    has_content = blob.size == received.size and _has_content(blob, store)
    if has_content and not received.writer.is_published:
        return Duplicate(is_leased=_lease_instead(received, blob, store))
    return Duplicate(lost=Key(blob.storage_key) if has_content is False else None)


def _lease_instead(received: ReceivedBlob, blob: StoredBlob, store: BlobStore) -> bool:
    """Lease a blob and end the upload; False if garbage collection has deleted the blob since."""
    try:
        blobs.record_duplicate(session_id=received.session_id, image_id=received.image_id, blob_id=blob.id)
    except BlobNotFound:
        return False
    store.discard(received.upload_id, held=True)
    received.writer.close()
    return True


def _require_plausible(store: BlobStore) -> None:
    try:
        plausibility.require_plausible(store)
    except StorageError as error:
        logger.error("%s", error)
        raise


def _has_content(blob: StoredBlob, store: BlobStore) -> bool | None:
    """Whether the storage has all bytes of a blob; None if it does not respond.

    Raises:
        Unavailable: it lacks most other content as well, so that it is likely not the right storage.
    """
    try:
        return store.size(Key(blob.storage_key)) == blob.size
    except NotStored:
        _require_plausible(store)
        return False
    except StorageError:
        return None


def _publish(received: ReceivedBlob, store: BlobStore, *, replaces: Key | None) -> None:
    """Publish the upload and record it as a blob, or as the bytes of an existing one that has lost its own.

    If the registry has the content already, this is a copy, which the worker finds by the closed session and
    deletes. The request does the same for a copy as for new content, because its duration must not reveal
    that another organization has the content (ADR 35).
    """
    key = published_key(received.upload_id, received.digest)
    store.publish(received.upload_id, key)
    new = blobs.NewBlob(str(received.digest), received.size, key)
    try:
        blobs.record_upload(
            session_id=received.session_id, image_id=received.image_id, new=new, replaces=replaces
        )
    except UploadNotFound:
        # The request that closed the session may have looked for the key before it was published.
        uploads.remove_unless_named(key, session_id=received.session_id, store=store)
        raise
    store.discard(received.upload_id, published=key)


def published_key(upload_id: UploadId, digest: Digest) -> Key:
    """The storage key under which an upload with this digest is published."""
    return blob_key(digest.algorithm, digest.encoded, upload_id)


@dataclass(frozen=True, slots=True)
class VerifiedPayload:
    """The bytes of a manifest under their digest. Create it with `verify_payload`."""

    digest: Digest
    payload: bytes


def verify_payload(payload: bytes, claimed: Digest | None) -> VerifiedPayload:
    """Compute the digest of a manifest; None stands for its sha256 digest, whatever it is.

    Raises:
        DigestMismatch: the digest is not `claimed`.
    """
    actual = Digest.of(payload, claimed.algorithm if claimed else CANONICAL)
    if claimed is not None and actual != claimed:
        raise DigestMismatch(expected=str(claimed), actual=str(actual), content="manifest")
    return VerifiedPayload(actual, payload)


def store_manifest(
    verified: VerifiedPayload,
    parsed: ParsedManifest,
    *,
    actor: Actor,
    image_id: UUID,
    tag_names: Sequence[str],
    only_if: Preconditions | None = None,
) -> None:
    """Record a manifest and set tags to it. `parsed` is the result of `parse_manifest` for the same bytes.

    Raises:
        MissingContent: the image does not have everything that the manifest refers to.
        StoredAsAnotherType: the image has these bytes with another media type.
        ConditionUnmet: the image does not meet `only_if`.
        ImageNotFound, ImageReadOnly: the image was deleted or locked meanwhile.
    """
    new = _new_manifest(verified, parsed)
    manifests.put(actor=actor, image_id=image_id, new=new, tag_names=tag_names, only_if=only_if)


def _new_manifest(verified: VerifiedPayload, parsed: ParsedManifest) -> manifests.NewManifest:
    digest, size = verified.digest, len(verified.payload)
    return manifests.NewManifest(
        digest=str(digest),
        media_type=parsed.media_type,
        payload=verified.payload,
        blobs=frozenset(map(str, parsed.required_blobs)),
        optional_blobs=frozenset(map(str, parsed.optional_blobs)),
        children=frozenset(map(str, parsed.children)),
        subject=str(parsed.subject.digest) if parsed.subject else "",
        artifact_type=parsed.artifact_type or "",
        descriptor=parsed.descriptor(digest, size) if parsed.subject else b"",
        platforms={str(child): platform for child, platform in parsed.platforms.items()},
    )
