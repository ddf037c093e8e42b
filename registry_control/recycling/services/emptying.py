"""Takes entries out of the recycle bin for good, and ends what deleted images had promised.

What leaves the bin gets the status `deleting`; the worker deletes its rows, and then the grace period of its
blobs begins.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import SYSTEM, Actor, Target, record, record_many
from registry_control.catalog import references
from registry_control.catalog.models import Image, UploadSession
from registry_control.catalog.selectors.recycled import image_with_promises
from registry_control.catalog.services import images
from registry_control.catalog.services.deletion import skip_locked
from registry_control.common import clock_watch
from registry_control.common.errors import NotFound
from registry_control.common.models import Status
from registry_control.common.signals import deletion_started
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import batches
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.selectors import get_entry
from registry_control.recycling.services.locks import Locked, lock

Kind = RecycleBinEntry.Kind
_AT_ONCE: Final = 50  # entries in one transaction


@transaction.atomic
def purge(*, principal: Principal, entry_id: UUID) -> RecycleBinEntry:
    """Delete for good what an entry keeps; returns the entry.

    Raises:
        NotFound: there is no such entry, or the principal may not know of it.
        PermissionsDenied: the principal may see its namespace and not administer it.
    """
    get_entry(principal, entry_id, action="delete")
    return purge_entry(entry_id, actor=actor_of(principal))


@transaction.atomic
def purge_entry(entry_id: UUID, *, actor: Actor) -> RecycleBinEntry:
    """Delete for good, for an actor that has been authorized.

    Raises:
        NotFound: there is no such entry any more.
    """
    locked = lock(entry_id)
    _purge(locked, actor=actor, verb="purge")
    return locked.entry


def expire(*, limit: int) -> bool:
    """Delete for good what up to `limit` expired entries keep; whether there may be more to do.

    None while the clock may be wrong (ADR 66).
    """
    expired = RecycleBinEntry.objects.filter(expires_at__lte=DatabaseNow()).order_by("expires_at")
    found = list(expired.values_list("pk", "deleted_at", "expires_at")[:limit])
    longest = max((expires_at - deleted_at for _, deleted_at, expires_at in found), default=None)
    if longest is None or clock_watch.check(longest=longest).reason:
        return False
    done = _purge_all([entry_id for entry_id, *_ in found], verb="expire")
    return len(found) == limit and done > 0


def empty(*, limit: int) -> int:
    """Delete for good what up to `limit` entries keep, expired or not; returns how many entries."""
    found = RecycleBinEntry.objects.order_by("deleted_at").values_list("pk", flat=True)[:limit]
    return _purge_all(list(found), verb="purge")


def _purge_all(entry_ids: Sequence[UUID], *, verb: str) -> int:
    """Delete entries for good, those of tags and manifests several in each transaction; returns how many."""
    kinds = dict(RecycleBinEntry.objects.filter(pk__in=entry_ids).values_list("pk", "kind"))
    many = [pk for pk, kind in kinds.items() if kind in (Kind.TAG, Kind.MANIFEST)]
    done = sum(_purge_content(part, verb=verb) for part in batches(many, _AT_ONCE))
    return done + sum(_try(partial(_purge_one, verb=verb), pk) for pk in kinds if pk not in many)


@transaction.atomic
def _purge_content(entry_ids: Sequence[UUID], *, verb: str) -> int:
    """Delete entries of tags and manifests for good; returns how many.

    Skips locked rows, so it waits for no other transaction while it holds locks.
    """
    of_entries = RecycleBinEntry.objects.filter(pk__in=entry_ids, row_id__isnull=False)
    keepers = Image.objects.filter(pk__in=list(of_entries.values_list("row_id", flat=True)))
    keepers = keepers.select_for_update(skip_locked=True).order_by("pk")
    kept = list(keepers.values_list("pk", flat=True))
    in_reach = Q(row_id__isnull=True) | Q(row_id__in=kept)
    found = RecycleBinEntry.objects.filter(in_reach, pk__in=entry_ids)
    entries = list(found.select_for_update(skip_locked=True).order_by("pk"))
    for kind, of_kind in groupby(sorted(entries, key=_kind), key=_kind):
        events = [(_target(each), dict[str, str]()) for each in of_kind]
        record_many(events, actor=SYSTEM, verb=f"{kind}.{verb}")
    RecycleBinEntry.objects.filter(pk__in=[entry.pk for entry in entries]).delete()
    if doomed := [entry.row_id for entry in entries if entry.row_id is not None]:
        Image.objects.filter(pk__in=doomed).update(status=Status.DELETING, updated_at=DatabaseNow())
        deletion_started.send(sender=Image)
    return len(entries)


def _kind(entry: RecycleBinEntry) -> str:
    return entry.kind


def _target(entry: RecycleBinEntry) -> Target:
    return Target(entry.kind, entry.object_id, entry.name, entry.organization_id)


def _try(step: Callable[[UUID], None], entry_id: UUID) -> bool:
    """Run a step for one entry; False if the entry was restored or purged meanwhile, or rows are locked."""
    done = False
    with skip_locked(), suppress(NotFound):
        step(entry_id)
        done = True
    return done


@transaction.atomic
def _purge_one(entry_id: UUID, *, verb: str) -> None:
    _purge(lock(entry_id), actor=SYSTEM, verb=verb)


def _purge(locked: Locked, *, actor: Actor, verb: str) -> None:
    entry = locked.entry
    record(actor=actor, verb=f"{entry.kind}.{verb}", target=_target(entry))
    RecycleBinEntry.objects.filter(pk=entry.pk).delete()
    if entry.kind == Kind.NAMESPACE:
        namespaces.mark_deleting(locked.namespace)
    elif locked.keeper is not None:
        images.mark_deleting(locked.keeper)
        deletion_started.send(sender=Image)


def settle(*, entries: int, limit: int) -> bool:
    """End up to `limit` leases and uploads each of some entries; whether there may be more to do.

    A promise belongs to its image: it ends with the deletion of the image, whether or not that is restored.
    """
    unsettled = RecycleBinEntry.objects.filter(is_settled=False).order_by("pk")
    found = list(unsettled.values_list("pk", flat=True)[:entries])
    settled = [_try(lambda pk: _settle(pk, limit), entry_id) for entry_id in found]
    return any(settled)


@transaction.atomic
def _settle(entry_id: UUID, limit: int) -> None:
    """Run a batch for one entry, which is settled when nothing is left to end."""
    locked = lock(entry_id)
    if locked.entry.kind == Kind.NAMESPACE:
        ended = _end_promises_in(locked.namespace, limit)
    else:
        ended = locked.keeper is not None and _end_promises_of(locked.keeper, limit)
    if not ended:
        RecycleBinEntry.objects.filter(pk=entry_id).update(is_settled=True)


def _end_promises_in(namespace: Namespace, limit: int) -> bool:
    """End promises of some images of a namespace in the bin; whether there were any."""
    image_id = image_with_promises(namespace.pk)
    if image_id is None:
        return False
    return _end_promises_of(Image.objects.select_for_update().get(pk=image_id), limit)


def _end_promises_of(image: Image, limit: int) -> bool:
    """End up to `limit` leases and uploads each of an image in the bin; whether there were any."""
    open_uploads = UploadSession.objects.filter(image=image, is_open=True).values_list("pk", flat=True)
    closed = UploadSession.objects.filter(pk__in=list(open_uploads[:limit])).update(is_open=False)
    return references.release_leases_of_image(image.pk, limit=limit) + closed > 0
