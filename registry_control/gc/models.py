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
