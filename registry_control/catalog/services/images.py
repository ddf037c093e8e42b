"""What may happen to an image as a whole."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from django.db import transaction

from registry_control.access.policy import Action, Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import SYSTEM, Actor, Target, record
from registry_control.catalog.errors import ImageNotFound, ImageReadOnly, NamespaceNotFound
from registry_control.catalog.models import Image
from registry_control.catalog.selectors.listing import get_visible_image
from registry_control.common.changes import image_scope, record_change, repositories_scope
from registry_control.common.clock import now
from registry_control.common.errors import PermissionsDenied
from registry_control.common.models import Status, not_deleting_sql
from registry_control.common.signals import deletion_started
from registry_control.db.sql import execute, id_parameter, row, time_parameter, uuid_from_db
from registry_control.namespaces.locking import set_locked
from registry_control.namespaces.policy import check_deletable, check_writable
from registry_control.namespaces.selectors import may

_HOLD_NAMESPACE: Final = f"""
SELECT n.name, p.organization_id, n.status
FROM namespaces_namespace n
JOIN identity_project p ON p.id = n.project_id
WHERE n.id = %s AND {not_deleting_sql("n")} FOR UPDATE OF n
"""
_BY_NAME: Final = f"""
SELECT id FROM catalog_image WHERE namespace_id = %s AND name = %s AND {not_deleting_sql()}
"""
_INSERT: Final = """
INSERT INTO catalog_image (id, namespace_id, organization_id, name, visibility, status, status_message,
                           size, untagged_size, size_is_stale, tag_rows, created_at, updated_at)
VALUES (%s, %s, %s, %s, 'inherit', 'ready', '', 0, 0, FALSE, 0, %s, %s)
"""
_COUNT: Final = "UPDATE namespaces_namespace SET image_rows = image_rows + 1 WHERE id = %s"
_HOLD: Final = f"""
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


@dataclass(frozen=True, slots=True)
class ImageForUpdate:
    """An image whose row the present transaction holds."""

    id: UUID
    name: str  # with its namespace
    organization_id: UUID
    was_pushed: bool
    accepts_sparse_indexes: bool

    @property
    def target(self) -> Target:
        """The image as audit rows remember it."""
        return Target("image", self.id, self.name, self.organization_id)


@transaction.atomic(savepoint=False)
def get_or_create(*, actor: Actor, namespace_id: UUID, name: str) -> UUID:
    """The image of that name, made if there is none yet.

    The namespace's row is held, so an image never appears in one that is being deleted, and two
    first pushes make one image.

    Raises:
        NamespaceNotFound, ImageReadOnly: the namespace was deleted or locked in the meantime.
    """
    namespace = row(_HOLD_NAMESPACE, [id_parameter(namespace_id)])
    if namespace is None:
        raise NamespaceNotFound
    if namespace[2] == Status.LOCKED:
        raise ImageReadOnly(f"{namespace[0]}/{name}")
    existing = row(_BY_NAME, [id_parameter(namespace_id), name])
    if existing is not None:
        return uuid_from_db(existing[0])
    image_id, moment = uuid4(), time_parameter(now())
    # The organization's id is still in the database's own form.
    place = [id_parameter(namespace_id), namespace[1]]
    execute(_INSERT, [id_parameter(image_id), *place, name, moment, moment])
    execute(_COUNT, [id_parameter(namespace_id)])
    target = Target("image", image_id, f"{namespace[0]}/{name}", uuid_from_db(namespace[1]))
    record(actor=actor, verb="image.create", target=target)
    return image_id


