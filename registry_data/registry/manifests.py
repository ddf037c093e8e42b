"""Use cases that read, push and delete manifests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from registry_control.access.policy import Action
from registry_control.catalog import ingest
from registry_control.catalog.selectors import content, resolve
from registry_control.catalog.services import manifests, tags
from registry_control.catalog.services.pulls import Pull
from registry_control.common.lru_cache import LruCache, size_of_bytes
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.manifest import parse_manifest
from registry_data.oci.preconditions import Preconditions
from registry_data.oci.reference import Repository, Tag
from registry_data.registry.authorization import (
    Credentials,
    Pusher,
    identify,
    image_for_push,
    require,
    scope_of,
    unknown_repository,
)
from registry_data.registry.use_case import INLINE_LIMIT, use_case
from registry_data.storage.base import BlobStore

TAGS_PER_PUSH: Final = 100  # the specification requires at least 10 (OCI 108)


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it is sent: the bytes that were pushed, under their digest (invariant 6).

    `payload` is empty if only the description was requested, and None if it is so long that `read_payload`
    must be called in a thread. `cacheable_until` is the Unix time at which the caller's token or key expires.
    """

    id: int
    reference: Digest | Tag
    digest: str
    media_type: str
    size: int  # bytes
    payload: bytes | None
    cacheable_until: float
    pull: Pull


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of a push."""

    digest: Digest
    subject: Digest | None
    tags: tuple[str, ...]
    missing: tuple[str, ...]  # of a sparse index: the platforms of its missing children, or their digests


_payloads: Final = LruCache[str, bytes](32 * 1024 * 1024, size_of_bytes)


def get(
    credentials: Credentials, repository: Repository, reference: Digest | Tag, *, with_payload: bool
) -> StoredManifest:
    """Find the manifest with a tag or digest (OCI 30-35).

    Raises:
        AccessDenied: the caller may not pull.
        ProtocolError: NAME_UNKNOWN or MANIFEST_UNKNOWN.
        DeletedMeanwhile: it was deleted after its description was read.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PULL))
        record, manifest = _find(repository, reference)
        require(caller, Action.PULL, repository, record)
        if record.image_id is None:
            raise unknown_repository(repository)
        if manifest is None:
            raise unknown(reference)
        found = StoredManifest(
            id=manifest.id,
            reference=reference,
            digest=manifest.digest,
            media_type=manifest.media_type,
            size=manifest.size,
            payload=_payloads.get(manifest.digest) if with_payload else b"",
            cacheable_until=caller.ends_at,
            pull=Pull(record.image_id, manifest.id, manifest.tag_id),
        )
        if found.payload is None and found.size <= INLINE_LIMIT:
            return replace(found, payload=_payload(found))
        return found


def read_payload(manifest: StoredManifest) -> bytes:
    """Read the bytes of a manifest whose description is known.

    Raises:
        DeletedMeanwhile: it was deleted after its description was read.
        ProtocolError: UNAVAILABLE if the database does not respond.
    """
    with use_case():
        return _payload(manifest)


def _find(
    repository: Repository, reference: Digest | Tag
) -> tuple[resolve.RepositoryRecord, resolve.ManifestRecord | None]:
    if isinstance(reference, Digest):
        return resolve.manifest_by_digest(repository.namespace, repository.image, str(reference))
    return resolve.manifest_by_tag(repository.namespace, repository.image, reference)


def _payload(manifest: StoredManifest) -> bytes:
    payload = content.payload(manifest.id)
    if payload is None:
        raise DeletedMeanwhile(manifest.reference)
    _payloads.put(manifest.digest, payload)
    return payload


def unknown(reference: Digest | Tag) -> ProtocolError:
    """Create the error for a tag or digest that the image does not have."""
    return ProtocolError(ErrorCode.MANIFEST_UNKNOWN, _message(reference), reference=str(reference))


class DeletedMeanwhile(ProtocolError):
    """A manifest was deleted between two queries. Its tag may point to another one now: retry (OCI 171)."""

    def __init__(self, reference: Digest | Tag) -> None:
        super().__init__(ErrorCode.MANIFEST_UNKNOWN, _message(reference), reference=str(reference))


def _message(reference: Digest | Tag) -> str:
    kind = "manifest" if isinstance(reference, Digest) else "tag"
    return f"this repository has no {kind} {reference}: it was never pushed, or has been deleted"


def put(
    pusher: Pusher,
    reference: Digest | Tag,
    *,
    payload: bytes,
    content_type: str | None,
    more_tags: Sequence[Tag],
    store: BlobStore,
    only_if: Preconditions | None = None,
) -> Pushed:
    """Store a manifest and set tags to it (OCI 87-110).

    Raises:
        ProtocolError: MANIFEST_INVALID, DIGEST_INVALID, MANIFEST_BLOB_UNKNOWN for missing content, 412 for an
            unmet condition, or 507 if only the reserve for deletions is free.
    """
    with use_case():
        store.ensure_capacity(len(payload))
        claimed, tag_names = _claimed_digest_and_tags(reference, more_tags)
        verified = ingest.verify_payload(payload, claimed)
        parsed = parse_manifest(payload, content_type)
        image_id = image_for_push(pusher)
        ingest.store_manifest(
            verified,
            parsed,
            actor=pusher.caller.actor,
            image_id=image_id,
            tag_names=tag_names,
            only_if=only_if,
        )
        missing = content.missing_children(image_id, str(verified.digest)) if parsed.is_index else []
    subject = parsed.subject.digest if parsed.subject else None
    platforms = tuple(platform or child for child, platform in missing)
    return Pushed(verified.digest, subject, tuple(tag_names), platforms)


def _claimed_digest_and_tags(
    reference: Digest | Tag, more_tags: Sequence[Tag]
) -> tuple[Digest | None, list[Tag]]:
    if isinstance(reference, Digest):
        return reference, list(dict.fromkeys(more_tags))
    if more_tags:
        message = "?tag= requires a digest in the path, not a tag"
        raise ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.BAD_REQUEST)
    return None, [reference]


def delete(
    credentials: Credentials,
    repository: Repository,
    reference: Digest | Tag,
    *,
    only_if: Preconditions | None = None,
) -> None:
    """Delete a tag, or a manifest by its digest together with its tags (OCI 134-135).

    Raises:
        AccessDenied: the caller may not delete.
        ProtocolError: MANIFEST_UNKNOWN, or 412 for an unmet condition.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.DELETE))
        record, manifest = _find(repository, reference)
        require(caller, Action.DELETE, repository, record)
        if record.image_id is None or manifest is None:
            raise unknown(reference)
        actor, image_id = caller.actor, record.image_id
        if isinstance(reference, Digest):
            manifests.delete(actor=actor, image_id=image_id, digest=str(reference), only_if=only_if)
        else:
            tags.untag(actor=actor, image_id=image_id, name=reference, only_if=only_if)
