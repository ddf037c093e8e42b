"""Finishes what DELETE requests began, in bounded, idempotent batches, each in its own transaction.

A row with the status `deleting` is the job (invariant 8). A worker may be killed at any line or run beside
another: the next one finds what is left. Rows that another transaction has locked are left for a later batch,
so that one push that hangs does not stop all deletions.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import F, QuerySet
from psycopg.errors import LockNotAvailable

from registry_control.audit.services import SYSTEM, record
from registry_control.catalog import references
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.references import Cause
from registry_control.catalog.selectors.holders import idle_images, leases_have_expired
from registry_control.catalog.services import images, manifests, uploads
from registry_control.common import clock_watch
from registry_control.common.clock import database_now
from registry_control.common.models import Status
from registry_control.common.signals import manifests_removed
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import batches, execute, id_parameter, placeholders, rows
from registry_control.namespaces import recycling
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.services import target_of
from registry_data.storage.base import BlobStore, StorageError

logger = logging.getLogger(__name__)

# Two statements: for one with a subquery, PostgreSQL may plan a scan of all tags.
_SELECT_TAGS: Final = "SELECT id FROM catalog_tag WHERE image_id = %s ORDER BY name LIMIT %s"
_DELETE_TAGS: Final = "DELETE FROM catalog_tag WHERE id IN"
_FEW: Final = 50  # tags of a row in the recycle bin, and such rows that one transaction deletes


def run_batch(*, store: BlobStore, limit: int) -> bool:
    """Delete at most about `limit` rows of each kind. Returns whether there may be more to do.

    Raises:
        StorageError: the storage failed for one or more images; everything else was still done.
    """
    tags = _delete_tags(limit)
    kept = _remove_keepers(limit)
    images_left, errors = _delete_images(store, limit)
    namespaces_left = _delete_namespaces(limit)
    if errors:
        raise errors[-1]
    return tags == limit or kept > 0 or images_left or namespaces_left


@contextmanager
def skip_locked() -> Iterator[None]:
    """Leave the body for the next batch when another transaction has locked rows that it needs."""
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        logger.warning("rows to delete are locked by another transaction, left for the next batch: %s", error)


def _remove_keepers(limit: int) -> int:
    """Delete rows that kept manifests in the recycle bin, with all below them; returns how many.

    Nothing was pushed to them, so they have neither uploads nor leases. Those with many tags are left to
    `_delete_images`.
    """
    found = Image.objects.filter(status=Status.DELETING, origin_id__isnull=False, tag_rows__lte=_FEW)
    of_organizations: dict[UUID, list[UUID]] = {}
    for organization_id, pk in found.order_by("updated_at").values_list("organization_id", "pk")[:limit]:
        of_organizations.setdefault(organization_id, []).append(pk)
    removed = 0
    for pks in of_organizations.values():
        for part in batches(pks, _FEW):
            with skip_locked():
                removed += _remove_keepers_of_organization(part)
    return removed


@transaction.atomic
def _remove_keepers_of_organization(pks: Sequence[UUID]) -> int:
    deleting = Image.objects.filter(pk__in=pks, status=Status.DELETING)
    unlocked = deleting.select_for_update(skip_locked=True).order_by("pk")
    keepers = list(unlocked.values_list("pk", flat=True))
    kept = Manifest.objects.filter(image__in=keepers).select_for_update().order_by("pk")
    if manifest_ids := list(kept.values_list("pk", flat=True)):
        manifests.delete_rows(manifest_ids, image_id=keepers[0], cause=Cause.MANIFEST_DELETED)
        manifests_removed.send(sender=Manifest, count=len(manifest_ids))
    Image.objects.filter(pk__in=keepers).delete()
    return len(keepers)


def _delete_images(store: BlobStore, limit: int) -> tuple[bool, list[StorageError]]:
    """Run a batch for each image; whether rows were deleted, and the storage's errors.

    Stops after `MAX_STORAGE_ERRORS` errors: the storage is taken to be down then.
    """
    deleted, errors = False, list[StorageError]()
    for pk in _deleting(Image.objects.all(), limit):
        progress = False
        try:
            with skip_locked():
                progress = _delete_image_batch(pk, store=store, limit=limit)
        except StorageError as error:
            errors.append(error)
        if not progress:
            _requeue(pk)
        deleted |= progress
        if len(errors) == uploads.MAX_STORAGE_ERRORS:
            break
    return deleted, errors


@transaction.atomic
def _requeue(pk: UUID) -> None:
    """Put an image behind all others, unless another transaction has locked its row."""
    unlocked = Image.objects.select_for_update(skip_locked=True).filter(pk=pk, status=Status.DELETING)
    Image.objects.filter(pk__in=list(unlocked.values_list("pk", flat=True))).update(updated_at=DatabaseNow())


def _delete_namespaces(limit: int) -> bool:
    """Run a batch for each namespace; whether that leaves more to do."""
    more = False
    for pk in _deleting(Namespace.objects.all(), limit):
        with skip_locked():
            more |= _delete_namespace_batch(pk, limit=limit)
    return more


def remove_never_pushed(*, limit: int) -> int:
    """Delete images that an upload created and no manifest followed, once no lease is left in them.

    Returns how many were examined; images whose rows are locked are not. None while the clock may be wrong
    (ADR 66).
    """
    before = database_now() - settings.UPLOAD_LIFE
    found = list(idle_images(before).values_list("pk", flat=True)[:limit])
    if not found or clock_watch.check(longest=settings.UPLOAD_LIFE + clock_watch.longest_lease()).reason:
        return 0
    examined = 0
    for pk in found:
        with skip_locked():
            _delete_if_still_idle(idle_images(before), pk)
            examined += 1
    return examined


@transaction.atomic
def _delete_if_still_idle(idle: QuerySet[Image], pk: UUID) -> None:
    locked = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = locked.filter(pk=pk).first()
    # Checked again under the lock: a push that held it before may have left a session or a lease.
    if image is not None and idle.filter(pk=pk).exists():
        images.remove(image, actor=SYSTEM)


def remove_expired_leases(*, limit: int) -> int:
    """Delete up to `limit` leases whose time is over; a blob that nothing else references is garbage then.

    None while the clock may be wrong (ADR 66).
    """
    if clock_watch.check().reason:
        return 0
    if not leases_have_expired():  # without the write lock of a transaction on SQLite
        return 0
    with transaction.atomic():
        return references.release_expired_leases(limit=limit)


@transaction.atomic
def _deleting(found: QuerySet[Any], limit: int) -> list[UUID]:
    """Ids of rows with the status `deleting` that no other transaction has locked, oldest first."""
    unlocked = (
        found.filter(status=Status.DELETING)
        .order_by("updated_at")
        .select_for_update(skip_locked=True, no_key=True)
    )
    return list(unlocked.values_list("pk", flat=True)[:limit])


def _delete_tags(limit: int) -> int:
    deleting = list(Tag.objects.filter(status=Status.DELETING).values_list("image_id", "pk")[:limit])
    of_images: dict[UUID, list[UUID]] = {}
    for image_id, pk in deleting:
        of_images.setdefault(image_id, []).append(pk)
    deleted = 0
    for image_id, pks in of_images.items():
        with skip_locked():
            _delete_tags_of_image(image_id, pks)
            deleted += len(pks)
    return deleted


@transaction.atomic
def _delete_tags_of_image(image_id: UUID, pks: list[UUID]) -> None:
    _lock_image(image_id)
    deleted, _ = Tag.objects.filter(pk__in=pks, status=Status.DELETING).delete()
    Image.objects.filter(pk=image_id).update(tag_rows=F("tag_rows") - deleted)


def _lock_image(image_id: UUID) -> None:
    """Lock an image's row, which comes before those of its tags (invariant 11)."""
    Image.objects.select_for_update().filter(pk=image_id).values_list("pk").first()


