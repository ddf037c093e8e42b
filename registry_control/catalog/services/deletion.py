"""Finishes what a DELETE began: bounded steps, each of its own transaction, each repeatable.

A row with the status `deleting` is the job (invariant 8). A worker may be killed at any line, or run
beside another: whoever comes next finds what is left. What somebody else holds at this moment is left for
later: one push that hangs must not keep the worker from all that is to be removed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from psycopg.errors import LockNotAvailable

from registry_control.audit.services import SYSTEM, record
from registry_control.catalog.models import BlobLease, Image, Manifest, Tag, UploadSession
from registry_control.catalog.services import images, uploads
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.services import target_of
from registry_data.storage.base import BlobStore, StorageError

logger = logging.getLogger(__name__)


def run_batch(*, store: BlobStore, limit: int) -> bool:
    """Remove at most about `limit` rows of each kind. Returns whether there may be more to do."""
    tags = _tags(limit)
    images_left, refusals = _images(store, limit)
    namespaces_left = _namespaces(limit)
    if refusals:
        raise refusals[-1]
    return tags == limit or images_left or namespaces_left


@contextmanager
def _skip_locked() -> Iterator[None]:
    """Do something now if the rows that it needs can be had, and leave it for the next step if not."""
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        logger.warning(
            "something that is being deleted is held by somebody, and is left for later: %s", error
        )


def _images(store: BlobStore, limit: int) -> tuple[bool, list[StorageError]]:
    """A step for each image: whether anything went, and what the storage refused until it seemed away."""
    went, refusals = False, list[StorageError]()
    for pk in _deleting(Image.objects.all(), limit):
        gone = False
        try:
            with _skip_locked():
                gone = _image(pk, store=store, limit=limit)
        except StorageError as error:
            refusals.append(error)
        if not gone:
            _requeue(pk)
        went |= gone
        if len(refusals) == uploads.REFUSALS:
            break
    return went, refusals


@transaction.atomic
def _requeue(pk: UUID) -> None:
    """Have an image come after all others the next time; one that is held is passed over as it is."""
    held = Image.objects.select_for_update(skip_locked=True).filter(pk=pk, status=Status.DELETING)
    Image.objects.filter(pk__in=list(held.values_list("pk", flat=True))).update(updated_at=now())


def _namespaces(limit: int) -> bool:
    """A step for each namespace; whether anything went that leaves more to do."""
    more = False
    for pk in _deleting(Namespace.objects.all(), limit):
        with _skip_locked():
            more |= _namespace(pk, limit=limit)
    return more


def remove_never_pushed(*, limit: int) -> int:
    """Remove images that an upload made and no manifest ever followed, once nothing promises them.

    Returns how many were looked at; those that somebody holds are not.
    """
    uploading = UploadSession.objects.filter(image=OuterRef("pk"))
    promised = BlobLease.objects.filter(image=OuterRef("pk"), expires_at__gt=now())
    idle = Image.objects.filter(
        ~Exists(uploading), ~Exists(promised), pushed_at=None, created_at__lte=now() - settings.UPLOAD_LIFE
    ).exclude(status=Status.DELETING)
    looked_at = 0
    for pk in list(idle.values_list("pk", flat=True)[:limit]):
        with _skip_locked():
            _remove_if_still(idle, pk)
            looked_at += 1
    return looked_at


@transaction.atomic
def _remove_if_still(idle: QuerySet[Image], pk: UUID) -> None:
    held = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = held.filter(pk=pk).first()
    # Asked when the row is ours: a push that we waited for left a session or a lease and the row as it was.
    if image is not None and idle.filter(pk=pk).exists():
        images.start_deletion(image, actor=SYSTEM)


def remove_expired_leases(*, limit: int) -> int:
    """Forget promises that are over. What nothing else holds is garbage from then on."""
    expired = BlobLease.objects.filter(expires_at__lte=now()).order_by("expires_at")
    # One that somebody renews at this moment is theirs.
    with transaction.atomic():
        doomed = list(expired.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit])
        return BlobLease.objects.filter(pk__in=doomed).delete()[0]


@transaction.atomic
def _deleting(rows: QuerySet[Any], limit: int) -> list[UUID]:
    """Those of the rows that are to go and that nobody holds; the one that waits longest first."""
    found = rows.filter(status=Status.DELETING).order_by("updated_at").select_for_update(skip_locked=True)
    return list(found.values_list("pk", flat=True)[:limit])


def _tags(limit: int) -> int:
    doomed = list(Tag.objects.filter(status=Status.DELETING).values_list("image_id", "pk")[:limit])
    of_images: dict[UUID, list[UUID]] = {}
    for image_id, pk in doomed:
        of_images.setdefault(image_id, []).append(pk)
    went = 0
    for image_id, pks in of_images.items():
        with _skip_locked():
            _remove_tags(image_id, pks)
            went += len(pks)
    return went


@transaction.atomic
def _remove_tags(image_id: UUID, pks: list[UUID]) -> None:
    _hold(image_id)
    removed, _ = Tag.objects.filter(pk__in=pks, status=Status.DELETING).delete()
    Image.objects.filter(pk=image_id).update(tag_rows=F("tag_rows") - removed)


def _hold(image_id: UUID) -> None:
    """Take an image's row, which comes before those of its tags (invariant 11)."""
    Image.objects.select_for_update().filter(pk=image_id).values_list("pk").first()


