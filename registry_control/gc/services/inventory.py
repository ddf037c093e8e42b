"""Counts the stored bytes by what keeps them, in slices of bounded cost (ADR 65).

The administration shows the figures, and the circuit breaker needs the sum. A count is one row; whichever
worker runs the next slice locks the row and continues it.
"""

from datetime import timedelta
from typing import Final

from django.db import transaction

from registry_control.common.clock import database_now
from registry_control.gc.models import Inventory
from registry_control.gc.selectors import inventory, marked

INTERVAL: Final = timedelta(hours=1)
_SHORT_INTERVAL: Final = timedelta(seconds=50)  # so that a task that runs every minute finds it over
_SMALL: Final = 20_000  # blobs, which are counted in 0.2 s
_SLICE: Final = 2000  # blobs; some 20 ms


def advance(*, max_age: timedelta | None = None, limit: int = _SLICE) -> bool:
    """Count the next slice, unless the last complete count is younger than `max_age`.

    By default that is an hour, and a minute while the count is short. Returns whether the count goes on.
    """
    age = inventory.age()
    if age is not None and age < (_interval() if max_age is None else max_age):
        return False
    if not inventory.unfinished().exists():
        _start()
    return _count_slice(limit)


def _interval() -> timedelta:
    """From the end of a count to the next one."""
    last = inventory.newest()
    return _SHORT_INTERVAL if last is not None and last.blobs <= _SMALL else INTERVAL


def _start() -> None:
    """Begin a count. Two workers may begin one each at the same time, which costs only the time."""
    Inventory.objects.create(started_at=database_now(), marked_before=marked.of_a_day())


@transaction.atomic
def _count_slice(limit: int) -> bool:
    running = inventory.unfinished().select_for_update(skip_locked=True).first()
    if running is None:
        return True  # another worker counts
    counted = 0
    for kind, blobs, size, last in inventory.count_slice(running.cursor, limit):
        counted += blobs
        running.cursor = max(running.cursor, last)
        setattr(running, f"{kind}_blobs", getattr(running, f"{kind}_blobs") + blobs)
        setattr(running, f"{kind}_bytes", getattr(running, f"{kind}_bytes") + int(size))
    if counted < limit:
        running.finished_at = database_now()
        Inventory.objects.filter(pk__lt=running.pk).delete()
    running.save()
    return counted == limit