def _delete_image_batch(pk: UUID, *, store: BlobStore, limit: int) -> bool:
    """Delete a batch of an image's rows, or the image when none are left; whether rows were deleted."""
    sessions = uploads.close_of_image(pk, limit=limit)
    deleted = uploads.discard(sessions, store=store)
    deleted += _delete_leases(pk, limit=limit) + _delete_content(pk, limit=limit)
    if sessions or deleted:
        return bool(deleted)  # sessions that are left have a request that still writes
    if Image.objects.filter(origin_id=pk).exists():
        return _delete_keepers(pk, limit=limit)
    if recycling.forget_some_of(pk, limit=limit):
        return True
    _delete_image(pk)
    return True


@transaction.atomic
def _delete_keepers(image_id: UUID, *, limit: int) -> bool:
    """Start the deletion of rows that keep manifests of an image in the recycle bin; whether any was left.

    The namespace's row is locked as by a restore, which locks several images.
    """
    of_image = Image.objects.filter(pk=image_id).values("namespace")
    Namespace.objects.select_for_update(no_key=True).filter(pk__in=of_image).values_list("pk").first()
    keepers = Image.objects.select_for_update(of=("self",)).filter(origin_id=image_id, status=Status.RECYCLED)
    found = list(keepers.order_by("pk")[:limit])
    for keeper in found:
        images.mark_deleting(keeper)
    return bool(found)