def lock_for_update(image_id: UUID, *, even_read_only: bool = False) -> ImageForUpdate:
    """Take an image's row for the present transaction: what a push needs of it.

    Whoever may push was let in before, maybe long before: the row may have been waited for. `even_read_only`
    is for what is a part of pulling.

    Raises:
        ImageNotFound: deleted, or being deleted.
        ImageReadOnly: locked by an administrator.
    """
    found = row(_HOLD, [id_parameter(image_id)])
    if found is None:
        raise ImageNotFound
    name = f"{found[0]}/{found[1]}"
    if Status.LOCKED in found[5:7] and not even_read_only:
        raise ImageReadOnly(name)
    return ImageForUpdate(
        id=image_id,
        name=name,
        organization_id=uuid_from_db(found[2]),
        was_pushed=bool(found[3]),
        accepts_sparse_indexes=bool(found[4]),
    )


def not_writable(image_id: UUID) -> ImageNotFound | ImageReadOnly:
    """Why an image takes nothing, which the statement that found so has not said."""
    found = row(_NAME, [id_parameter(image_id)])
    return ImageNotFound() if found is None else ImageReadOnly(f"{found[0]}/{found[1]}")


def get_for_update(image_id: UUID) -> Image:
    """Take an image's row for the present transaction, to change what the image holds.

    Raises:
        ImageNotFound: deleted, or being deleted.
        ImageReadOnly: locked by an administrator.
    """
    found = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = found.filter(pk=image_id).exclude(status=Status.DELETING).first()
    if image is None or image.namespace.status == Status.DELETING:
        raise ImageNotFound
    if Status.LOCKED in (image.status, image.namespace.status):
        raise ImageReadOnly(str(image))
    return image


@transaction.atomic
def update(*, principal: Principal, image_id: UUID, visibility: str | None) -> Image:
    """Change an image's own privacy policy; None leaves it as it is.

    Raises:
        NotFound, PermissionsDenied, TransientState, Locked: as their names say.
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
    """Delete an image with all its tags: its name is free at once, the rest is left to the worker.

    Raises:
        NotFound, PermissionsDenied, Locked: as their names say.
    """
    image = get_visible_image(principal, image_id, lock=True)
    if not may(principal, Action.DELETE, image.namespace):
        raise PermissionsDenied("delete", "registry_image")
    check_deletable("namespace", image.namespace_id, image.namespace.status)
    check_deletable("image", image.pk, image.status)
    start_deletion(image, actor=actor_of(principal))
    return image


def change_visibility(image: Image, *, to: str, actor: Actor) -> None:
    """Set a locked image's own privacy policy; it decides the very next pull."""
    if image.visibility == to:
        return
    image.visibility = to
    image.updated_at = now()
    image.save(update_fields=["visibility", "updated_at"])
    record_change(image_scope(image.pk))
    record(actor=actor, verb="image.visibility", target=target_of(image), visibility=to)


def lock(image: Image, *, actor: Actor) -> bool:
    """Make a row that the transaction holds read-only; False if it is locked already or being deleted."""
    return _set_locked(image, is_locked=True, actor=actor)


def unlock(image: Image, *, actor: Actor) -> bool:
    """Allow changes of a row that the transaction holds; False if it is not locked."""
    return _set_locked(image, is_locked=False, actor=actor)


def _set_locked(image: Image, *, is_locked: bool, actor: Actor) -> bool:
    scopes = [image_scope(image.pk)]
    return set_locked(image, is_locked=is_locked, actor=actor, target=target_of(image), scopes=scopes)


def start_deletion(image: Image, *, actor: Actor) -> None:
    """Free a locked image's name at once and leave the rest to the worker; again: the same answer."""
    if image.status != Status.DELETING:
        image.status = Status.DELETING
        image.updated_at = now()
        image.save(update_fields=["status", "updated_at"])
        record_change(image_scope(image.pk), repositories_scope(image.organization_id))
        record(actor=actor, verb="image.delete", target=target_of(image))
    if actor != SYSTEM:  # the worker goes on by itself, and must not be told once for each image
        deletion_started.send(sender=Image)


def target_of(image: Image) -> Target:
    """The image as audit rows remember it."""
    return Target("image", image.pk, str(image), image.namespace.project.organization_id)
