"""Setting and deleting tags.

`delete` authorizes a principal; the other functions take an actor that has been authorized.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import F

from registry_control.access.policy import Action, Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, Detail, record, record_many
from registry_control.catalog.errors import TagNotFound
from registry_control.catalog.models import Image, Tag, TagHistory
from registry_control.catalog.selectors.content import tag_row
from registry_control.catalog.selectors.listing import get_visible_tag
from registry_control.catalog.services import conditions, images, protection, reachability
from registry_control.catalog.services.images import ImageForUpdate
from registry_control.catalog.services.protection import NamedTag
from registry_control.common import clock_watch
from registry_control.common.changes import image_scope, record_change
from registry_control.common.clock import database_now, now
from registry_control.common.errors import AlreadyExists, PermissionsDenied
from registry_control.common.models import Status
from registry_control.common.signals import deletion_started
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import execute, id_parameter, time_parameter
from registry_control.namespaces import recycling
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.namespaces.policy import check_deletable
from registry_control.namespaces.selectors import may
from registry_data.oci.preconditions import Preconditions

_INSERT: Final = """
INSERT INTO catalog_tag (id, image_id, name, manifest_id, status, created_at, updated_at, set_by)
VALUES (%s, %s, %s, %s, 'ready', %s, %s, %s)
"""
_MOVE: Final = "UPDATE catalog_tag SET manifest_id = %s, updated_at = %s, set_by = %s WHERE id = %s"
_PUSHED_AGAIN: Final = "UPDATE catalog_tag SET pushed_at = %s WHERE id = %s"
_FRESH: Final = timedelta(hours=1)  # within which another push of the same manifest writes nothing
_REMEMBER: Final = """
INSERT INTO catalog_taghistory (tag_id, digest, since, until, set_by)
SELECT t.id, m.digest, t.updated_at, %s, t.set_by
FROM catalog_tag t JOIN catalog_manifest m ON m.id = t.manifest_id WHERE t.id = %s
"""


def forget_history(*, limit: int) -> int:
    """Delete up to `limit` rows of history that are older than the recycle bin; returns how many.

    None while the clock may be wrong (ADR 66).
    """
    old = TagHistory.objects.filter(until__lte=DatabaseNow() - settings.RECYCLE_BIN).order_by("until")
    found = list(old.values_list("pk", flat=True)[:limit])
    if not found or clock_watch.check(longest=settings.RECYCLE_BIN).reason:
        return 0
    return TagHistory.objects.filter(pk__in=found).delete()[0]


class TagChange(NamedTuple):
    """What `set_tag` did."""

    is_new: bool = False
    moved_from: int | None = None  # id of the manifest that had the tag before

    @property
    def is_change(self) -> bool:
        """Whether the tag was created or moved."""
        return self.is_new or self.moved_from is not None


class DoomedTag(NamedTuple):
    """A tag to delete."""

    id: UUID | str  # as the database returns it, or as the ORM does
    name: str
    manifest_id: int
    rule: int | None = None  # the number of the rule of retention that removes it


def set_tag(
    image: ImageForUpdate, name: str, manifest_id: int, *, found: NamedTag, actor: Actor
) -> TagChange:
    """Create a tag, or move it to another manifest; of concurrent pushes, the last to commit wins.

    `found` was read since the image's row is locked. A tag that moves keeps its id and `created_at`. The
    caller records the change, and adds a new tag to `tag_rows` of the image.

    Raises:
        TagProtected: the tag points to another manifest, and the namespace protects it.
        ImageNotFound: the tag is new and protected, and the namespace was deleted meanwhile.
    """
    existing, by, read_at = found
    if existing is not None and existing.manifest_id == manifest_id:
        if read_at - existing.pushed_at > _FRESH:
            execute(_PUSHED_AGAIN, [time_parameter(read_at), existing.id])
        return TagChange()
    if existing is None:
        protection.check_new_tag(name, image_id=image.id, by=by)
    else:
        protection.check_tag(name, image=image.name, by=by, action="write")
    moment = time_parameter(read_at)  # rules of retention compare it with times of other nodes
    if existing is None:
        image_id = id_parameter(image.id)
        times = [moment, moment]
        execute(_INSERT, [id_parameter(uuid4()), image_id, name, manifest_id, *times, actor.name])
    else:
        if recycling.is_on():
            execute(_REMEMBER, [moment, existing.id])
        execute(_MOVE, [manifest_id, moment, actor.name, existing.id])
    return TagChange(is_new=True) if existing is None else TagChange(moved_from=existing.manifest_id)


@transaction.atomic
def untag(*, actor: Actor, image_id: UUID, name: str, only_if: Preconditions | None = None) -> None:
    """Delete a tag at once; its manifest stays (OCI 134).

    Raises:
        ImageNotFound, TagNotFound: there is no such image or tag.
        ImageReadOnly: the image or its namespace is locked by an administrator.
        ConditionUnmet: a precondition of the request does not hold.
        TagProtected: the namespace protects the tag.
    """
    image = images.get_for_update(image_id)
    existing, by, _ = protection.named_tag(image_id, name)
    if existing is None:
        raise TagNotFound
    conditions.check(image_id, only_if)
    protection.check_tag(name, image=str(image), by=by, action="delete")
    untag_locked(image, [DoomedTag(existing.id, name, existing.manifest_id)], actor=actor)


def untag_locked(image: Image, doomed: Sequence[DoomedTag], *, actor: Actor) -> None:
    """Delete tags of a locked image at once, with as many statements for any number of tags.

    The recycle bin keeps what a restore needs. The caller has checked that no tag is protected.
    """
    found = Tag.objects.filter(pk__in=[tag.id for tag in doomed])
    deleted = list(found.annotate(digest=F("manifest__digest"))) if recycling.is_on() else []
    found.delete()
    record_change(image_scope(image.pk))
    left = reachability.leave(image.pk, {tag.manifest_id for tag in doomed})
    size = sum(left.values())
    if deleted:
        _keep(image, deleted, left, actor=actor)
    Image.objects.filter(pk=image.pk).update(
        **reachability.changed_sizes(size=-size, untagged_size=size),
        tag_rows=F("tag_rows") - len(doomed),
        updated_at=DatabaseNow(),
    )
    target = images.target_of(image)
    record_many(((target, _detail(tag)) for tag in doomed), actor=actor, verb="tag.delete")


def _detail(tag: DoomedTag) -> Detail:
    return {"tag": tag.name} if tag.rule is None else {"tag": tag.name, "rule": tag.rule}


def _keep(image: Image, deleted: Sequence[Any], left: Mapping[int, int], *, actor: Actor) -> None:
    """Insert the entries of the recycle bin for tags whose rows are deleted, with the digests.

    `left` are the bytes that left the size of the image with each manifest; of several tags on a manifest,
    the first entry has them.
    """
    remaining = dict(left)
    entries = [_deleted(image, tag, tag.digest, size=remaining.pop(tag.manifest_id, 0)) for tag in deleted]
    kind = RecycleBinEntry.Kind.TAG
    recycling.keep(kind, entries, namespace=image.namespace, image_id=image.pk, actor=actor)


def leave_in_bin(image: Image, left: Iterable[Tag], *, of: RecycleBinEntry) -> None:
    """Insert an entry for each tag that a manifest is restored without; `of` is the entry of the manifest."""
    entries = [_deleted(image, tag, of.digest, size=0) for tag in left]
    recycling.leave(RecycleBinEntry.Kind.TAG, entries, namespace=image.namespace, of=of)


def _deleted(image: Image, tag: Tag, digest: str, *, size: int) -> recycling.Deleted:
    return recycling.Deleted(
        name=f"{image}:{tag.name}",
        object_id=tag.pk,
        row_id=None,
        size=size,
        columns={
            "digest": digest,
            "tag_created_at": tag.created_at,
            "tag_updated_at": tag.updated_at,
            "tag_pulled_at": tag.last_pulled_at,
            "tag_set_by": tag.set_by,
        },
    )


def restore(image: Image, entry: RecycleBinEntry, *, name: str, manifest_id: int, actor: Actor) -> None:
    """Create a deleted tag again, with its id, on a manifest of its image. Image and entry are locked.

    Raises:
        AlreadyExists: the image has a tag of that name.
    """
    if tag_row(image.pk, name) is not None:
        raise AlreadyExists("tag", f"{image}:{name}", recycling.TAKEN)
    moment = database_now()
    Tag.objects.create(
        pk=entry.object_id,
        image=image,
        name=name,
        manifest_id=manifest_id,
        created_at=entry.tag_created_at or moment,
        updated_at=entry.tag_updated_at or moment,
        last_pulled_at=entry.tag_pulled_at,
        set_by=entry.tag_set_by,
        restored_at=moment,
    )
    record_change(image_scope(image.pk))
    moved = reachability.update(image.pk, [manifest_id])
    Image.objects.filter(pk=image.pk).update(
        **reachability.changed_sizes(size=moved, untagged_size=-moved), tag_rows=F("tag_rows") + 1
    )
    record(actor=actor, verb="tag.restore", target=images.target_of(image), tag=name, digest=entry.digest)


@transaction.atomic
def delete(*, principal: Principal, tag_id: UUID) -> Tag:
    """Delete a tag; its manifest and other tags of the same digest stay.

    Raises:
        NotFound: there is no such tag, or the principal may not know of it.
        PermissionsDenied: the principal may see the tag and not delete it.
        Locked: the tag's image or its namespace is locked by an administrator.
        TagProtected: the namespace protects the tag.
    """
    image_id = get_visible_tag(principal, tag_id).image_id
    # Lock the image's row first, as every push does (invariant 11).
    Image.objects.select_for_update().filter(pk=image_id).first()
    tag = get_visible_tag(principal, tag_id, lock=True)
    if not may(principal, Action.DELETE, tag.image.namespace):
        raise PermissionsDenied("delete", "registry_tag")
    check_deletable("namespace", tag.image.namespace_id, tag.image.namespace.status)
    check_deletable("image", image_id, tag.image.status)
    check_deletable("tag", tag.pk, tag.status)
    start_deletion(tag, actor=actor_of(principal))
    return tag


def start_deletion(tag: Tag, *, actor: Actor) -> None:
    """Move a tag, whose row is locked, to the recycle bin. Idempotent; nothing for a tag of an image in it.

    Without a bin, the tag is marked as deleting, and the worker deletes the row.

    Raises:
        TagProtected: the namespace protects the tag.
    """
    if tag.image.status == Status.RECYCLED:
        return  # it moved there with its manifest
    if tag.status != Status.DELETING:
        by = protection.of_image(tag.image_id)
        protection.check_tag(tag.name, image=str(tag.image), by=by, action="delete")
    if recycling.is_on() and tag.status != Status.DELETING:
        untag_locked(tag.image, [DoomedTag(tag.pk, tag.name, tag.manifest_id)], actor=actor)
        tag.status, tag.updated_at = Status.DELETING, now()  # of the response; there is no row any more
        return
    if tag.status != Status.DELETING:
        tag.status = Status.DELETING
        tag.updated_at = now()
        tag.save(update_fields=["status", "updated_at"])
        record_change(image_scope(tag.image_id))
        moved = reachability.update(tag.image_id, [tag.manifest_id])
        Image.objects.filter(pk=tag.image_id).update(
            **reachability.changed_sizes(size=moved, untagged_size=-moved), updated_at=tag.updated_at
        )
        record(actor=actor, verb="tag.delete", target=images.target_of(tag.image), tag=tag.name)
    deletion_started.send(sender=Tag)