@transaction.atomic
def _delete_leases(image_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` leases of an image; returns how many.

    In a transaction apart from that of the links, because each inserts rows into the review queue (ADR 52).
    """
    _lock_image(image_id)
    return references.release_leases_of_image(image_id, limit=limit)


@transaction.atomic
def _delete_content(image_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` each of an image's tags and manifests; returns how many rows."""
    _lock_image(image_id)
    tags = _delete_any_tags(image_id, limit=limit)
    Image.objects.filter(pk=image_id).update(tag_rows=F("tag_rows") - tags)
    if tags == limit:
        return tags
    # Locked before all that refers to them: see `sparse`.
    locked = Manifest.objects.filter(image=image_id).select_for_update().order_by("pk")
    found = locked.values_list("pk", flat=True)
    if manifest_ids := list(found[:limit]):
        manifests.delete_rows(manifest_ids, image_id=image_id, cause=Cause.IMAGE_DELETED)
        manifests_removed.send(sender=Manifest, count=len(manifest_ids))
    return tags + len(manifest_ids)


def _delete_any_tags(image_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` tags of an image, whose row is locked; returns how many."""
    tags = [tag_id for (tag_id,) in rows(_SELECT_TAGS, [id_parameter(image_id), limit])]
    if tags:
        execute(f"{_DELETE_TAGS} {placeholders(tags)}", tags)
    return len(tags)


@transaction.atomic
def _delete_image(pk: UUID) -> None:
    # The namespace's row comes before those of its images (invariant 11).
    of_image = Image.objects.filter(pk=pk, origin_id=None).values("namespace")
    namespace = Namespace.objects.select_for_update(no_key=True).filter(pk__in=of_image).first()
    found = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = found.filter(pk=pk, status=Status.DELETING).first()
    if image is None:
        return
    if namespace is not None:  # the others only kept a manifest in the recycle bin, and were not counted
        record(actor=SYSTEM, verb="image.removed", target=images.target_of(image))
        Namespace.objects.filter(pk=namespace.pk).update(image_rows=F("image_rows") - 1)
    image.delete()


@transaction.atomic
def _delete_namespace_batch(pk: UUID, *, limit: int) -> bool:
    """Start the deletion of a batch of a namespace's images, or delete the namespace when none are left.

    Entries of the recycle bin go after the images that they keep.
    """
    # `no_key`: a deletion that holds one of its images references the namespace's row in the recycle bin.
    found = Namespace.objects.select_for_update(of=("self",), no_key=True).select_related("project")
    namespace = found.filter(pk=pk, status=Status.DELETING).first()
    if namespace is None:
        return False
    left = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    remaining = list(left.filter(namespace=pk).order_by("pk")[:limit])
    started = [image for image in remaining if image.status != Status.DELETING]
    for image in started:
        images.remove(image, actor=SYSTEM)
    if remaining:
        return bool(started)  # the batches of the other images say whether there is more to do
    if recycling.forget_some_in(pk, limit=limit):
        return True
    record(actor=SYSTEM, verb="namespace.removed", target=target_of(namespace))
    namespace.delete()
    return False
