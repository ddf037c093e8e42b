"""Restores what was deleted, with everything that belonged to it, under the same id."""

from uuid import UUID

from django.db import transaction

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor
from registry_control.catalog.models import Image
from registry_control.catalog.services import images
from registry_control.common.errors import InvalidArgument
from registry_control.common.models import Status
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.namespaces.policy import check_deletable
from registry_control.recycling.errors import CannotRestore
from registry_control.recycling.policy import Needs, Presence, last_part, obstacle
from registry_control.recycling.selectors import get_entry
from registry_control.recycling.services.locks import Locked, lock
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import parse_repository

Kind = RecycleBinEntry.Kind


@transaction.atomic
def restore(*, principal: Principal, entry_id: UUID, name: str | None) -> RecycleBinEntry:
    """Restore for a principal, under another name if one is given; returns the entry, which is deleted.

    Raises:
        NotFound: there is no such entry, or the principal may not know of it.
        PermissionsDenied: the principal may see its namespace and not administer it.
        AlreadyExists: the name is in use again.
        CannotRestore: what contained it is in the recycle bin or gone.
        Locked: the namespace or image that contained it is locked by an administrator.
        InvalidArgument: the name is not a valid one.
    """
    get_entry(principal, entry_id, action="write")
    return restore_entry(entry_id, name=name, actor=actor_of(principal))


@transaction.atomic
def restore_entry(entry_id: UUID, *, name: str | None, actor: Actor) -> RecycleBinEntry:
    """Restore for an actor that has been authorized.

    Raises:
        NotFound, AlreadyExists, CannotRestore, Locked, InvalidArgument: see `restore`.
    """
    locked = lock(entry_id)
    entry = locked.entry
    if (reason := obstacle(_needs(locked))) is not None:
        raise CannotRestore(entry_id, reason)
    match entry.kind:
        case Kind.NAMESPACE:
            namespaces.restore(locked.namespace, entry, name=name, actor=actor)
        case Kind.IMAGE:
            _restore_image(locked, name, actor)
    RecycleBinEntry.objects.filter(pk=entry_id).delete()
    return entry


def _needs(locked: Locked) -> Needs:
    if locked.entry.kind == Kind.NAMESPACE:
        return Needs()
    return Needs(namespace=_presence(locked.namespace))


def _presence(row: Namespace | Image | None) -> Presence:
    if row is None or row.status == Status.DELETING:
        return Presence.GONE
    return Presence.RECYCLED if row.status == Status.RECYCLED else Presence.THERE


def _restore_image(locked: Locked, name: str | None, actor: Actor) -> None:
    namespace = locked.namespace
    check_deletable("namespace", namespace.pk, namespace.status)
    if locked.image is None:  # it is locked after its entry was read, and its row goes after its entry
        raise CannotRestore(locked.entry.pk, "the image has been deleted for good")
    images.restore(locked.image, locked.entry, name=name and _image_name(namespace.name, name), actor=actor)


def _image_name(namespace: str, name: str) -> str:
    """Check a name for an image.

    Raises:
        InvalidArgument: no image can have it.
    """
    image = last_part(name, within=namespace, separator="/")
    try:
        return parse_repository(f"{namespace}/{image}").image
    except ProtocolError as error:
        raise InvalidArgument("name", error.message) from error
