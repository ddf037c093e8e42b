"""Runs of garbage collection and of retention. The review queue itself is `catalog.models.BlobReview`."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from registry_control.namespaces.models import Namespace


class GcRun(models.Model):
    """What garbage collection removed, or in a dry run would remove.

    The collector's continuous work of one hour is one run; others are started by the API, the administration
    or the command line.
    """

    class Kind(models.TextChoices):
        """How a run began."""

        CONTINUOUS = "continuous"
        REQUESTED = "requested"
        COMMAND = "command"

    class Status(models.TextChoices):
        """States of a run, as the API names them."""

        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        STOPPED = "stopped"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.RUNNING)
    dry_run = models.BooleanField(default=False)
    hour = models.DateTimeField(null=True, unique=True, help_text="Of continuous work: its first second.")
    started_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    blobs = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    exempt_bytes = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="Of a dry run: those that do not count against the circuit breaker.",
    )
    manifests = models.BigIntegerField(default=0, help_text="Of deleted images, removed by the worker.")
    errors = models.JSONField(default=list, blank=True)
    cursor_since = models.DateTimeField(null=True, help_text="How far a dry run has read the review queue.")
    cursor_blob = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "garbage collection run"
        indexes = [
            models.Index(fields=["started_at", "id"], name="gc_runs_by_start"),
            models.Index(fields=["updated_at"], condition=Q(status="running"), name="gc_runs_running"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} run of {self.started_at:%Y-%m-%d %H:%M}"


class RetentionRun(models.Model):
    """The enforcement of a namespace's retention: the present pass over its images, or the last one.

    Workers work on a pass in slices of some seconds. `cursor` is where the next slice begins.
    """

    namespace = models.OneToOneField(
        Namespace, models.CASCADE, related_name="retention_run", primary_key=True
    )
    due_at = models.DateTimeField(db_index=True, help_text="When the next pass, or the next slice, is due.")
    claim = models.UUIDField(null=True, editable=False, help_text="Of the worker that works on a slice.")
    claimed_until = models.DateTimeField(null=True)
    cursor = models.JSONField(default=dict, blank=True)
    started_at = models.DateTimeField(null=True, help_text="Of the present or the last pass.")
    finished_at = models.DateTimeField(null=True, help_text="Empty while a pass is under way.")
    tags = models.BigIntegerField(default=0, help_text="Removed by the pass.")
    manifests = models.BigIntegerField(default=0, help_text="Removed by the pass.")
    skipped = models.JSONField(default=list, blank=True, help_text="What it could not work on, and why.")

    class Meta:
        verbose_name = "retention run"

    def __str__(self) -> str:
        return f"retention of {self.namespace}"


class QueueFigures(models.Model):
    """The number and the bytes of the rows of the review queue that have been counted; one row.

    `services.figures` adds rows of the queue, and transactions that delete counted rows subtract them. Only
    workers write it, so that pushes and deletions never wait for it (invariant 11).
    """

    entries = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "queue figures"

    def __str__(self) -> str:
        return f"{self.entries} blobs of {self.bytes} bytes"


class Inventory(models.Model):
    """The bytes that are stored, by what keeps them: a count of all blobs in slices (ADR 65).

    `cursor` says how far a count has come, so that another worker can continue it. Blobs that are pushed or
    deleted meanwhile may be missing.
    """

    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, db_index=True)
    cursor = models.BigIntegerField(default=0, help_text="The id of the last blob that was counted.")
    marked_before = models.BigIntegerField(
        default=0, help_text="Bytes that the collector had marked as deleting in the day before the count."
    )
    tagged_blobs = models.BigIntegerField(default=0)
    tagged_bytes = models.BigIntegerField(default=0)
    untagged_blobs = models.BigIntegerField(default=0)
    untagged_bytes = models.BigIntegerField(default=0)
    leased_blobs = models.BigIntegerField(default=0)
    leased_bytes = models.BigIntegerField(default=0)
    unreferenced_blobs = models.BigIntegerField(default=0)
    unreferenced_bytes = models.BigIntegerField(default=0)
    deleting_blobs = models.BigIntegerField(default=0)
    deleting_bytes = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "inventories"

    def __str__(self) -> str:
        return f"inventory of {self.started_at:%Y-%m-%d %H:%M}"

    @property
    def blobs(self) -> int:
        """All blobs that were counted."""
        live = self.tagged_blobs + self.untagged_blobs + self.leased_blobs + self.unreferenced_blobs
        return live + self.deleting_blobs

    @property
    def live_bytes(self) -> int:
        """The bytes that the collector has not marked."""
        return self.tagged_bytes + self.untagged_bytes + self.leased_bytes + self.unreferenced_bytes


class MarkedBytes(models.Model):
    """Bytes that the collector marked as deleting in one hour; the circuit breaker counts them (ADR 65)."""

    hour = models.DateTimeField(primary_key=True)
    bytes = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "marked bytes"

    def __str__(self) -> str:
        return f"{self.bytes} bytes in the hour of {self.hour:%Y-%m-%d %H:%M}"


class Breaker(models.Model):
    """The circuit breaker; one row, which a claim locks so that several workers count in turn."""

    stopped_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=255, blank=True, default="")
    released_at = models.DateTimeField(
        null=True, help_text="Blobs that were unreferenced before are collected without limit."
    )

    def __str__(self) -> str:
        return f"stopped at {self.stopped_at}" if self.stopped_at else "closed"
