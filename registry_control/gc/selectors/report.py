"""Why the disk has not shrunk: what keeps the stored bytes, in figures of bounded cost."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from django.conf import settings
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Coalesce

from registry_control.access.policy import Principal
from registry_control.access.selectors import require_operator
from registry_control.catalog.models import Image
from registry_control.catalog.selectors.holders import deletions_pending
from registry_control.catalog.selectors.staging import staged
from registry_control.common.clock_watch import shared_reason
from registry_control.common.findings import Finding, plural
from registry_control.common.models import NOT_DELETING, Status
from registry_control.common.signals import findings_requested
from registry_control.db.sql import rows
from registry_control.gc.models import Inventory
from registry_control.gc.selectors import inventory, queue
from registry_control.gc.selectors.breaker import stopped_reason
from registry_control.gc.selectors.queue import RESOURCE
from registry_control.namespaces.models import Namespace

# Of the blobs that are being deleted, a thousand: there may be millions that the storage refuses to delete.
_FAILING: Final = """
SELECT failing.error, COUNT(*) FROM (
    SELECT r.error FROM catalog_blobreview r WHERE r.retry_at IS NOT NULL AND r.attempts > 0
    ORDER BY r.blob_id LIMIT 1000
) failing GROUP BY failing.error ORDER BY COUNT(*) DESC, failing.error LIMIT 10
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Content that is stored, and what would have to happen for it to go."""

    title: str
    blobs: int
    bytes: int
    advice: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the storage, and how many of the first thousand failed deletions got it."""

    error: str
    blobs: int


@dataclass(frozen=True, slots=True)
class Report:
    """The answer."""

    counted_at: datetime | None  # the time of the lines; None: nothing has been counted yet
    lines: Sequence[Line]
    queue: queue.Summary
    failures: Sequence[Failure]
    findings: Sequence[Finding]  # what an operator should look at
    stopped: str  # why the circuit breaker has stopped the collector
    held: str  # why nothing is deleted by its age


def report_to(principal: Principal, *, grace: timedelta) -> Report:
    """Compute the report.

    Raises:
        PermissionsDenied: the principal may not operate the installation.
    """
    require_operator(principal, "read", RESOURCE)
    return report(grace=grace)


def report(*, grace: timedelta) -> Report:
    """Compute the report, for a caller that has been authorized."""
    counted = inventory.newest()
    return Report(
        counted_at=None if counted is None else counted.finished_at,
        lines=[] if counted is None else [*_lines(counted)],
        queue=queue.summarize(grace=grace),
        failures=[Failure(error, int(number)) for error, number in rows(_FAILING, [])],
        findings=[*_findings(), *_findings_of_other_apps()],
        stopped=stopped_reason(),
        held=shared_reason(),
    )


def _lines(counted: Inventory) -> Iterator[Line]:
    """One line for each reason why content is stored; the first reason that applies to a blob counts."""
    yield Line(
        "Tagged",
        counted.tagged_blobs,
        counted.tagged_bytes,
        "Tags reach it. Delete tags, images or namespaces, or let retention rules do so.",
    )
    yield Line(
        "Untagged",
        counted.untagged_blobs,
        counted.untagged_bytes,
        "Only manifests without a tag list it. They stay until a request or a retention rule deletes them.",
    )
    yield Line(
        "Leased",
        counted.leased_blobs,
        counted.leased_bytes,
        "A push has uploaded or found it, and its manifest is missing. The lease ends after REGISTRY_LEASE.",
    )
    yield Line(
        "Waiting",
        counted.unreferenced_blobs,
        counted.unreferenced_bytes,
        "Nothing refers to it. It goes when REGISTRY_GC_GRACE is over.",
    )
    yield Line(
        "Being deleted",
        counted.deleting_blobs,
        counted.deleting_bytes,
        "The collector has marked it. It goes as soon as the storage deletes it.",
    )


def _findings() -> Iterator[Finding]:
    """What else keeps bytes, or makes the lines above wrong."""
    kept, size = _recycled()
    if kept:
        yield Finding(
            "recycle_bin",
            f"The recycle bin has {plural(kept, 'image or manifest', 'images and manifests')} of {size}"
            " bytes, of which other images may need a part; they count as tagged or untagged above. Purge"
            " their entries to free the space earlier.",
            kept,
            size,
        )
    if held := shared_reason(longest=settings.RECYCLE_BIN):
        yield Finding("recycle_bin_held", f"The recycle bin waits: {held}.")
    if deletions_pending():
        yield Finding(
            "deletions",
            "The worker has yet to remove rows of deleted namespaces, images or tags; their content counts.",
        )
    yield from _uploads()


def _uploads() -> Iterator[Finding]:
    """Bytes of uploads, which no line above counts."""
    found = staged()
    life = int(settings.UPLOAD_LIFE.total_seconds())
    if found.open:
        yield Finding(
            "uploads",
            f"{plural(found.open, 'upload')} that can be resumed, with at least {found.open_bytes} bytes"
            f" outside of the blobs. Each expires {life} s after its last chunk.",
            found.open,
            found.open_bytes,
        )
    if found.closed:
        yield Finding(
            "closed_uploads",
            f"{plural(found.closed, 'finished, cancelled or expired upload')} with bytes that the worker"
            " has yet to remove.",
            found.closed,
        )


def _findings_of_other_apps() -> Iterator[Finding]:
    for _, found in findings_requested.send(sender=Finding):
        yield from cast("Iterable[Finding]", found)  # django-stubs: a receiver returns text


def _recycled() -> tuple[int, int]:
    """The images and manifests in the recycle bin, by themselves or with their namespace, and their bytes.

    Two queries, each of which has an index: one with OR would scan all images.
    """
    namespaces = Namespace.objects.filter(status=Status.RECYCLED).values_list("pk", flat=True)
    parts = (
        Image.objects.filter(status=Status.RECYCLED),
        Image.objects.filter(NOT_DELETING, ~Q(status=Status.RECYCLED), namespace__in=list(namespaces)),
    )
    counted = [
        part.aggregate(images=Count("pk"), bytes=Coalesce(Sum(F("size") + F("untagged_size")), 0))
        for part in parts
    ]
    return sum(each["images"] for each in counted), sum(each["bytes"] for each in counted)
