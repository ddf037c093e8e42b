"""Images, tags, manifests, blobs and uploads.

The bytes of blobs are in the blob store, under opaque keys; these rows decide which of them exist.
"""

import uuid
from typing import Final

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce
from django.utils import timezone

from registry_control.access.policy import Visibility
from registry_control.common.models import NOT_DELETING, Lockable, Status, Timestamped
from registry_control.db.fields import ByteOrderedField, Last32
from registry_control.identity.models import Application
from registry_control.namespaces.models import Namespace

DIGEST_LENGTH = len("sha512:") + 128


class Image(Lockable):
    """A repository; `name` is the repository name without the namespace, and may contain slashes.

    The first upload creates the row; it is visible from the first manifest on (`pushed_at`). In the recycle
    bin it has no `pushed_at`, so that no list shows it; the entry of the bin keeps the time.
    `organization_id` repeats that of the namespace's project.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.ForeignKey(Namespace, models.PROTECT, related_name="images", db_index=False)
    organization_id = models.UUIDField(editable=False)
    name = ByteOrderedField(max_length=255)
    visibility = models.CharField(
        max_length=16,
        choices=[(policy.value, policy.value) for policy in Visibility],
        default=Visibility.INHERIT.value,
    )
    size = models.BigIntegerField(
        default=0, editable=False, help_text="Bytes of the distinct blobs of manifests that its tags reach."
    )
    untagged_size = models.BigIntegerField(
        default=0, editable=False, help_text="Bytes of the distinct blobs of its other manifests only."
    )
    size_is_stale = models.BooleanField(
        default=False, editable=False, help_text="Whether the sizes wait for a recount by the worker."
    )
    tag_rows = models.BigIntegerField(
        default=0, editable=False, help_text="Number of its tags in every status."
    )
    pushed_at = models.DateTimeField(null=True, editable=False)
    origin_id = models.UUIDField(
        null=True,
        editable=False,
        help_text="Of the image of which this row keeps a deleted manifest in the recycle bin.",
    )
    last_pulled_at = models.DateTimeField(
        null=True, editable=False, help_text="Exact to an hour; empty if never pulled since this is recorded."
    )
    restored_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When it was restored from the recycle bin as a whole.",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "name"], condition=NOT_DELETING, name="image_name_in_namespace"
            )
        ]
        indexes = [
            # All columns that a list filters and sorts by, so that only the rows of its page are read.
            models.Index(fields=["namespace", "created_at", "id", "pushed_at"], name="images_of_namespace"),
            models.Index(
                fields=["organization_id", "created_at", "id", "pushed_at"], name="images_of_organization"
            ),
            models.Index(fields=["organization_id", "name"], name="images_by_name"),
            models.Index(fields=["status"], name="images_by_status"),
            models.Index(
                fields=["organization_id", "namespace", "created_at"],
                condition=models.Q(pushed_at__isnull=True),
                name="images_never_pushed",
            ),
            models.Index(fields=["id"], condition=models.Q(size_is_stale=True), name="images_to_recount"),
            models.Index(
                fields=["origin_id"], condition=models.Q(origin_id__isnull=False), name="images_of_bin"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.namespace.name}/{self.name}"


class Manifest(models.Model):
    """A manifest of one image; `payload` has the bytes exactly as pushed (invariant 6)."""

    image = models.ForeignKey(Image, models.PROTECT, related_name="manifests", db_index=False)
    digest = models.CharField(max_length=DIGEST_LENGTH)
    media_type = models.CharField(max_length=255)
    artifact_type = models.CharField(max_length=255, blank=True, default="")
    subject_digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, default="")
    payload = models.BinaryField()
    size = models.BigIntegerField()
    is_reachable = models.BooleanField(
        default=False, help_text="From a tag: by itself, as a child of an index, or as a referrer."
    )
    created_at = models.DateTimeField(default=timezone.now)
    untagged_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When the last tag that reached it was moved or deleted, or it was pushed again untagged.",
    )
    last_pulled_at = models.DateTimeField(
        null=True, editable=False, help_text="Exact to an hour; empty if never pulled since this is recorded."
    )
    restored_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was restored from the recycle bin by itself."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["image", "digest"], name="manifest_digest_in_image")]
        indexes = [
            models.Index(fields=["image", "created_at", "id"], name="manifests_of_image"),
            models.Index(
                fields=["image", "created_at", "id"],
                condition=models.Q(is_reachable=False),
                name="untagged_manifests",
            ),
        ]

    def __str__(self) -> str:
        return self.digest


class Referrer(models.Model):
    """A manifest with a subject, as the referrers API lists it (OCI 125).

    The descriptor is the JSON that the list contains, serialized when the manifest is pushed. It is not a
    column of `Manifest` because SQLite would read past a payload of up to 4 MiB to get to it (ADR 41).
    `image`, `subject_digest` and `artifact_type` repeat the manifest's own.
    """

    manifest = models.OneToOneField(Manifest, models.PROTECT, related_name="referrer", primary_key=True)
    image = models.ForeignKey(Image, models.PROTECT, related_name="referrers", db_index=False)
    subject_digest = models.CharField(max_length=DIGEST_LENGTH)
    artifact_type = models.CharField(max_length=255, blank=True, default="")
    size = models.BigIntegerField(help_text="Bytes of the descriptor.")
    descriptor = models.BinaryField()

    class Meta:
        indexes = [
            models.Index(fields=["image", "subject_digest", "manifest"], name="referrers_of_subject"),
            models.Index(
                fields=["image", "subject_digest", "artifact_type", "manifest"], name="referrers_of_type"
            ),
        ]

    def __str__(self) -> str:
        return f"referrer of {self.subject_digest}"


class ManifestChild(models.Model):
    """An index (`parent`) lists a manifest of the same image (`child`), which is reachable through it."""

    parent = models.ForeignKey(Manifest, models.PROTECT, related_name="children", db_index=False)
    child = models.ForeignKey(Manifest, models.PROTECT, related_name="parents")

    class Meta:
        verbose_name_plural = "manifest children"
        constraints = [models.UniqueConstraint(fields=["parent", "child"], name="manifest_child_once")]

    def __str__(self) -> str:
        return f"child {self.child.digest}"


class MissingChild(models.Model):
    """A sparse index lists a manifest that its image does not have; a push makes it a `ManifestChild`.

    `image` repeats the parent's own.
    """

    image = models.ForeignKey(Image, models.PROTECT, related_name="missing_children", db_index=False)
    parent = models.ForeignKey(Manifest, models.PROTECT, related_name="awaited", db_index=False)
    digest = models.CharField(max_length=DIGEST_LENGTH)
    platform = models.CharField(max_length=128, blank=True, default="")

    class Meta:
        verbose_name_plural = "missing children"
        constraints = [models.UniqueConstraint(fields=["parent", "digest"], name="missing_child_once")]
        indexes = [models.Index(fields=["image", "digest"], name="awaited_in_image")]

    def __str__(self) -> str:
        return f"missing child {self.digest}"


class Tag(Timestamped):
    """A name for a manifest. A push can move it to another manifest; its id stays."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.ForeignKey(Image, models.PROTECT, related_name="tags", db_index=False)
    name = ByteOrderedField(max_length=128)
    manifest = models.ForeignKey(Manifest, models.PROTECT, related_name="tags")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.READY)
    last_pulled_at = models.DateTimeField(
        null=True, editable=False, help_text="Exact to an hour; empty if never pulled since this is recorded."
    )
    restored_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When it was restored from the recycle bin by itself or with its manifest.",
    )
    pushed_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When its manifest was pushed under it again, exact to an hour; empty if never.",
    )
    set_by = models.CharField(
        max_length=255, blank=True, default="", help_text="The name of the actor who set it last."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["image", "name"], condition=NOT_DELETING, name="tag_name_in_image"
            )
        ]
        indexes = [
            models.Index(fields=["image", "created_at", "id"], name="tags_of_image"),
            models.Index(fields=["image", "name", "id"], name="tags_by_name"),
            models.Index(
                fields=["id"], condition=models.Q(status=Status.DELETING), name="tags_being_deleted"
            ),
        ]

    def __str__(self) -> str:
        return self.name


