"""Restores what was deleted, with everything that belonged to it, under the same id."""

from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor
from registry_control.catalog.models import Image, Manifest
from registry_control.catalog.services import images, manifests, tags
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
from registry_data.oci.reference import parse_repository, parse_tag

Kind = RecycleBinEntry.Kind


class Restored(NamedTuple):
    """What was restored."""

    kind: str
    id: UUID  # of the object, as the API names it


@transaction.atomic
def restore(*, principal: Principal, entry_id: UUID, name: str | None) -> Restored:
    """Restore for a principal, under another name if one is given; the entry is deleted.

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
def restore_entry(entry_id: UUID, *, name: str | None, actor: Actor) -> Restored:
    """Restore for an actor that has been authorized.

    Raises:
        NotFound, AlreadyExists, CannotRestore, Locked, InvalidArgument: see `restore`.
    """
    locked = lock(entry_id)
    entry = locked.entry
    if (reason := obstacle(_needs(locked))) is not None:
        raise CannotRestore(entry_id, reason)
    restored = entry.object_id
    if entry.kind == Kind.NAMESPACE:
        namespaces.restore(locked.namespace, entry, name=name, actor=actor)
    else:
        check_deletable("namespace", locked.namespace.pk, locked.namespace.status)
        restored = _restore_in_namespace(locked, name, actor)
    RecycleBinEntry.objects.filter(pk=entry_id).delete()
    return Restored(entry.kind, restored)


def _restore_in_namespace(locked: Locked, name: str | None, actor: Actor) -> UUID:
    entry, image, keeper = locked.entry, locked.image, locked.keeper
    if entry.kind == Kind.IMAGE and image is not None:
        chosen = name and _image_name(locked.namespace.name, name)
        images.restore(image, entry, name=chosen, actor=actor)
        return image.pk
    if image is None:  # its row goes after its entries, which are locked
        raise CannotRestore(entry.pk, "its image has been deleted for good")
    check_deletable("image", image.pk, image.status)
    chosen = name and _tag_name(str(image), name)
    if entry.kind == Kind.MANIFEST and keeper is not None:
        return UUID(int=manifests.restore(image, keeper, entry, name=chosen, actor=actor))
    found = _manifests(entry).values_list("pk", flat=True).first()
    if found is None:
        raise CannotRestore(entry.pk, "its manifest has been deleted for good")
    old = entry.name.rpartition(":")[2]
    tags.restore(image, entry, name=chosen or old, manifest_id=found, actor=actor)
    return entry.object_id


def _needs(locked: Locked) -> Needs:
    entry, namespace = locked.entry, _presence(locked.namespace)
    match entry.kind:
        case Kind.NAMESPACE:
            return Needs()
        case Kind.IMAGE:
            return Needs(namespace=namespace)
        case Kind.MANIFEST:
            return Needs(namespace=namespace, image=_presence(locked.image))
        case _:
            manifest = _presence_of_manifest(entry)
            return Needs(namespace=namespace, image=_presence(locked.image), manifest=manifest)


def _manifests(entry: RecycleBinEntry) -> QuerySet[Manifest]:
    return Manifest.objects.filter(image=entry.image_id, digest=entry.digest)


def _presence_of_manifest(entry: RecycleBinEntry) -> Presence:
    """Where the manifest of a deleted tag is, whose image is locked; it may have been pushed again."""
    if _manifests(entry).exists():
        return Presence.THERE
    same = {"image_id": entry.image_id, "digest": entry.digest}
    in_bin = RecycleBinEntry.objects.filter(kind=Kind.MANIFEST, **same).exists()
    return Presence.RECYCLED if in_bin else Presence.GONE


def _presence(row: Namespace | Image | None) -> Presence:
    if row is None or row.status == Status.DELETING:
        return Presence.GONE
    return Presence.RECYCLED if row.status == Status.RECYCLED else Presence.THERE


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


def _tag_name(image: str, name: str) -> str:
    """Check a name for a tag.

    Raises:
        InvalidArgument: no tag can have it, or it names another image.
    """
    try:
        return parse_tag(last_part(name, within=image, separator=":"))
    except ProtocolError as error:
        raise InvalidArgument("name", error.message) from error
