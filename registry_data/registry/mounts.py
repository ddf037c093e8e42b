"""Mounts: an image gets a blob of another image without an upload (OCI 80-86)."""

from typing import Final

from registry_control.access.policy import Action
from registry_control.access.services import Caller
from registry_control.catalog.errors import BlobNotFound
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.holders import images_with
from registry_control.catalog.services import blobs
from registry_data.oci.digest import Digest
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import (
    Credentials,
    Pusher,
    identify,
    in_image,
    is_allowed,
    require,
    scope_of,
)
from registry_data.registry.use_case import use_case

_NO_BLOB: Final = 0  # an id that no blob has


def mount(
    credentials: Credentials, repository: Repository, digest: Digest, *, source: Repository | None
) -> bool:
    """Lease a blob to an image if the caller may pull it from the source, or without one from any image.

    Returns False for every reason not to, so that the client uploads the blob and learns nothing (OCI 81,
    83).

    Raises:
        AccessDenied: the caller may not push to the repository.
        ProtocolError: the repository is read-only.
    """
    with use_case():
        scope = scope_of(repository, Action.PUSH)
        caller = identify(credentials, scope=scope)
        record, blob = resolve.blob(repository.namespace, repository.image, str(digest))
        extra_scope = scope_of(source, Action.PULL) if source else ""
        require(caller, Action.PUSH, repository, record, extra_scope=extra_scope)
        is_here = blob is not None and blob.is_held
        # Also without such a blob: the duration must not show what other tenants have (invariant 9).
        if not is_here and not _readable(caller, digest, source, blob.id if blob else _NO_BLOB):
            return False
        if blob is None:
            return False
        pusher, blob_id = Pusher(caller, repository, record), blob.id
        try:
            in_image(pusher, lambda image_id: blobs.promise(blob_id=blob_id, image_id=image_id))
        except BlobNotFound:
            return False
        return True


def _readable(caller: Caller, digest: Digest, source: Repository | None, blob_id: int) -> bool:
    sources = [source] if source else [Repository(*names) for names in _candidates(caller, blob_id)]
    return any(_may_read(caller, candidate, digest) for candidate in sources)


def _candidates(caller: Caller, blob_id: int) -> list[tuple[str, str]]:
    organization_id = caller.principal.organization_id
    return [] if organization_id is None else images_with(blob_id, organization_id=organization_id)


def _may_read(caller: Caller, source: Repository, digest: Digest) -> bool:
    """Whether the source has the blob, and the principal and the token may pull it (ADR 10)."""
    record, blob = resolve.blob(source.namespace, source.image, str(digest))
    held = blob is not None and blob.is_held
    return held and is_allowed(caller, Action.PULL, source, record.facts)
