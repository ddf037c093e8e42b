"""Creating, changing, locking and deleting images.

`update` and `delete` authorize a principal; the other functions take an actor that has been authorized.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from django.db import transaction

from registry_control.access.policy import Action, Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, Target, record
from registry_control.catalog.errors import ImageNotFound, ImageReadOnly, NamespaceNotFound
from registry_control.catalog.models import Image
from registry_control.catalog.selectors.listing import get_visible_image
from registry_control.catalog.services import protection
from registry_control.common.changes import image_scope, record_change, repositories_scope
from registry_control.common.clock import database_now, now
from registry_control.common.errors import AlreadyExists, PermissionsDenied
from registry_control.common.models import DELETED, NOT_DELETING, Status, not_deleting_sql
from registry_control.common.signals import deletion_started
from registry_control.db.sql import (
    Rows,
    Statement,
    execute,
    id_parameter,
    row,
    rows,
    uuid_from_db,
)
from registry_control.namespaces import recycling
from registry_control.namespaces.locking import set_locked
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.namespaces.policy import check_deletable, check_writable
from registry_control.namespaces.selectors import may

_LOCK_NAMESPACE: Final = f"""
SELECT n.name, p.organization_id, n.status
FROM namespaces_namespace n
JOIN identity_project p ON p.id = n.project_id
WHERE n.id = %s AND {not_deleting_sql("n")} FOR NO KEY UPDATE OF n
"""
_BY_NAME: Final = f"""
SELECT id FROM catalog_image WHERE namespace_id = %s AND name = %s AND {not_deleting_sql()}
"""
_INSERT: Final = """
INSERT INTO catalog_image (id, namespace_id, organization_id, name, visibility, status, status_message,
                           size, untagged_size, size_is_stale, tag_rows, created_at, updated_at)
VALUES (%s, %s, %s, %s, 'inherit', 'ready', '', 0, 0, FALSE, 0,
        statement_timestamp(), statement_timestamp())
