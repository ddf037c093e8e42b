"""What scrubbing and reconciling have found, for operators of the installation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from django.conf import settings
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce

from registry_control.access.policy import Principal
from registry_control.access.selectors import require_operator
from registry_control.catalog.selectors.holders import names_of_images_with
from registry_control.common.clock import database_now
from registry_control.db.sql import row, time_parameter
from registry_control.integrity.models import IS_OPEN, BlobCheck, BlobFault, Job, UnknownObject
from registry_control.integrity.selectors import counts
from registry_control.integrity.selectors.due import totals

RESOURCE: Final = "registry_gc"
MOST: Final = 500  # findings of one kind
_REASONS: Final = 10
_COUNTED_EVERY: Final = timedelta(hours=1)
_DEFAULT_PERIOD: Final = timedelta(days=30)  # that coverage is told of while scrubbing is off
_UNCOVERED: Final = """
SELECT COALESCE(SUM(size), 0) FROM catalog_blob
WHERE state = 'live' AND COALESCE(verified_at, created_at) <= %s
"""


class State(StrEnum):
    """States of a finding, as the API names them."""

    QUARANTINED = "quarantined"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding, and the images that have the blob."""

    digest: str
    images: Sequence[str]
    found_at: datetime
    state: State
    detail: str
    healed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The last comparison of database and storage, and the objects that no row knows."""

    period: int  # seconds, 0 if it is off
    started_at: datetime | None
    finished_at: datetime | None  # None while it runs
    unknown_objects: int
    unknown_bytes: int
    foreign_objects: int


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the stored content as a whole."""

    period: int  # seconds, 0 if scrubbing is off
    covered: float  # share of bytes
    damaged: Sequence[Fault]
    missing: Sequence[Fault]
    counted: Mapping[str, counts.Faults]  # all findings of each kind, also those that the lists lack
    waiting: int  # blobs to look at again, the quarantined ones included
    reconcile: Reconciled
    errors: Sequence[str]

    @property
    def damaged_total(self) -> int:
        """The number of findings that `damaged` would have without its limit."""
        return self.counted[BlobFault.Kind.DAMAGED].listed

    @property
    def missing_total(self) -> int:
        """The number of findings that `missing` would have without its limit."""
        return self.counted[BlobFault.Kind.MISSING].listed

    @property
    def quarantined_total(self) -> int:
        """The number of blobs that are damaged or missing now."""
        return sum(each.open for each in self.counted.values())


def report(principal: Principal, *, period: timedelta) -> Report:
    """The findings.

    Raises:
        PermissionsDenied: the principal may not operate the installation.
    """
    require_operator(principal, "read", RESOURCE)
    return full_report(period=period)


def full_report(*, period: timedelta) -> Report:
    """The findings, for a caller that has been authorized."""
    damaged, missing = _newest(BlobFault.Kind.DAMAGED), _newest(BlobFault.Kind.MISSING)
    images = names_of_images_with([found.blob_id for found in (*damaged, *missing)])
    return Report(
        period=int(period.total_seconds()),
        covered=covered(period or _DEFAULT_PERIOD),
        damaged=[_fault(found, images[found.blob_id]) for found in damaged],
        missing=[_fault(found, images[found.blob_id]) for found in missing],
        counted=counts.faults(),
        waiting=BlobCheck.objects.count(),
        reconcile=reconciled(),
        errors=errors(),
    )


def reconciled() -> Reconciled:
    """The state of reconciling."""
    job = Job.objects.filter(pk=Job.Name.RECONCILE).first() or Job()
    left = UnknownObject.objects.aggregate(number=Count("pk"), size=Coalesce(Sum("size"), 0))
    return Reconciled(
        period=int(settings.RECONCILE_PERIOD.total_seconds()),
        started_at=job.started_at,
        finished_at=job.finished_at,
        unknown_objects=left["number"],
        unknown_bytes=left["size"],
        foreign_objects=job.counts.get("foreign", 0),
    )


def errors() -> list[str]:
    """The errors of the last slices of background work, and of blobs that cannot be read."""
    of_jobs = [f"{job.name}: {job.error}" for job in Job.objects.exclude(error="").order_by("name")]
    unreadable = BlobCheck.objects.filter(failed_at__isnull=False)
    of_blobs = list(
        unreadable.values_list("reason").annotate(number=Count("pk")).order_by("-number")[:_REASONS]
    )
    found = of_jobs + [f"{number} blobs cannot be read: {reason}" for reason, number in of_blobs]
    if len(of_blobs) == _REASONS:
        others = unreadable.count() - sum(number for _, number in of_blobs)
        found += [f"{others} more blobs cannot be read, for other reasons"] * (others > 0)
    return found


def covered(period: timedelta) -> float:
    """The share of bytes that were hashed within the period, at their upload or by scrubbing."""
    moment = database_now()
    found = row(_UNCOVERED, [time_parameter(moment - period)])
    uncovered = int(found[0]) if found else 0
    if not uncovered:
        return 1.0
    counted = Job.objects.filter(pk=Job.Name.SCRUB, counted_at__gt=moment - _COUNTED_EVERY).first()
    size = counted.total_bytes if counted else totals().bytes
    return round(1 - uncovered / max(size, uncovered), 4)


def quarantined(faults: Sequence[Fault]) -> list[Fault]:
    """Those of the findings whose content is damaged or missing now."""
    return [fault for fault in faults if fault.state is State.QUARANTINED]


def _newest(kind: BlobFault.Kind) -> list[BlobFault]:
    """The open findings first, then the healed ones, the newest of each first."""
    found = BlobFault.objects.filter(kind=kind).order_by("-found_at", "-pk")
    both = [*found.filter(IS_OPEN)[:MOST], *found.filter(healed_at__isnull=False)[:MOST]]
    return both[:MOST]


def _fault(found: BlobFault, images: Sequence[str]) -> Fault:
    state = State.QUARANTINED if found.healed_at is None else State.HEALED
    return Fault(found.digest, images, found.found_at, state, found.detail, found.healed_at)
