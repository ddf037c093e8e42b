"""Namespaces: the first component of repository names."""

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from registry_control.common.models import NOT_DELETING, Lockable, Status
from registry_control.db.fields import ByteOrderedField
from registry_control.identity.models import Application, Project


class Namespace(Lockable):
    """A collection of images with a default privacy policy; its name is unique in the whole registry."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = ByteOrderedField(max_length=63)
    description = models.TextField(blank=True, default="")
    project = models.ForeignKey(Project, models.PROTECT, related_name="namespaces")
    owner_user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, related_name="+", null=True, blank=True
    )
    owner_application = models.ForeignKey(
        Application, models.SET_NULL, related_name="+", null=True, blank=True
    )
    is_public = models.BooleanField(
        default=False, help_text="Whether anyone may pull the images that inherit its policy."
    )
    accepts_sparse_indexes = models.BooleanField(
        default=False,
        help_text="Whether an index may be pushed while manifests of some platforms are missing.",
    )
    image_rows = models.BigIntegerField(
        default=0,
        editable=False,
        help_text="Number of its images in every status, including images without a push.",
    )

    pulls_recorded_from = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When the registry began to record pulls, for namespaces that are older than that.",
    )
    restored_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was restored from the recycle bin."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=NOT_DELETING, name="namespace_name_unique"),
            models.CheckConstraint(
                condition=models.Q(owner_user__isnull=True) | models.Q(owner_application__isnull=True),
                name="namespace_has_one_owner",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "created_at", "id"], name="namespaces_of_project"),
            models.Index(fields=["status"], name="namespaces_by_status"),
        ]

    def __str__(self) -> str:
        return self.name


class Retention(models.Model):
    """The retention rules of a namespace and its protected tags; each namespace has a row.

    Pushes share the row, so that other rules are stored after them (ADR 62). `rules` and the lists are as the
    API shows them. Protection holds whether or not the rules are enabled.
    """

    namespace = models.OneToOneField(Namespace, models.CASCADE, related_name="retention", primary_key=True)
    enabled = models.BooleanField(default=False, help_text="Whether the worker removes what the rules say.")
    rules = models.JSONField(default=list, blank=True)
    untagged_days = models.BigIntegerField(
        null=True, blank=True, help_text="Untagged manifests not pulled for that long are removed."
    )
    protected_tags = models.JSONField(
        default=list, blank=True, help_text="Globs of tags that can be neither moved nor deleted."
    )
    protected_except = models.JSONField(
        default=list, blank=True, help_text="Globs of tags that are not protected."
    )
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "retention"
        verbose_name_plural = "retention"

    def __str__(self) -> str:
        return f"retention of {self.namespace}"


class RecycleBinEntry(models.Model):
    """A deletion that can be undone until `expires_at`: of a namespace, or of something in one (ADR 60).

    What was deleted keeps its rows, with everything below them. `organization_id` repeats that of the
    namespace's project.
    """

    class Kind(models.TextChoices):
        """What was deleted."""

        TAG = "tag"
        MANIFEST = "manifest"
        IMAGE = "image"
        NAMESPACE = "namespace"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(
        max_length=512, help_text="NAMESPACE, NAMESPACE/IMAGE, NAMESPACE/IMAGE:TAG or NAMESPACE/IMAGE@DIGEST"
    )
    namespace = models.ForeignKey(Namespace, models.PROTECT, related_name="recycled", db_index=False)
    organization_id = models.UUIDField(editable=False)
    object_id = models.UUIDField(help_text="Of what was deleted, as the API names it.")
    image_id = models.UUIDField(null=True, help_text="Of the image, or of what was in it.")
    row_id = models.UUIDField(
        null=True, db_index=True, help_text="Of the namespace or image in status `recycled` that keeps it."
    )
    size = models.BigIntegerField(default=0, help_text="Bytes that no size counts any more.")
    deleted_at = models.DateTimeField(default=timezone.now)
    deleted_by = models.CharField(max_length=255, help_text="The name of the actor.")
    is_by_rule = models.BooleanField(
        default=False, db_default=False, help_text="Whether the registry deleted it, not a user."
    )
    expires_at = models.DateTimeField(db_index=True)
    is_settled = models.BooleanField(
        default=False, help_text="Whether the worker has ended the leases and uploads of what was deleted."
    )
    former_status = models.CharField(max_length=16, choices=Status.choices, default=Status.READY)
    pushed_at = models.DateTimeField(null=True, help_text="Of the image: hidden images have none.")
    digest = models.CharField(max_length=135, blank=True, default="", help_text="Of manifest or tag.")
    subject_digest = models.CharField(
        max_length=135, blank=True, default="", help_text="Of a manifest, if it has a subject."
    )
    tag_created_at = models.DateTimeField(null=True)
    tag_updated_at = models.DateTimeField(null=True)
    tag_pulled_at = models.DateTimeField(null=True)
    tag_set_by = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        verbose_name = "recycle bin entry"
        verbose_name_plural = "recycle bin entries"
        indexes = [
            models.Index(fields=["namespace", "deleted_at", "id"], name="recycled_of_namespace"),
            models.Index(fields=["organization_id", "size"], name="recycled_of_organization"),
            models.Index(fields=["id"], condition=models.Q(is_settled=False), name="recycled_to_settle"),
            models.Index(fields=["image_id", "digest"], name="recycled_of_image"),
            models.Index(
                fields=["image_id", "subject_digest"],
                condition=models.Q(subject_digest__gt=""),
                name="recycled_referrers",
            ),
        ]

    def __str__(self) -> str:
        return self.name
