"""Scrubbing and reconciling in the calling process, for `manage.py`. Workers may run beside it."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from registry_control.common.clock import database_now
from registry_control.integrity.models import BlobCheck
from registry_control.integrity.policy import CONFIRM_AFTER
from registry_control.integrity.selectors.due import (
    BEGIN,
    Position,
    StoredBlob,
    blob_with_digest,
    longest_unverified,
)
from registry_control.integrity.selectors.report import reconciled
from registry_control.integrity.services import checks, reconcile, scrub, unknown
from registry_control.integrity.services.checks import Looks
from registry_control.integrity.services.reading import Pace
from registry_data.storage.base import BlobStore

_BATCH: Final = 100
_SLICE: Final = 500
_SHOWN: Final = 20
_PAUSE: Final = 0.5  # seconds between two attempts to take second looks, which a worker may be taking
_LONGEST_WAIT: Final = 600.0  # seconds without a full batch of second looks


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has read, and errors of the storage."""

    blobs: int
    bytes: int
    errors: Sequence[str]


def scrub_all(store: BlobStore, *, bytes_per_second: int | None, accept_losses: bool) -> Outcome:
    """Read all content, the longest unverified first, and confirm what seems to be wrong."""
    began, after, blobs, size = database_now(), BEGIN, 0, 0
    errors: list[str] = []
    pace = Pace(bytes_per_second)
    BlobCheck.objects.filter(attempts__gt=0).update(due_at=began)
    while found := longest_unverified(until=began, after=after, limit=_BATCH):
        result = scrub.read(found, store, pace)
        errors += filter(None, [result.error])
        if result.is_down:
            break
        after = Position(found[-1].verified_at, found[-1].id)
        blobs += len(found)
        size += sum(each.size for each in found)
    errors += confirm(store, _looks(bytes_per_second, accept_losses=accept_losses))
    return Outcome(blobs, size, list(dict.fromkeys(errors)))


def scrub_some(
    digests: Sequence[str], store: BlobStore, *, bytes_per_second: int | None, accept_losses: bool
) -> Outcome:
    """Read and confirm the content of some digests, and of no others. Those that no blob has are errors."""
    blobs: list[StoredBlob] = []
    errors: list[str] = []
    for digest in digests:
        blob = blob_with_digest(digest)
        if blob is None:
            errors.append(f"the registry has no blob {digest}")
        else:
            blobs.append(blob)
    looks = _looks(bytes_per_second, accept_losses=accept_losses, only=[blob.id for blob in blobs])
    looks.queue().filter(attempts__gt=0).update(due_at=database_now())
    errors += filter(None, [scrub.read(blobs, store, Pace(bytes_per_second)).error])
    errors += confirm(store, looks)
    return Outcome(len(blobs), sum(blob.size for blob in blobs), list(dict.fromkeys(errors)))


def _looks(
    bytes_per_second: int | None, *, accept_losses: bool, only: Collection[int] | None = None
) -> Looks:
    looks = Looks(only=only, accept_losses=accept_losses)
    return looks if bytes_per_second is None else replace(looks, bytes_per_second=bytes_per_second)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a pass of reconciling has seen and done."""

    rows: int
    objects: int
    queued: int  # blobs without references that garbage collection had lost sight of
    removed: int  # unknown objects
    unknown: int  # that wait for the end of their grace period
    unknown_bytes: int
    foreign: int
    foreign_names: Sequence[str]  # some of them
    errors: Sequence[str]


def reconcile_all(
    store: BlobStore, *, grace: timedelta, accept_losses: bool = False, remove_unknown: bool = False
) -> Comparison:
    """Compare all rows and objects now, confirm what seems to be lost, and remove what is due."""
    counts, names, errors = Counter[str](), list[str](), list[str]()
    BlobCheck.objects.filter(attempts__gt=0).update(due_at=database_now())
    for phase in (reconcile.ROWS, reconcile.OBJECTS):
        cursor: str | None = ""
        while cursor is not None:
            done = reconcile.compare(store, phase, cursor, limit=_SLICE, accept_losses=accept_losses)
            counts.update(done.counts)
            names += done.foreign
            cursor = done.next
            if done.error:
                errors.append(done.error)
                break
    errors += confirm(store, Looks(accept_losses=accept_losses))
    removal = unknown.Removal()
    if not errors:
        removal = unknown.remove_due(store, grace=grace, even_most=remove_unknown)
        errors += filter(None, [removal.error, removal.held])
    left = reconciled()
    return Comparison(
        rows=counts["rows"],
        objects=counts["objects"],
        queued=counts["queued"],
        removed=removal.objects,
        unknown=left.unknown_objects,
        unknown_bytes=left.unknown_bytes,
        foreign=counts["foreign"],
        foreign_names=names[:_SHOWN],
        errors=list(dict.fromkeys(errors)),
    )


def confirm(store: BlobStore, looks: Looks) -> Sequence[str]:
    """Take the second looks that are due within seconds; returns the errors of those that failed.

    If losses are accepted, also those that workers postponed or postpone meanwhile, because they accept none.
    """
    until, deadline = database_now() + 2 * CONFIRM_AFTER, time.monotonic() + _LONGEST_WAIT
    began = database_now()
    while time.monotonic() < deadline:
        if looks.accept_losses:
            looks.refused().update(due_at=began)
        if not looks.queue().filter(due_at__lte=until).exists():
            break
        looked_at = time.monotonic()
        if checks.work(store, looks):
            deadline = time.monotonic() + _LONGEST_WAIT
        else:
            deadline += time.monotonic() - looked_at  # one look at a large blob may take longer, by the rate
            time.sleep(_PAUSE)
    if looks.accept_losses and looks.refused().exists():
        return [checks.WRONG_STORE]
    failed = looks.queue().filter(failed_at__gte=began)
    return list(dict.fromkeys(failed.values_list("reason", flat=True)[:20]))
