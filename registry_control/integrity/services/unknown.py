"""Objects that no row knows: recorded when first seen, and removed after the grace period (ADR 63)."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db import transaction
from django.db.models import Q, QuerySet

from registry_control.audit.services import SYSTEM, Target, record
from registry_control.common import clock_watch
from registry_control.common.background import is_stopping
from registry_control.common.clock import database_now
from registry_control.integrity.models import UnknownObject
from registry_control.integrity.policy import retry_after
from registry_control.integrity.selectors.comparison import fewer_blobs_than, known_again
from registry_data.storage.base import BlobStore, Kind, StorageError, StoredObject

logger = logging.getLogger(__name__)

_BATCH: Final = 100
_LONGEST: Final = 255  # characters of an error or name
_PLAUSIBLE: Final = 20
"""So many unknown objects are removed in any case; crashes and lost power leave some."""
WRONG_DATABASE: Final = (
    "the storage has more objects that the database does not know than the database has blobs, so none is"
    " removed: check that this is the database of this storage, and that no other installation uses the"
    " storage; if they are garbage, run `manage.py reconcile --remove-unknown`"
)


def note(found: Sequence[StoredObject]) -> None:
    """Record unknown objects; the time when one was first seen stays."""
    moment = database_now()
    rows = [
        UnknownObject(
            name=each.name, kind=each.kind.value, upload=each.upload, size=each.size, first_seen_at=moment
        )
        for each in found
        if len(each.name) <= _LONGEST
    ]
    if rows:
        with transaction.atomic():
            UnknownObject.objects.bulk_create(rows, ignore_conflicts=True)


def is_due(*, grace: timedelta) -> bool:
    """Whether there is an object to remove now."""
    return _due(database_now(), grace).exists()


class Removal(NamedTuple):
    """What was removed, the error that ended it, and why nothing may go by its age at present."""

    objects: int = 0
    error: str = ""
    held: str = ""


def remove_due(store: BlobStore, *, grace: timedelta, even_most: bool = False) -> Removal:
    """Remove objects that were first seen a grace period ago and are still unknown.

    Unless `even_most` is set, nothing is removed while more objects are unknown than the registry has blobs.
    """
    removed, error = 0, ""
    while not error and not is_stopping() and (due := list(_due(database_now(), grace)[:_BATCH])):
        if held := clock_watch.check(longest=grace).reason:
            return Removal(removed, held=held)
        if not even_most and _is_implausible():
            return Removal(removed, WRONG_DATABASE)
        batch = _remove(due, store)
        removed, error = removed + batch.objects, batch.error
    return Removal(removed, error)


def _due(moment: datetime, grace: timedelta) -> QuerySet[UnknownObject]:
    ready = Q(retry_at__isnull=True) | Q(retry_at__lte=moment)
    return UnknownObject.objects.filter(ready, first_seen_at__lte=moment - grace).order_by(
        "first_seen_at", "pk"
    )


def _is_implausible() -> bool:
    number = UnknownObject.objects.count()
    return number > _PLAUSIBLE and fewer_blobs_than(number)


def _remove(due: Sequence[UnknownObject], store: BlobStore) -> Removal:
    known = known_again(due)
    UnknownObject.objects.filter(pk__in=known).delete()
    removed, error = 0, ""
    for each in due:
        if each.pk in known:
            continue
        try:
            store.remove_object(Kind(each.kind), each.name)
        except StorageError as failure:
            error = str(failure)
            _postpone(each, error)
        else:
            _record_removal(each)
            removed += 1
    return Removal(removed, error)


def _postpone(found: UnknownObject, error: str) -> None:
    found.attempts += 1
    found.error = error[:_LONGEST]
    found.retry_at = database_now() + retry_after(found.attempts)
    found.save(update_fields=["attempts", "error", "retry_at"])
    logger.warning("the unknown object %s cannot be removed now: %s", found.name, error)


@transaction.atomic
def _record_removal(found: UnknownObject) -> None:
    """One audit row, whichever of several workers deletes the row."""
    deleted, _ = UnknownObject.objects.filter(pk=found.pk).delete()
    if deleted:
        target = Target("unknownobject", found.pk, found.name, None)
        seen = found.first_seen_at.isoformat()
        record(actor=SYSTEM, verb="object.removed", target=target, size=found.size, first_seen_at=seen)
