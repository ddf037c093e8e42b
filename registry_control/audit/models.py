"""The audit log: rows are only inserted, in the transaction of the change that they record."""

from django.db import models
from django.utils import timezone


class ActorKind(models.TextChoices):
    """What kind of principal acted."""

    USER = "user"
    APPLICATION = "application"
    SYSTEM = "system"


class AuditEvent(models.Model):
    """One change (invariant 10).

    Names and ids are copies, not foreign keys: the row remains when its objects are deleted.
    """

    at = models.DateTimeField(default=timezone.now, db_index=True, editable=False)
    organization_id = models.UUIDField(null=True, editable=False)
    actor_kind = models.CharField(max_length=16, choices=ActorKind.choices, editable=False)
    actor_id = models.CharField(max_length=64, blank=True, default="", editable=False)
    actor_name = models.CharField(max_length=255, editable=False)
    verb = models.CharField(max_length=64, db_index=True, editable=False)
    target_kind = models.CharField(max_length=32, editable=False)
    target_id = models.CharField(max_length=64, editable=False)
    target_name = models.CharField(max_length=512, editable=False)
    detail = models.JSONField(default=dict, editable=False)
    # NULL for changes outside of a request, and because nodes of an older version insert rows without it.
    request_id = models.CharField(max_length=128, null=True, editable=False)  # noqa: DJ001

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization_id", "id"], name="audit_by_organization"),
            models.Index(fields=["target_kind", "target_id", "id"], name="audit_by_target"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.verb} {self.target_name}"
