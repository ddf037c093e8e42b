"""Figures of the installation in the text format of Prometheus (ADR 67).

All values are read from the database, so every control node returns the same, and a restart resets none. The
number of queries does not depend on the number of rows.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from registry_control.catalog.selectors.staging import staged
from registry_control.common.background import Queue
from registry_control.common.clock import database_now
from registry_control.common.clock_watch import shared_reason
from registry_control.common.version import version
from registry_control.gc.selectors import inventory, queue
from registry_control.integrity.selectors import counts, report
from registry_control.recycling.selectors import whole_bin
from registry_control.replication import selectors as replication

_NEVER: Final = float("inf")
_KEPT: Final = ("tagged", "untagged", "leased", "unreferenced", "deleting")


def exposition(heartbeats: Mapping[str, timedelta]) -> bytes:
    """All figures of this moment in the text format, given the ages of the last heartbeats of the queues."""
    registry = CollectorRegistry()
    registry.register(_Figures(heartbeats))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, heartbeats: Mapping[str, timedelta]) -> None:
        self._heartbeats = heartbeats

    def collect(self) -> Iterator[Metric]:
        """Read the figures of each part."""
        yield _by("build_info", "The version of the registry.", "version", {version(): 1})
        for part in (_collector, _stored, _recycle_bin, _integrity, _replication):
            yield from part()
        ages = {queue.value: _NEVER for queue in Queue}
        ages |= {name: age.total_seconds() for name, age in self._heartbeats.items()}
        text = (
            "Age of the last heartbeat of any worker of this queue, which has one every 10 seconds;"
            " +Inf if none was ever seen."
        )
        yield _by("worker_heartbeat_age_seconds", text, "queue", ages)


def _collector() -> Iterator[Metric]:
    waiting = queue.summarize(grace=settings.GC_GRACE)
    yield _gauge("gc_queue_entries", "Unreferenced blobs that wait for their deletion.", waiting.entries)
    yield _gauge("gc_queue_bytes", "Their bytes.", waiting.bytes)
    yield _gauge(
        "gc_queue_overdue_seconds",
        "For how long the oldest is due; 0 if none is.",
        _since(waiting.oldest_due_at),
    )
    stopped = {"breaker": waiting.stopped_by_breaker, "clock": bool(shared_reason())}
    yield _by("gc_stopped", "1 while something keeps the collector from deleting.", "by", stopped)
    removed = queue.removed_in_total()
    yield _counter("gc_removed_blobs", "Blobs that garbage collection has deleted.", removed.blobs)
    yield _counter("gc_removed_bytes", "Their bytes.", removed.bytes)
    yield _counter("gc_removed_manifests", "Manifests of deleted images.", removed.manifests)


def _stored() -> Iterator[Metric]:
    counted = inventory.newest()
    if counted is not None:
        blobs = {kept: getattr(counted, f"{kept}_blobs") for kept in _KEPT}
        size = {kept: getattr(counted, f"{kept}_bytes") for kept in _KEPT}
        yield _by(
            "blobs", "Stored blobs by what keeps them, counted every minute or every hour.", "kept", blobs
        )
        yield _by("blob_bytes", "Their bytes.", "kept", size)
    uploads = staged()
    states = {"open": uploads.open, "closed": uploads.closed}
    yield _by("uploads", "Uploads that can go on, and those whose bytes have to go.", "state", states)
    yield _gauge("upload_bytes", "Bytes of open uploads, as far as they were saved.", uploads.open_bytes)


def _recycle_bin() -> Iterator[Metric]:
    found = whole_bin()
    yield _by("recycle_bin_entries", "Deletions that can be undone.", "kind", found.entries)
    yield _gauge("recycle_bin_bytes", "Bytes that no size of a namespace counts any more.", found.bytes)


def _integrity() -> Iterator[Metric]:
    compared = report.reconciled()
    yield _gauge("reconcile_unknown_objects", "Objects that no row knows.", compared.unknown_objects)
    yield _gauge("reconcile_unknown_bytes", "Their bytes.", compared.unknown_bytes)
    yield _gauge("reconcile_foreign_objects", "Files of other programs.", compared.foreign_objects)
    if compared.finished_at is not None:
        text = "When the last comparison of database and storage ended."
        yield _gauge("reconcile_finished_timestamp_seconds", text, compared.finished_at.timestamp())
    if settings.SCRUB_PERIOD:
        text = "Share of the bytes that were hashed within REGISTRY_SCRUB_PERIOD."
        yield _gauge("scrub_covered_ratio", text, report.covered(settings.SCRUB_PERIOD))
    found = counts.faults()
    text = "Blobs whose content is damaged or missing now: requests for them get 404."
    yield _by("blob_faults", text, "kind", {kind: each.open for kind, each in found.items()})
    total = {kind: each.found for kind, each in found.items()}
    text = "Blobs that were found damaged or missing."
    yield _by("blob_faults_found", text, "kind", total, CounterMetricFamily)
    healed = {kind: each.healed for kind, each in found.items()}
    text = "Of them, blobs that got their content back."
    yield _by("blob_faults_healed", text, "kind", healed, CounterMetricFamily)
    text = "1 while the last slice of this work ended with an error."
    yield _by("integrity_job_failing", text, "job", counts.failing_jobs())


def _replication() -> Iterator[Metric]:
    text = "Executions of replication rules; finished ones are kept for 30 days."
    yield _by("replication_executions", text, "status", replication.executions_by_status())
    text = "Enabled rules whose last finished execution failed."
    yield _gauge("replication_failing_rules", text, replication.failing_rules())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stowage_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"stowage_{name}", text, value=value)


def _by(
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
    family: type[GaugeMetricFamily | CounterMetricFamily] = GaugeMetricFamily,
) -> Metric:
    """A metric with one value for each value of a label."""
    made = family(f"stowage_{name}", text, labels=[label])
    for value, number in values.items():
        made.add_metric([value], number)
    return made


def _since(due_at: datetime | None) -> float:
    return 0.0 if due_at is None else max((database_now() - due_at).total_seconds(), 0.0)
