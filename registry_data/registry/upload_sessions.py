"""Use cases that start, find and cancel upload sessions (OCI 49-54, 69-71)."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias
from uuid import UUID

from registry_control.access.policy import Action
from registry_control.catalog.errors import BlobNotFound, UploadNotFound
from registry_control.catalog.selectors import resolve
from registry_control.catalog.services import blobs, uploads
from registry_control.db.durability import unsynced_transaction
from registry_data.oci.digest import Digest
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import (
    Credentials,
    Pusher,
    identify,
    in_image,
    require,
    scope_of,
)
from registry_data.registry.use_case import use_case
from registry_data.storage.base import BlobStore, UploadId

# The actions of which a token must have one: clients request these to read the status of an upload or to
# cancel it (OCI 147). Writing to an upload and closing it require push.
Purpose: TypeAlias = Collection[Action]
TO_WRITE: Final[Purpose] = ()
TO_LOOK: Final[Purpose] = (Action.PULL, Action.PUSH)
TO_CANCEL: Final[Purpose] = (Action.PUSH, Action.DELETE)


@dataclass(frozen=True, slots=True)
class Upload:
    """An open session that the caller is allowed to use."""

    image_id: UUID
    session: uploads.Session

    @property
    def id(self) -> UploadId:
        """The id of the upload in the storage."""
        return UploadId(self.session.id.hex)


def start(pusher: Pusher, *, algorithm: str, store: BlobStore) -> UUID:
    """Start a session; the first one of an image creates the image (OCI 49, 54).

    Raises:
        ProtocolError: the namespace was deleted, the storage is full or does not respond.
    """
    with use_case():
        store.ensure_capacity(0)
        session_id = _start(pusher, algorithm)
        try:
            store.create_upload(UploadId(session_id.hex))
        except BaseException:
            uploads.close(session_id=session_id)  # the client never learns its id
            raise
        return session_id


def _start(pusher: Pusher, algorithm: str) -> UUID:
    start = partial(uploads.start, actor=pusher.caller.actor, algorithm=algorithm)
    if pusher.record.image_id is not None:
        return in_image(pusher, lambda image_id: start(image_id=image_id))
    with unsynced_transaction():  # a new image is created with its first session, or not at all
        return in_image(pusher, lambda image_id: start(image_id=image_id))


def find(
    credentials: Credentials,
    repository: Repository,
    session_id: UUID,
    *,
    purpose: Purpose,
    has_started: bool = False,
) -> Upload:
    """Find an open session. Queries the database and changes nothing.

    With `has_started`, the request was authorized before: its token may have expired since (OCI 158).

    Raises:
        AccessDenied: the caller may not push, or the token has none of the actions in `purpose`.
        ProtocolError: BLOB_UPLOAD_UNKNOWN if the repository has no such session.
    """
    with use_case():
        scope = scope_of(repository, Action.PUSH)
        caller = identify(credentials, scope=scope, has_started=has_started)
        record = resolve.repository(repository.namespace, repository.image)
        require(caller, Action.PUSH, repository, record, accepted_actions=purpose)
        if record.image_id is None:
            raise UploadNotFound
        return Upload(record.image_id, uploads.get(session_id=session_id, image_id=record.image_id))


def status(upload: Upload, *, store: BlobStore) -> int:
    """Return the size of an upload in bytes (OCI 69).

    Raises:
        ProtocolError: the storage does not respond.
    """
    with use_case():
        return store.upload_size(upload.id)


def cancel(upload: Upload, *, store: BlobStore) -> None:
    """Close a session and delete its bytes (OCI 71).

    Raises:
        ProtocolError: the session was closed meanwhile, or the storage does not respond.
    """
    with use_case():
        uploads.cancel(session_id=upload.session.id, image_id=upload.image_id, store=store)


def drop(credentials: Credentials, repository: Repository, session_id: UUID, *, store: BlobStore) -> None:
    """Cancel a session whose id the client never received, unless it has become a blob.

    Raises:
        AccessDenied: the caller may no longer push.
        ProtocolError: the session is closed, or the database does not respond.
    """
    cancel(find(credentials, repository, session_id, purpose=TO_WRITE), store=store)


def already_stored(credentials: Credentials, repository: Repository, claimed: Digest) -> bool:
    """Whether the image has the blob, whose lease is then renewed (invariant 2).

    A client may repeat a closing request whose response was lost (OCI 166).

    Raises:
        AccessDenied: the caller may not push.
        ProtocolError: the image is read-only, or the database does not respond.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PUSH))
        record, blob = resolve.blob(repository.namespace, repository.image, str(claimed))
        require(caller, Action.PUSH, repository, record)
        if blob is None or record.image_id is None or not blob.is_held:
            return False
        try:
            blobs.promise(blob_id=blob.id, image_id=record.image_id)
        except BlobNotFound:
            return False
        return True