def _image(pk: UUID, *, store: BlobStore, limit: int) -> bool:
    """One step for one image, which no push can reach any more; whether anything went."""
    of_image = UploadSession.objects.filter(image=pk)
    of_image.filter(is_open=True).update(is_open=False)
    sessions = list(of_image.order_by("expires_at").values_list("pk", flat=True)[:limit])
    removed = uploads.discard(sessions, store=store)
    leases = BlobLease.objects.filter(image=pk).order_by("pk").values_list("pk", flat=True)[:limit]
    removed += _remove_manifests(pk, limit=limit)
    removed += BlobLease.objects.filter(pk__in=list(leases)).delete()[0]
    if sessions or removed:
        return bool(removed)  # the rest waits for those who still write to it
    _remove_image(pk)
    return True


@transaction.atomic
def _remove_manifests(image_id: UUID, *, limit: int) -> int:
    """Some manifests with their tags; returns how many rows went."""
    _hold(image_id)
    doomed = Manifest.objects.filter(image=image_id).order_by("pk").values_list("pk", flat=True)[:limit]
    removed, of_models = Manifest.objects.filter(pk__in=list(doomed)).only("pk").delete()
    if tags := of_models.get("catalog.Tag", 0):
        Image.objects.filter(pk=image_id).update(tag_rows=F("tag_rows") - tags)
    return removed


@transaction.atomic
def _remove_image(pk: UUID) -> None:
    # The namespace's row comes before those of its images (invariant 11).
    of_image = Image.objects.filter(pk=pk).values("namespace")
    namespace = Namespace.objects.select_for_update().filter(pk__in=of_image).first()
    found = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = found.filter(pk=pk, status=Status.DELETING).first()
    if image is not None and namespace is not None:
        record(actor=SYSTEM, verb="image.removed", target=images.target_of(image))
        image.delete()
        Namespace.objects.filter(pk=namespace.pk).update(image_rows=F("image_rows") - 1)


@transaction.atomic
def _namespace(pk: UUID, *, limit: int) -> bool:
    """One step for one namespace: its images first, and when there are none, itself."""
    found = Namespace.objects.select_for_update(of=("self",)).select_related("project")
    namespace = found.filter(pk=pk, status=Status.DELETING).first()
    if namespace is None:
        return False
    left = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    remaining = list(left.filter(namespace=pk).order_by("pk")[:limit])
    begun = [image for image in remaining if image.status != Status.DELETING]
    for image in begun:
        images.start_deletion(image, actor=SYSTEM)
    if remaining:
        return bool(begun)  # of the others, their own steps say whether there is more
    record(actor=SYSTEM, verb="namespace.removed", target=target_of(namespace))
    namespace.delete()
    return False
