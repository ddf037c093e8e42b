"""What several models have in common."""

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Timestamped(models.Model):
    """Times that the API shows. Services set `updated_at` themselves: `update()` skips auto_now."""

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class Status(models.TextChoices):
    """The life of a namespace, an image or a tag, in the words of the v1 API."""

    READY = "ready"
    DELETING = "deleting"
    ERROR = "error"
    LOCKED = "locked"


# A row that is being deleted has given its name back; every unique name is unique among the others.
NOT_DELETING = ~Q(status=Status.DELETING)
