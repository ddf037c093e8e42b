"""What a deletion leaves in the recycle bin (ADR 60). The app `recycling` restores and empties it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from registry_control.audit.models import ActorKind
from registry_control.audit.services import Actor
from registry_control.common.clock import database_now
from registry_control.common.signals import recycled
from registry_control.namespaces.models import Namespace, RecycleBinEntry

# What promises blobs and receives uploads, which end with the deletion.
_PROMISING: Final = (RecycleBinEntry.Kind.IMAGE, RecycleBinEntry.Kind.NAMESPACE)
TAKEN: Final = "the name is in use again: restore it under another name"


def is_on() -> bool:
    """Whether the installation has a recycle bin."""
    return timedelta() < settings.RECYCLE_BIN


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deleted object. `columns` are those of its row that a restore sets again."""

    name: str
    object_id: UUID
    row_id: UUID | None
    size: int
    columns: Mapping[str, datetime | str | None] = field(default_factory=dict)


def keep(
    kind: RecycleBinEntry.Kind,
    deleted: Iterable[Deleted],
    *,
    namespace: Namespace,
    image_id: UUID | None = None,
    actor: Actor,
) -> None:
    """Insert the entries of deletions in one statement, in the transaction that deletes."""
    moment = database_now()
    made: dict[str, datetime | str | bool] = {
        "deleted_at": moment,
        "deleted_by": actor.name,
        "is_by_rule": actor.kind is ActorKind.SYSTEM,
        "expires_at": moment + settings.RECYCLE_BIN,
    }
    _insert(kind, deleted, namespace=namespace, image_id=image_id, made=made)
    recycled.send(sender=RecycleBinEntry)


def leave(
    kind: RecycleBinEntry.Kind, deleted: Iterable[Deleted], *, namespace: Namespace, of: RecycleBinEntry
) -> None:
    """Insert entries for what a restore leaves in the recycle bin, with the times of the entry `of` it."""
    made = {name: getattr(of, name) for name in ("deleted_at", "deleted_by", "is_by_rule", "expires_at")}
    _insert(kind, deleted, namespace=namespace, image_id=of.image_id, made=made)


def _insert(
    kind: RecycleBinEntry.Kind,
    deleted: Iterable[Deleted],
    *,
    namespace: Namespace,
    image_id: UUID | None,
    made: Mapping[str, datetime | str | bool],
) -> None:
    RecycleBinEntry.objects.bulk_create(
        RecycleBinEntry(
            kind=kind,
            name=each.name,
            namespace=namespace,
            organization_id=namespace.project.organization_id,
            object_id=each.object_id,
            image_id=image_id,
            row_id=each.row_id,
            size=each.size,
            is_settled=kind not in _PROMISING,
            **made,
            **each.columns,
        )
        for each in deleted
    )


def forget(row_id: UUID) -> None:
    """Delete the entry of a namespace or image that is about to be deleted for good."""
    RecycleBinEntry.objects.filter(row_id=row_id).delete()


def forget_some_of(image_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` entries in an image that is being deleted for good; returns how many."""
    return _forget(RecycleBinEntry.objects.filter(image_id=image_id), limit)


def forget_some_in(namespace_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` entries in a namespace that is being deleted for good; returns how many."""
    return _forget(RecycleBinEntry.objects.filter(namespace=namespace_id), limit)


def _forget(entries: QuerySet[RecycleBinEntry], limit: int) -> int:
    found = list(entries.order_by("pk").values_list("pk", flat=True)[:limit])
    deleted, _ = RecycleBinEntry.objects.filter(pk__in=found).delete()
    return deleted
