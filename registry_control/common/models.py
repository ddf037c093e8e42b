"""What several models have in common, and the change log."""

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


class Change(models.Model):
    """A row of the change log: the transaction of this id changed what depends on a scope (see `changes`).

    On SQLite, where transactions commit in the order of their rows' ids, `transaction_id` is 0.
    """

    scope = models.CharField(max_length=64, editable=False)
    transaction_id = models.BigIntegerField(db_index=True, editable=False)
    created_at = models.DateTimeField(db_index=True, editable=False)

    def __str__(self) -> str:
        return self.scope
