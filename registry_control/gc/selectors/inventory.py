"""The counts of all blobs."""

from datetime import timedelta

from django.db.models import QuerySet

from registry_control.common.clock import database_now
from registry_control.gc.models import Inventory


def newest() -> Inventory | None:
    """The last complete count."""
    return Inventory.objects.filter(finished_at__isnull=False).order_by("-finished_at").first()


def age() -> timedelta | None:
    """The age of the last complete count; None before the first one."""
    found = newest()
    if found is None or found.finished_at is None:
        return None
    return abs(database_now() - found.finished_at)  # the clock may have been set back meanwhile


def unfinished() -> QuerySet[Inventory]:
    """Counts that a worker has to continue, the oldest first."""
    return Inventory.objects.filter(finished_at__isnull=True).order_by("pk")
