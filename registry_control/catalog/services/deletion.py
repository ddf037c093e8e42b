"""Finishes what a DELETE began: bounded steps, each of its own transaction, each repeatable.

A row with the status `deleting` is the job (invariant 8). A worker may be killed at any line, or run
beside another: whoever comes next finds what is left.
"""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from registry_control.audit.services import SYSTEM, record
from registry_control.catalog.models import BlobLease, Image, Manifest, Tag, UploadSession
from registry_control.catalog.services import images, uploads
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.services import target_of
from registry_data.storage.base import BlobStore


def step(*, store: BlobStore, limit: int) -> bool:
    """Remove at most about `limit` rows of each kind. Returns whether there may be more to do."""
    tags = _tags(limit)
    images_left = [_image(pk, store=store, limit=limit) for pk in _deleting(Image.objects.all(), limit)]
    namespaces_left = [_namespace(pk, limit=limit) for pk in _deleting(Namespace.objects.all(), limit)]
    return tags == limit or any(images_left) or any(namespaces_left)


def remove_never_pushed(*, limit: int) -> int:
    """Remove images that an upload made and no manifest ever followed, once nothing promises them."""
    uploading = UploadSession.objects.filter(image=OuterRef("pk"))
    promised = BlobLease.objects.filter(image=OuterRef("pk"), expires_at__gt=now())
    idle = Image.objects.filter(
        ~Exists(uploading), ~Exists(promised), pushed_at=None, created_at__lte=now() - settings.UPLOAD_LIFE
    ).exclude(status=Status.DELETING)
    doomed = list(idle.values_list("pk", flat=True)[:limit])
    for pk in doomed:
        with transaction.atomic():
            image = (
                idle.select_for_update(of=("self",))
                .select_related("namespace__project")
                .filter(pk=pk)
                .first()
            )
            if image is not None:
                images.start_deletion(image, actor=SYSTEM)
    return len(doomed)


def remove_expired_leases(*, limit: int) -> int:
    """Forget promises that are over. What nothing else holds is garbage from then on."""
    expired = BlobLease.objects.filter(expires_at__lte=now()).order_by("expires_at")
    doomed = list(expired.values_list("pk", flat=True)[:limit])
    return BlobLease.objects.filter(pk__in=doomed, expires_at__lte=now()).delete()[0]


def _deleting(rows: QuerySet[Any], limit: int) -> list[UUID]:
    found = rows.filter(status=Status.DELETING).order_by("updated_at")
    return list(found.values_list("pk", flat=True)[:limit])


def _tags(limit: int) -> int:
    doomed = list(Tag.objects.filter(status=Status.DELETING).values_list("pk", flat=True)[:limit])
    Tag.objects.filter(pk__in=doomed).delete()
    return len(doomed)


def _image(pk: UUID, *, store: BlobStore, limit: int) -> bool:
    """One step for one image, which no push can reach any more; True while there is more of it."""
    UploadSession.objects.filter(image=pk).update(is_open=False)
    sessions = list(UploadSession.objects.filter(image=pk)[:limit])
    for session in sessions:
        uploads.discard(session, store=store)
    manifests = Manifest.objects.filter(image=pk).order_by("pk").values_list("pk", flat=True)[:limit]
    leases = BlobLease.objects.filter(image=pk).order_by("pk").values_list("pk", flat=True)[:limit]
    removed = Manifest.objects.filter(pk__in=list(manifests)).only("pk").delete()[0]
    removed += BlobLease.objects.filter(pk__in=list(leases)).delete()[0]
    if sessions or removed:
        return True
    _remove_image(pk)
    return False


@transaction.atomic
def _remove_image(pk: UUID) -> None:
    found = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    image = found.filter(pk=pk, status=Status.DELETING).first()
    if image is not None:
        record(actor=SYSTEM, verb="image.removed", target=images.target_of(image))
        image.delete()


@transaction.atomic
def _namespace(pk: UUID, *, limit: int) -> bool:
    """One step for one namespace: its images first, and when there are none, itself."""
    found = Namespace.objects.select_for_update(of=("self",)).select_related("project")
    namespace = found.filter(pk=pk, status=Status.DELETING).first()
    if namespace is None:
        return False
    left = Image.objects.select_for_update(of=("self",)).select_related("namespace__project")
    remaining = list(left.filter(namespace=pk).order_by("pk")[:limit])
    for image in remaining:
        images.start_deletion(image, actor=SYSTEM)
    if remaining:
        return True
    record(actor=SYSTEM, verb="namespace.removed", target=target_of(namespace))
    namespace.delete()
    return False
