"""The state of scrubbing and reconciling: progress, blobs to look at again, findings, unknown objects.

Blobs are named by their ids without a foreign key: these rows may outlive the blob.
"""

from typing import Final

from django.db import models
from django.utils import timezone

from registry_control.catalog.models import DIGEST_LENGTH, Blob
from registry_data.storage.base import Kind


class Job(models.Model):
    """The progress of one kind of background work, and the lease of the worker that does it at present."""

    class Name(models.TextChoices):
        """The kinds of work."""

        SCRUB = "scrub"
        CHECKS = "checks"
        RECONCILE = "reconcile"

    name = models.CharField(primary_key=True, max_length=16, choices=Name.choices)
    owner = models.CharField(max_length=32, blank=True, default="", help_text="Token of the worker.")
    leased_until = models.DateTimeField(null=True, help_text="By the clock of the database.")
    worked_at = models.DateTimeField(null=True, help_text="When the last slice began.")
    counted_at = models.DateTimeField(null=True, help_text="When the totals were counted.")
    total_blobs = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(default=0)
    error = models.CharField(max_length=255, blank=True, default="", help_text="Of the last slice.")
    retry_at = models.DateTimeField(null=True, help_text="After an error: when the next slice is due.")
    phase = models.CharField(max_length=16, blank=True, default="", help_text="Of a pass of reconciling.")
    cursor = models.TextField(blank=True, default="", help_text="How far that phase has come.")
    started_at = models.DateTimeField(null=True, help_text="When the last pass of reconciling began.")
    finished_at = models.DateTimeField(null=True, help_text="When it ended; null while it runs.")
    counts = models.JSONField(default=dict, blank=True, help_text="What the last pass has seen so far.")

    def __str__(self) -> str:
        return self.name


class UnknownObject(models.Model):
    """An object of the storage that no row knows. It is removed if that is so for a grace period."""

    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=16, choices=[(kind.value, kind.value) for kind in Kind])
    upload = models.CharField(max_length=32, help_text="The upload that it came with.")
    size = models.BigIntegerField()
    first_seen_at = models.DateTimeField(default=timezone.now)
    retry_at = models.DateTimeField(null=True, help_text="After a failed removal: when the next one is due.")
    attempts = models.IntegerField(default=0)
    error = models.CharField(max_length=255, blank=True, default="", help_text="Of the last attempt.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "kind"], name="unknown_object_once")]
        indexes = [models.Index(fields=["first_seen_at", "id"], name="unknown_objects_by_time")]

    def __str__(self) -> str:
        return self.name


IS_OPEN: Final = models.Q(healed_at__isnull=True, dropped_at__isnull=True)
"""Of a finding: the content is still so."""


class BlobFault(models.Model):
    """A blob whose content was found damaged or missing. Each finding has a row, which stays."""

    class Kind(models.TextChoices):
        """What was found; the same words as the states of a blob."""

        DAMAGED = Blob.State.DAMAGED.value
        MISSING = Blob.State.MISSING.value

    blob_id = models.BigIntegerField(editable=False)
    digest = models.CharField(max_length=DIGEST_LENGTH)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    size = models.BigIntegerField(help_text="Bytes that the content should have.")
    storage_key = models.CharField(max_length=255, help_text="Where the content was found so.")
    detail = models.CharField(max_length=255)
    found_at = models.DateTimeField(default=timezone.now)
    healed_at = models.DateTimeField(null=True, help_text="When the blob got its content back.")
    dropped_at = models.DateTimeField(
        null=True,
        help_text="When it ended without that: the blob was deleted, or found in the other state.",
    )

    class Meta:
        verbose_name = "damaged or missing blob"
        verbose_name_plural = "damaged and missing blobs"
        constraints = [
            models.UniqueConstraint(fields=["blob_id"], condition=IS_OPEN, name="open_fault_of_blob")
        ]
        indexes = [
            models.Index(fields=["found_at", "id"], name="faults_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.digest}"


class BlobCheck(models.Model):
    """A blob whose content is read again at a time: to confirm a first look, or to see whether it is back."""

    blob_id = models.BigIntegerField(primary_key=True, editable=False)
    storage_key = models.CharField(max_length=255)
    found = models.CharField(
        max_length=16, default="unknown", help_text="What the last look found: missing, damaged or unknown."
    )
    reason = models.CharField(max_length=255, help_text="The same in words, or the error of the storage.")
    due_at = models.DateTimeField(db_index=True)
    attempts = models.IntegerField(default=0)
    failed_at = models.DateTimeField(null=True, help_text="When the storage failed at the last look.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "blob to look at again"
        verbose_name_plural = "blobs to look at again"

    def __str__(self) -> str:
        return f"check of blob {self.blob_id}"