_NOT_DELETING_BLOB: Final = ~models.Q(state="deleting")
CURRENT_BLOB: Final = "NOT (state = 'deleting')"
"""`_NOT_DELETING_BLOB` as SQL: each digest has one such row at most, and all its links belong to that row."""


def live_sql(table: str) -> str:
    """The condition that a blob can be read and linked, on the row of a table that is named by its alias.

    SQLite uses the index of current blobs only if the query has the index's condition literally.
    """
    return f"NOT ({table}.state = 'deleting') AND {table}.state = 'live'"


class TagHistory(models.Model):
    """A manifest that a tag named before it moved to another one. Kept as long as the recycle bin.

    The tag itself may be deleted meanwhile, and restored with its history.
    """

    tag_id = models.UUIDField()
    digest = models.CharField(max_length=DIGEST_LENGTH)
    since = models.DateTimeField()
    until = models.DateTimeField(db_index=True)
    set_by = models.CharField(max_length=255, blank=True, help_text="The name of the actor.")

    class Meta:
        verbose_name_plural = "tag history"
        indexes = [models.Index(fields=["tag_id", "since", "id"], name="history_of_tag")]

    def __str__(self) -> str:
        return self.digest


class Blob(models.Model):
    """Content and its key in the blob store. A storage key is never written twice (invariant 1)."""

    class State(models.TextChoices):
        """Only a live blob can be read and linked; the digest of every other one can be uploaded again.

        The upload heals a damaged or missing blob: its row gets the new bytes, so that the links of its
        manifests stay (ADR 64). Beside a blob that is being deleted it becomes another row.
        """

        LIVE = "live"
        DAMAGED = "damaged"
        MISSING = "missing"
        DELETING = "deleting"

    digest = models.CharField(max_length=DIGEST_LENGTH)
    size = models.BigIntegerField()
    storage_key = models.CharField(max_length=255, unique=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.LIVE)
    created_at = models.DateTimeField(default=timezone.now)
    verified_at = models.DateTimeField(
        null=True, help_text="When the stored content was hashed last; null: not since its upload."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["digest"], condition=_NOT_DELETING_BLOB, name="blob_digest_current"
            )
        ]
        indexes = [
            models.Index(
                Coalesce("verified_at", "created_at"),
                "id",
                condition=models.Q(state="live"),
                name="blobs_to_verify",
            ),
            models.Index(Last32("storage_key"), name="blobs_by_generation"),
            models.Index(
                fields=["digest"], condition=models.Q(state="deleting"), name="blobs_deleting_by_digest"
            ),
        ]

    def __str__(self) -> str:
        return self.digest


