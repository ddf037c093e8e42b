"""What a deletion leaves in the recycle bin (ADR 60). The app `recycling` restores and empties it."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings

from registry_control.audit.services import Actor
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.common.signals import recycled
from registry_control.namespaces.models import Namespace, RecycleBinEntry

TAKEN: Final = "the name is in use again: restore it under another name, with `name` in the body"


def is_on() -> bool:
    """Whether the installation has a recycle bin."""
    return timedelta() < settings.RECYCLE_BIN


def keep(
    kind: RecycleBinEntry.Kind,
    *,
    namespace: Namespace,
    name: str,
    object_id: UUID,
    image_id: UUID | None = None,
    row_id: UUID | None,
    size: int,
    actor: Actor,
    former_status: str = Status.READY,
    pushed_at: datetime | None = None,
) -> None:
    """Insert the entry of a deletion, in the transaction that deletes."""
    moment = now()
    RecycleBinEntry.objects.create(
        kind=kind,
        name=name,
        namespace=namespace,
        organization_id=namespace.project.organization_id,
        object_id=object_id,
        image_id=image_id,
        row_id=row_id,
        size=size,
        deleted_at=moment,
        deleted_by=actor.name,
        expires_at=moment + settings.RECYCLE_BIN,
        is_settled=row_id is None,
        former_status=former_status,
        pushed_at=pushed_at,
    )
    recycled.send(sender=RecycleBinEntry)


def forget(row_id: UUID) -> None:
    """Delete the entry of a namespace or image that is about to be deleted for good."""
    RecycleBinEntry.objects.filter(row_id=row_id).delete()


def forget_some_in(namespace_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` entries in a namespace that is being deleted for good; returns how many."""
    found = RecycleBinEntry.objects.filter(namespace=namespace_id).order_by("pk").values_list("pk", flat=True)
    deleted, _ = RecycleBinEntry.objects.filter(pk__in=list(found[:limit])).delete()
    return deleted
