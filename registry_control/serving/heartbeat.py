"""Heartbeats of worker processes, and the state of the worker derived from them."""

import socket
from datetime import timedelta
from enum import StrEnum
from typing import Final

from django.db import transaction
from django.db.models.functions import Now

from registry_control.common.background import Queue
from registry_control.serving.models import WorkerHeartbeat

INTERVAL: Final = 10.0
"""Seconds between two heartbeats of a process."""

_LATE: Final = timedelta(seconds=30)
_NONE: Final = timedelta(minutes=5)


class WorkerState(StrEnum):
    """The state of the worker: the worst state of its queues."""

    OK = "ok"
    LATE = "late"  # no heartbeat for 30 s
    NONE = "none"  # no heartbeat for 5 min


def record_heartbeat(queue: Queue) -> None:
    """Record that a process of the queue is alive and connected."""
    with transaction.atomic():
        WorkerHeartbeat.objects.update_or_create(
            queue=queue, defaults={"node": socket.gethostname(), "seen_at": Now()}
        )


def heartbeat_ages() -> dict[str, timedelta]:
    """The age of the last heartbeat of each queue that has had one, by the database's clock. One query."""
    rows = WorkerHeartbeat.objects.annotate(now=Now()).values_list("queue", "seen_at", "now")
    return {queue: now - seen_at for queue, seen_at, now in rows}


def worker_state() -> WorkerState:
    """Read the state. One query."""
    ages = heartbeat_ages()
    oldest = max(ages.get(queue, timedelta.max) for queue in Queue)
    if oldest > _NONE:
        return WorkerState.NONE
    return WorkerState.LATE if oldest > _LATE else WorkerState.OK
