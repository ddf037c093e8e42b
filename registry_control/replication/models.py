"""Targets, rules, and executions with a row for each image, manifest and blob of their work (ADR 55).

A row with a claim is worked on by one thread of one worker, which renews `claimed_until`; the work of a
worker that was killed can be claimed when that time has passed.
"""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from registry_control.catalog.models import DIGEST_LENGTH
from registry_control.common.models import Timestamped
from registry_control.identity.models import Organization
from registry_control.namespaces.models import Namespace

REPOSITORY_LENGTH = 255
TAG_LENGTH = 128
URL_LENGTH = 2048


class Target(Timestamped):
    """Another registry, with the credentials for it; rules push to it or pull from it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="replication_targets")
    name = models.CharField(max_length=255)
    url = models.CharField(
        max_length=URL_LENGTH, help_text="https://HOST[:PORT] or http://HOST[:PORT], without a path."
    )
    username = models.CharField(max_length=255, blank=True, default="")
    sealed_password = models.BinaryField(default=b"", editable=False)  # see credentials.py; empty: none
    insecure = models.BooleanField(
        default=False, help_text="Accept any TLS certificate. Only for tests: the password can be stolen."
    )

    class Meta:
        indexes = [models.Index(fields=["organization", "created_at", "id"], name="targets_of_organization")]

    def __str__(self) -> str:
        return self.name


class Direction(models.TextChoices):
    """Where the content goes: from the namespace to the target, or from the target to the namespace."""

    PUSH = "push"
    PULL = "pull"


class Rule(Timestamped):
    """What is replicated, where to, and when.

    A deleted rule loses its target and namespace at once; the worker deletes its rows.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization_id = models.UUIDField(editable=False)
    name = models.CharField(max_length=255)
    direction = models.CharField(max_length=8, choices=Direction.choices)
    target = models.ForeignKey(Target, models.PROTECT, related_name="rules", null=True)
    namespace = models.ForeignKey(Namespace, models.SET_NULL, related_name="replication_rules", null=True)
    repositories = models.JSONField(help_text="Names at the source, or globs with * and ?, as a list.")
    tags = models.CharField(max_length=255, default="*", help_text="A glob with * and ?.")
    destination = models.CharField(
        max_length=REPOSITORY_LENGTH,
        help_text="The repository at the destination; {namespace} and {image} stand for the source's.",
    )
    on_push = models.BooleanField(default=False, help_text="Whether each push to the namespace runs it.")
    cron = models.CharField(
        max_length=255, blank=True, default="", help_text="minute hour day month weekday, in UTC; or empty."
    )
    enabled = models.BooleanField(default=True)
    next_run_at = models.DateTimeField(null=True, editable=False)  # by `cron`; null: never
    deleted_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["namespace", "created_at", "id"], name="rules_of_namespace"),
            models.Index(fields=["next_run_at"], condition=Q(next_run_at__isnull=False), name="rules_due"),
            models.Index(
                fields=["namespace"],
                condition=Q(on_push=True, enabled=True, deleted_at__isnull=True),
                name="rules_on_push",
            ),
            models.Index(fields=["id"], condition=Q(deleted_at__isnull=False), name="rules_to_delete"),
        ]

    def __str__(self) -> str:
        return self.name


class PushEvent(models.Model):
    """A push that a rule with `on_push` has yet to replicate, written in the transaction of the push."""

    rule = models.ForeignKey(Rule, models.CASCADE, related_name="push_events", db_constraint=False)
    image_id = models.UUIDField()
    digest = models.CharField(max_length=DIGEST_LENGTH)
    tag = models.CharField(max_length=TAG_LENGTH, blank=True, default="")


class Trigger(models.TextChoices):
    """What started an execution."""

    PUSH = "push"
    CRON = "cron"
    MANUAL = "manual"