class BlobLink(models.Model):
    """A manifest of an image references a blob. `image` and `is_reachable` repeat the manifest's own."""

    image = models.ForeignKey(Image, models.PROTECT, related_name="blob_links", db_index=False)
    manifest = models.ForeignKey(Manifest, models.PROTECT, related_name="blob_links", db_index=False)
    blob = models.ForeignKey(Blob, models.PROTECT, related_name="links", db_index=False)
    is_reachable = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["manifest", "blob"], name="blob_link_once")]
        indexes = [
            models.Index(fields=["image", "blob", "is_reachable"], name="blob_links_reachable"),
            models.Index(fields=["blob", "image"], name="blob_links_of_blob"),
        ]

    def __str__(self) -> str:
        return f"link to {self.blob.digest}"


class BlobLease(models.Model):
    """An image has a blob until `expires_at`, even if no manifest references it (invariant 2)."""

    image = models.ForeignKey(Image, models.PROTECT, related_name="blob_leases", db_index=False)
    blob = models.ForeignKey(Blob, models.PROTECT, related_name="leases")
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["image", "blob"], name="blob_lease_once")]

    def __str__(self) -> str:
        return f"lease of {self.blob.digest}"


class BlobReview(models.Model):
    """A blob that lost a reference: garbage collection reviews it when the grace period is over (ADR 52).

    `references` inserts the row in the transaction that ends the reference. The row exists until a review
    finds that the blob has other references, or until the blob is deleted.
    """

    blob = models.OneToOneField(Blob, models.PROTECT, related_name="review", primary_key=True)
    organization_id = models.UUIDField(
        null=True, editable=False, help_text="Of the image whose reference ended last."
    )
    cause = models.CharField(max_length=32, help_text="Why that reference ended.")
    unreferenced_since = models.DateTimeField(help_text="When the last known reference ended.")
    retry_at = models.DateTimeField(
        null=True,
        help_text="Set once the blob is in state deleting: when the next attempt to delete it is due.",
    )
    attempts = models.IntegerField(default=0, help_text="Failed attempts to delete the content.")
    error = models.CharField(max_length=255, blank=True, default="", help_text="Of the last failed attempt.")
    size = models.BigIntegerField(
        null=True, editable=False, help_text="Bytes of the blob. Null: the figures of the queue lack the row."
    )

    class Meta:
        verbose_name = "blob in the review queue"
        verbose_name_plural = "blobs in the review queue"
        indexes = [
            models.Index(
                fields=["unreferenced_since", "blob"],
                condition=models.Q(retry_at__isnull=True),
                name="blobs_to_review",
            ),
            models.Index(
                fields=["organization_id", "unreferenced_since", "blob"],
                condition=models.Q(retry_at__isnull=True),
                name="blobs_to_review_of_each",
            ),
            models.Index(
                fields=["retry_at"], condition=models.Q(retry_at__isnull=False), name="blobs_to_delete"
            ),
            models.Index(
                fields=["blob"], condition=models.Q(retry_at__isnull=False), name="blobs_in_deletion"
            ),
            models.Index(fields=["blob"], condition=models.Q(size__isnull=True), name="blobs_to_count"),
        ]

    def __str__(self) -> str:
        return f"review of {self.blob.digest}"