"""
_COUNT: Final = "UPDATE namespaces_namespace SET image_rows = image_rows + 1 WHERE id = %s"
_LOCK: Final = f"""
SELECT n.name, i.name, p.organization_id, i.pushed_at, n.accepts_sparse_indexes, n.status, i.status
FROM catalog_image i
JOIN namespaces_namespace n ON n.id = i.namespace_id
JOIN identity_project p ON p.id = n.project_id
WHERE i.id = %s AND {not_deleting_sql("i")} AND {not_deleting_sql("n")} FOR UPDATE OF i
"""
_NAME: Final = f"""
SELECT n.name, i.name
FROM catalog_image i
JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE i.id = %s AND {not_deleting_sql("i")} AND {not_deleting_sql("n")}
"""


class _NamespaceRow(NamedTuple):
    """A row of `_LOCK_NAMESPACE`, as the database returns it."""

    name: str
    organization_id: UUID | str
    status: str


class _ImageRow(NamedTuple):
    """A row of `_LOCK`, as the database returns it."""

    namespace: str
    name: str
    organization_id: UUID | str
    pushed_at: datetime | str | None
    accepts_sparse_indexes: bool
    namespace_status: str
    image_status: str


@dataclass(frozen=True, slots=True)
class ImageForUpdate:
    """An image whose row the current transaction has locked."""

    id: UUID
    name: str  # NAMESPACE/IMAGE
    organization_id: UUID
    was_pushed: bool
    accepts_sparse_indexes: bool

    @property
    def target(self) -> Target:
        """The image as the target of an audit row."""
        return Target("image", self.id, self.name, self.organization_id)


@transaction.atomic(savepoint=False)
def get_or_create(*, actor: Actor, namespace_id: UUID, name: str) -> UUID:
    """Return the id of the image of that name, and create the image if there is none.

    The namespace's row is locked: no image is created in a namespace that is being deleted, and two
    concurrent first pushes create one image.

    Raises:
        NamespaceNotFound: the namespace has been deleted since the authorization.
        ImageReadOnly: the namespace has been locked since the authorization.
    """
    found = row(_LOCK_NAMESPACE, [id_parameter(namespace_id)])
    if found is None:
        raise NamespaceNotFound
    namespace = _NamespaceRow(*found)
    if namespace.status == Status.LOCKED:
        raise ImageReadOnly(f"{namespace.name}/{name}")
    for (existing_id,) in rows(_BY_NAME, [id_parameter(namespace_id), name]):
        return uuid_from_db(existing_id)
    image_id = uuid4()
    organization_id = uuid_from_db(namespace.organization_id)
    place = [id_parameter(namespace_id), id_parameter(organization_id)]
    execute(_INSERT, [id_parameter(image_id), *place, name])
    execute(_COUNT, [id_parameter(namespace_id)])
    target = Target("image", image_id, f"{namespace.name}/{name}", organization_id)
    record(actor=actor, verb="image.create", target=target)
    return image_id


def lock_for_update(image_id: UUID, *, even_read_only: bool = False) -> ImageForUpdate:
    """Lock an image's row until the transaction ends, and read the columns that a push needs.

    The status is checked again, because it may have changed since the push was authorized. `even_read_only`
    is for writes that are part of a pull, such as renewing a lease.

    Raises:
        ImageNotFound: the image or its namespace is deleted or being deleted.
        ImageReadOnly: the image or its namespace is locked by an administrator.
    """
    return locked(image_id, rows(*lock_statement(image_id)), even_read_only=even_read_only)


def lock_statement(image_id: UUID) -> Statement:
    """The statement of `lock_for_update`, to send it with others; `locked` converts and checks its rows."""
    return _LOCK, [id_parameter(image_id)]


def locked(image_id: UUID, found: Rows, *, even_read_only: bool = False) -> ImageForUpdate:
    """Convert the rows of `lock_statement`.

    Raises:
        ImageNotFound, ImageReadOnly: as `lock_for_update`.
    """
    if not found:
        raise ImageNotFound
    image = _ImageRow(*found[0])
    name = f"{image.namespace}/{image.name}"
    if Status.LOCKED in (image.namespace_status, image.image_status) and not even_read_only:
        raise ImageReadOnly(name)
    return ImageForUpdate(
        id=image_id,
        name=name,
        organization_id=uuid_from_db(image.organization_id),
        was_pushed=image.pushed_at is not None,
        accepts_sparse_indexes=bool(image.accepts_sparse_indexes),
    )


def not_writable(image_id: UUID) -> ImageNotFound | ImageReadOnly:
    """The error for an image that a conditional write did not find: it is deleted, or locked."""
    for namespace, name in rows(_NAME, [id_parameter(image_id)]):
        return ImageReadOnly(f"{namespace}/{name}")
    return ImageNotFound()


def get_for_update(image_id: UUID) -> Image:
    """Lock an image's row until the transaction ends, to delete its tags or manifests.

    Raises:
        ImageNotFound: the image or its namespace is deleted or being deleted.
        ImageReadOnly: the image or its namespace is locked by an administrator.
    """
    found = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = found.filter(NOT_DELETING, pk=image_id).first()
    if image is None or image.namespace.status in DELETED:
        raise ImageNotFound
    if Status.LOCKED in (image.status, image.namespace.status):
        raise ImageReadOnly(str(image))
    return image


@transaction.atomic
def update(*, principal: Principal, image_id: UUID, visibility: str | None) -> Image:
    """Change an image's own privacy policy; None leaves it unchanged.

    Raises:
        NotFound: there is no such image, or the principal may not know of it.
        PermissionsDenied: the principal may see the image and not administer it.
        TransientState: the image or its namespace is being deleted.
        Locked: the image or its namespace is locked by an administrator.
    """
    image = get_visible_image(principal, image_id, lock=True)
    if not may(principal, Action.ADMINISTER, image.namespace):
        raise PermissionsDenied("write", "registry_image")
    check_writable("namespace", image.namespace_id, image.namespace.status)
    check_writable("image", image.pk, image.status)
    if visibility is not None:
        change_visibility(image, to=visibility, actor=actor_of(principal))
    return image


@transaction.atomic
def delete(*, principal: Principal, image_id: UUID) -> Image:
    """Delete an image: its name can be reused at once. The recycle bin keeps it, or the worker deletes it.

    Idempotent while the image is being deleted.

    Raises:
        NotFound: there is no such image, or the principal may not know of it.
        PermissionsDenied: the principal may see the image and not delete it.
        Locked: the image or its namespace is locked by an administrator.
        TagProtected: the namespace protects one of its tags.
    """
    image = get_visible_image(principal, image_id, lock=True)
    if not may(principal, Action.DELETE, image.namespace):
        raise PermissionsDenied("delete", "registry_image")
    check_deletable("namespace", image.namespace_id, image.namespace.status)
    check_deletable("image", image.pk, image.status)
    start_deletion(image, actor=actor_of(principal))
    return image


def change_visibility(image: Image, *, to: str, actor: Actor) -> None:
    """Set the privacy policy of an image whose row is locked; it applies from the next pull on."""
    if image.visibility == to:
        return
    image.visibility = to
    image.updated_at = now()
    image.save(update_fields=["visibility", "updated_at"])
    record_change(image_scope(image.pk))
    record(actor=actor, verb="image.visibility", target=target_of(image), visibility=to)


def lock(image: Image, *, actor: Actor) -> bool:
    """Make an image read-only; False if it is already, or is being deleted. Its row must be locked."""
    return _set_locked(image, is_locked=True, actor=actor)


def unlock(image: Image, *, actor: Actor) -> bool:
    """Allow changes of a read-only image again; False if it is not read-only. Its row must be locked."""
    return _set_locked(image, is_locked=False, actor=actor)


def _set_locked(image: Image, *, is_locked: bool, actor: Actor) -> bool:
    scopes = [image_scope(image.pk)]
    return set_locked(image, is_locked=is_locked, actor=actor, target=target_of(image), scopes=scopes)


def start_deletion(image: Image, *, actor: Actor) -> None:
    """Move an image, whose row is locked, to the recycle bin, or without one mark it as deleting.

    An image to which nothing was ever pushed leaves nothing to restore. Idempotent.

    Raises:
        TagProtected: the namespace protects one of its tags.
    """
    if image.status in DELETED:
        return
    protection.check_tags_of_image(image)
    if recycling.is_on() and image.pushed_at is not None:
        record(actor=actor, verb="image.delete", target=target_of(image))
        _recycle(image, actor)
    else:
        remove(image, actor=actor)
        deletion_started.send(sender=Image)


def remove(image: Image, *, actor: Actor) -> None:
    """Mark an image, whose row is locked, as deleting, past the recycle bin. Idempotent.

    The worker deletes its contents, and continues with them without a signal.
    """
    if image.status != Status.DELETING:
        mark_deleting(image)
        if image.origin_id is None:
            record(actor=actor, verb="image.delete", target=target_of(image))


def mark_deleting(image: Image) -> None:
    """Mark an image, whose row is locked, as deleting; it leaves the recycle bin if it is in it."""
    if image.status == Status.RECYCLED:
        recycling.forget(image.pk)
    image.status = Status.DELETING
    image.updated_at = now()
    image.save(update_fields=["status", "updated_at"])
    _record_change(image)


def _recycle(image: Image, actor: Actor) -> None:
    deleted = recycling.Deleted(
        name=str(image),
        object_id=image.pk,
        row_id=image.pk,
        size=image.size + image.untagged_size,
        columns={"former_status": image.status, "pushed_at": image.pushed_at},
    )
    kind = RecycleBinEntry.Kind.IMAGE
    recycling.keep(kind, [deleted], namespace=image.namespace, image_id=image.pk, actor=actor)
    image.status = Status.RECYCLED
    image.pushed_at = None
    image.save(update_fields=["status", "pushed_at"])
    _record_change(image)
    image.updated_at = now()  # of the response: what is restored has its old one


def restore(image: Image, entry: RecycleBinEntry, *, name: str | None, actor: Actor) -> None:
    """Take an image out of the recycle bin, under another name if one is given.

    The rows of its namespace, which is not deleted, of the image and of the entry are locked: no image is
    created in the namespace meanwhile.

    Raises:
        AlreadyExists: the namespace has an image of that name.
        Locked: an administrator has locked the name, to which nothing was pushed yet.
    """
    image.name = name or image.name
    _make_way(image, actor)
    image.status, image.pushed_at, image.restored_at = entry.former_status, entry.pushed_at, database_now()
    image.save(update_fields=["name", "status", "pushed_at", "restored_at"])
    _record_change(image)
    record(actor=actor, verb="image.restore", target=target_of(image))


def _make_way(image: Image, actor: Actor) -> None:
    """Delete an image of the same name that an upload created and no manifest followed: no list shows it.

    Only restores lock two images that are there, and each holds the row of the namespace.
    """
    same = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    other = same.filter(NOT_DELETING, namespace=image.namespace_id, name=image.name).first()
    if other is None:
        return
    if other.pushed_at is not None:  # read under the lock: a push may have come first
        raise AlreadyExists("image", str(image), recycling.TAKEN)
    check_deletable("image", other.pk, other.status)
    remove(other, actor=actor)
    deletion_started.send(sender=Image)


def _record_change(image: Image) -> None:
    record_change(image_scope(image.pk), repositories_scope(image.organization_id))


def target_of(image: Image) -> Target:
    """The image as the target of an audit row."""
    return Target("image", image.pk, str(image), image.namespace.project.organization_id)
