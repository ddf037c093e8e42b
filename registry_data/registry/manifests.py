"""Manifests: the pull path as short as it can be, and the one transaction of a push."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from registry_control.access.policy import Action
from registry_control.catalog.selectors import content, resolve
from registry_control.catalog.services import manifests, tags
from registry_control.common.lru_cache import LruCache, size_of_bytes
from registry_data.oci.digest import CANONICAL, Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.manifest import ParsedManifest, parse_manifest
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

TAGS_PER_PUSH: Final = 100  # the spec asks for at least 10 (checklist 108)


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it is sent: the bytes that were pushed, under their digest (invariant 6).

    `payload` is empty when only the description is wanted, and None when it is so long that `read_payload`
    has to be called in a thread. `until` is the Unix time at which the caller's token or key expires.
    """

    id: int
    reference: Digest | Tag
    digest: str
    media_type: str
    size: int  # bytes
    payload: bytes | None
    cacheable_until: float


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push answers."""

    digest: Digest
    subject: Digest | None
    tags: tuple[str, ...]
    missing: tuple[str, ...]  # of a sparse index: platforms, or digests of those that name none


_payloads: Final = LruCache[str, bytes](32 * 1024 * 1024, size_of_bytes)


def get(
    credentials: Credentials, repository: Repository, reference: Digest | Tag, *, with_payload: bool
) -> StoredManifest:
    """The manifest that a tag or digest stands for (checklist 30-35).

    Raises:
        Refused, ProtocolError: not allowed; no such repository or manifest.
        DeletedMeanwhile: it was there a moment ago.
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
        )
        if found.payload is None and found.size <= INLINE_LIMIT:
            return replace(found, payload=_payload(found))
        return found


def read_payload(manifest: StoredManifest) -> bytes:
    """Read the bytes of a manifest whose description is known.

    Raises:
        DeletedMeanwhile: it was deleted after its description was read.
        ProtocolError: UNAVAILABLE when the database does not answer.
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
    """Build the answer to a reference that stands for nothing here."""
    return ProtocolError(ErrorCode.MANIFEST_UNKNOWN, _said(reference), reference=str(reference))


class DeletedMeanwhile(ProtocolError):
    """A manifest went between two queries. A tag may stand for another one by now: ask again (171)."""

    def __init__(self, reference: Digest | Tag) -> None:
        super().__init__(ErrorCode.MANIFEST_UNKNOWN, _said(reference), reference=str(reference))


def _said(reference: Digest | Tag) -> str:
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
    """Store a manifest and point tags at it (checklist 87-110).

    Raises:
        ProtocolError: malformed; its digest is another; content is missing; 412; no room is left, be it only
            the reserve that deletions need.
    """
    with use_case():
        store.ensure_capacity(len(payload))
        digest, tag_names = _named(reference, payload, more_tags)
        parsed = parse_manifest(payload, content_type)
        image_id = image_for_push(pusher)
        new = _new(digest, parsed, payload)
        manifests.put(
            actor=pusher.caller.actor,
            image_id=image_id,
            new=new,
            tag_names=tag_names,
            only_if=only_if,
        )
        awaited = content.missing_children(image_id, str(digest)) if parsed.is_index else []
    missing = tuple(platform or child for child, platform in awaited)
    return Pushed(digest, parsed.subject.digest if parsed.subject else None, tuple(tag_names), missing)


def _named(reference: Digest | Tag, payload: bytes, more_tags: Sequence[Tag]) -> tuple[Digest, list[Tag]]:
    if not isinstance(reference, Digest):
        if more_tags:
            message = "?tag= goes with a digest in the path, not with a tag"
            raise ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.BAD_REQUEST)
        return Digest.of(payload, CANONICAL), [reference]
    actual = Digest.of(payload, reference.algorithm)
    if actual != reference:
        raise ProtocolError(
            ErrorCode.DIGEST_INVALID,
            f"the manifest's digest is {actual}, not {reference}: nothing was stored",
            expected=str(reference),
            got=str(actual),
        )
    return actual, list(dict.fromkeys(more_tags))


def _new(digest: Digest, parsed: ParsedManifest, payload: bytes) -> manifests.NewManifest:
    return manifests.NewManifest(
        digest=str(digest),
        media_type=parsed.media_type,
        payload=payload,
        blobs=frozenset(map(str, parsed.required_blobs)),
        optional_blobs=frozenset(map(str, parsed.optional_blobs)),
        children=frozenset(map(str, parsed.children)),
        subject=str(parsed.subject.digest) if parsed.subject else "",
        artifact_type=parsed.artifact_type or "",
        descriptor=parsed.descriptor(digest, len(payload)) if parsed.subject else b"",
        platforms={str(child): platform for child, platform in parsed.platforms.items()},
    )


def delete(
    credentials: Credentials,
    repository: Repository,
    reference: Digest | Tag,
    *,
    only_if: Preconditions | None = None,
) -> None:
    """Delete a tag, or by digest a manifest with all its tags (checklist 134-135).

    Raises:
        Refused, ProtocolError: not allowed; there is none; 412.
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