class UploadSession(models.Model):
    """An upload to one image, which the client can continue on any node.

    The storage driver returns the number of bytes received. `hashed_digest` is the digest of the first
    `hashed_size` bytes, so that the closing request need not read them again (OCI 77). A session that was
    closed as a blob has the storage key of its bytes: they are a copy unless a blob has that key (ADR 35).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.ForeignKey(Image, models.PROTECT, related_name="uploads")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, related_name="+", null=True, blank=True, db_index=False
    )
    application = models.ForeignKey(
        Application, models.SET_NULL, related_name="+", null=True, blank=True, db_index=False
    )
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)
    is_open = models.BooleanField(
        default=True, help_text="If not, the upload can no longer become a blob, and the worker deletes it."
    )
    algorithm = models.CharField(max_length=16, default="sha256")
    hashed_size = models.BigIntegerField(default=0)
    hashed_digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, default="")
    stored_as = models.CharField(
        max_length=255,
        blank=True,
        default="",
        db_default="",
        help_text="Storage key of the whole content, in a session that was closed as a blob.",
    )
    is_surplus = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether no blob can get the content any more, which the worker is deleting.",
    )

    class Meta:
        indexes = [
            models.Index(fields=["expires_at"], condition=models.Q(is_open=False), name="uploads_to_discard"),
            models.Index(fields=["user"], condition=models.Q(is_open=True), name="uploads_of_user"),
            models.Index(fields=["application"], condition=models.Q(is_open=True), name="uploads_of_robot"),
        ]

    def __str__(self) -> str:
        return str(self.id)