class ExecutionStatus(models.TextChoices):
    """States of an execution; the last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


class Claimable(models.Model):
    """Work that one thread at a time does, and that is tried again with back-off after a failure."""

    claimed_by = models.UUIDField(null=True, editable=False)  # the claim, renewed until `claimed_until`
    claimed_until = models.DateTimeField(null=True, editable=False)
    next_attempt_at = models.DateTimeField(default=timezone.now, editable=False)
    failures = models.IntegerField(default=0, editable=False, help_text="In a row.")
    failing_since = models.DateTimeField(null=True, editable=False)

    class Meta:
        abstract = True


def _claims(name: str) -> models.Index:
    """The few rows with a claim, of which there are as many as threads."""
    return models.Index(fields=["claimed_until"], condition=Q(claimed_by__isnull=False), name=name)


class Execution(Claimable):
    """One run of a rule. Executions of a rule run one after the other."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    rule = models.ForeignKey(Rule, models.PROTECT, related_name="executions")
    organization_id = models.UUIDField(editable=False)
    trigger = models.CharField(max_length=8, choices=Trigger.choices)
    status = models.CharField(max_length=16, choices=ExecutionStatus.choices, default=ExecutionStatus.PENDING)
    is_partial = models.BooleanField(default=False, help_text="Only what was pushed, not the whole rule.")
    is_planned = models.BooleanField(default=False, help_text="Whether all of its images have rows.")
    images_total = models.BigIntegerField(default=0)
    images_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0, help_text="Of the distinct blobs of its images.")
    bytes_done = models.BigIntegerField(default=0, help_text="Sent; what was there already counts nothing.")
    errors = models.JSONField(default=list)
    trouble = models.TextField(
        blank=True, default="", help_text="The last failure, while the work is tried again."
    )
    served_at = models.DateTimeField(default=timezone.now, editable=False)  # when a worker last claimed work
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["rule"], condition=Q(status="running"), name="one_running_execution_of_rule"
            )
        ]
        indexes = [
            models.Index(fields=["rule", "created_at", "id"], name="executions_of_rule"),
            models.Index(fields=["status", "served_at"], name="executions_by_status"),
            models.Index(fields=["finished_at"], name="executions_by_end"),
            _claims("execution_claims"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def shown_errors(self) -> list[str]:
        """The errors, and at the end the failure after which the work is being tried again."""
        found: list[str] = list(self.errors)
        return [*found, self.trouble] if self.trouble else found


class ItemState(models.TextChoices):
    """States of an image or blob; the last two are final."""

    PENDING = "pending"
    PLANNED = "planned"  # images only: their manifests and blobs have rows
    DONE = "done"
    FAILED = "failed"


class ExecutionImage(Claimable):
    """A tag, or a manifest without one, to copy with all that belongs to it."""

    execution = models.ForeignKey(Execution, models.PROTECT, related_name="images", db_index=False)
    source = models.CharField(max_length=REPOSITORY_LENGTH, help_text="The repository at the source.")
    destination = models.CharField(max_length=REPOSITORY_LENGTH)
    reference = models.CharField(max_length=DIGEST_LENGTH, help_text="A tag or digest.")
    state = models.CharField(max_length=16, choices=ItemState.choices, default=ItemState.PENDING)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["execution", "source", "destination", "reference"], name="execution_image_once"
            )
        ]
        indexes = [
            models.Index(fields=["execution", "state", "next_attempt_at"], name="images_of_execution"),
            _claims("image_claims"),
        ]

    def __str__(self) -> str:
        separator = "@" if ":" in self.reference else ":"
        return f"{self.source}{separator}{self.reference}"


class ExecutionManifest(models.Model):
    """A manifest of an image in the order in which the manifests are copied: children and subjects first."""

    image = models.ForeignKey(ExecutionImage, models.PROTECT, related_name="manifests", db_index=False)
    position = models.IntegerField()
    is_root = models.BooleanField(default=False, help_text="Whether the image's own tag is set to it.")
    digest = models.CharField(max_length=DIGEST_LENGTH)
    media_type = models.CharField(max_length=255)
    subject_digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, default="")
    tag = models.CharField(max_length=TAG_LENGTH, blank=True, default="")
    payload = models.BinaryField(null=True, help_text="The bytes, unless the registry has the manifest.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["image", "position"], name="execution_manifest_position")
        ]


class ExecutionBlob(Claimable):
    """A blob to copy to one repository; with what is needed to continue a transfer that was interrupted."""

    execution = models.ForeignKey(Execution, models.PROTECT, related_name="blobs", db_index=False)
    source = models.CharField(max_length=REPOSITORY_LENGTH)
    destination = models.CharField(max_length=REPOSITORY_LENGTH)
    digest = models.CharField(max_length=DIGEST_LENGTH)
    size = models.BigIntegerField(help_text="Bytes.")
    state = models.CharField(max_length=16, choices=ItemState.choices, default=ItemState.PENDING)
    upload = models.TextField(
        blank=True, default="", help_text="The upload under way: a URL at the target, or a session's id here."
    )
    sent = models.BigIntegerField(default=0, help_text="Bytes counted in the execution's bytes_done.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["execution", "destination", "digest"], name="execution_blob_once")
        ]
        indexes = [
            models.Index(fields=["execution", "state", "next_attempt_at"], name="blobs_of_execution"),
            _claims("blob_claims"),
        ]

    def __str__(self) -> str:
        return self.digest


class ExecutionImageBlob(models.Model):
    """An image needs a blob: its manifests are copied when all of its blobs are done."""

    image = models.ForeignKey(ExecutionImage, models.PROTECT, related_name="needs", db_index=False)
    blob = models.ForeignKey(ExecutionBlob, models.PROTECT, related_name="needed_by")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["image", "blob"], name="execution_image_blob_once")]


class TargetBlob(models.Model):
    """A repository of a target in which a blob was seen: other repositories of the target can mount it."""

    target = models.ForeignKey(Target, models.CASCADE, related_name="blobs", db_index=False)
    digest = models.CharField(max_length=DIGEST_LENGTH)
    repository = models.CharField(max_length=REPOSITORY_LENGTH)
    seen_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["target", "digest"], name="target_blob_once")]
