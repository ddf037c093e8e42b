"""Fields and states shared by several models, and the change log."""

from datetime import timedelta
from typing import Final

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Timestamped(models.Model):
    """Times that the API shows. Services set `updated_at` explicitly, because `update()` ignores auto_now."""

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class Status(models.TextChoices):
    """States of a namespace, image or tag, as named by the v1 API, which shows `recycled` as `deleting`."""

    READY = "ready"
    DELETING = "deleting"
    ERROR = "error"
    LOCKED = "locked"
    RECYCLED = "recycled"
    """A namespace or image in the recycle bin: for every request but those of the bin it is deleted."""


SHOWN_STATUSES: Final = [choice for choice in Status.choices if choice[0] != Status.RECYCLED]
"""Choices of the API."""

DELETED: Final = (Status.DELETING, Status.RECYCLED)

# Names of deleted rows can be reused: unique constraints apply to all other rows.
NOT_DELETING = ~Q(status__in=DELETED)
_DELETED: Final = ", ".join(f"'{status.value}'" for status in DELETED)


def not_deleting_sql(table: str = "") -> str:
    """`NOT_DELETING` as SQL on the status column of a table, named by its alias if the query has several.

    SQLite uses a partial index only if the query has the index's condition literally, not as a parameter.
    """
    column = f"{table}.status" if table else "status"
    return f"NOT ({column} IN ({_DELETED}))"


def writable_sql(table: str) -> str:
    """The condition that a row is neither deleted nor locked, on the status column of a table."""
    return f"{table}.status NOT IN ({_DELETED}, '{Status.LOCKED.value}')"


class Lockable(Timestamped):
    """A namespace or image: an administrator can lock it, which forbids pushes, changes and deletion."""

    status = models.CharField(max_length=16, choices=Status.choices, default=Status.READY)
    status_message = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        abstract = True


class Change(models.Model):
    """A row of the change log: transaction `transaction_id` changed data of a scope (see `changes`).

    On SQLite, where transactions commit in the order of their rows' ids, `transaction_id` is 0.
    """

    scope = models.CharField(max_length=64, editable=False)
    transaction_id = models.BigIntegerField(db_index=True, editable=False)
    created_at = models.DateTimeField(db_index=True, editable=False)

    def __str__(self) -> str:
        return self.scope


class ClockWatch(models.Model):
    """What the processes share about the clock (see `clock_watch`); one row."""

    seen_at = models.DateTimeField()
    held_since = models.DateTimeField(null=True)
    held_until = models.DateTimeField(null=True)
    reason = models.CharField(max_length=255, blank=True, default="")
    needs_repair = models.BooleanField(default=False)
    longest_lease = models.DurationField(
        default=timedelta(0),
        db_default=timedelta(0),
        help_text="The longest `REGISTRY_LEASE` that a worker was ever started with.",
    )

    def __str__(self) -> str:
        return f"clock seen at {self.seen_at}"
