"""The worker's state in /healthz, computed from the heartbeats of its queues."""

from datetime import timedelta

import pytest
from django.db.models import F

from registry_control.common.background import Queue
from registry_control.serving.heartbeat import record_heartbeat, worker_state
from registry_control.serving.models import WorkerHeartbeat
from tests.integration.control.api import Api

pytestmark = pytest.mark.django_db


def beat(**ages: timedelta) -> None:
    for queue, age in ages.items():
        record_heartbeat(Queue(queue))
        WorkerHeartbeat.objects.filter(queue=queue).update(seen_at=F("seen_at") - age)


@pytest.mark.parametrize(
    ("fast", "bulk", "state"),
    [
        (0, 0, "ok"),
        (20, 20, "ok"),
        (40, 0, "late"),
        (0, 40, "late"),
        (290, 290, "late"),
        (310, 0, "none"),
        (0, 310, "none"),
    ],
)
def test_the_state_is_that_of_the_queue_with_the_oldest_heartbeat(fast: int, bulk: int, state: str) -> None:
    # given heartbeats of these ages in seconds
    beat(fast=timedelta(seconds=fast), bulk=timedelta(seconds=bulk))

    # then the health check succeeds in any case
    response = Api().get("/healthz")
    assert (response.status, response.body["worker"]) == (200, state)


def test_without_a_heartbeat_of_every_queue_the_state_is_none() -> None:
    assert worker_state() == "none"
    beat(fast=timedelta(0))
    assert worker_state() == "none"


def test_a_new_heartbeat_replaces_the_old_one() -> None:
    beat(fast=timedelta(minutes=10), bulk=timedelta(0))
    assert worker_state() == "none"
    record_heartbeat(Queue.FAST)
    assert worker_state() == "ok"
    assert WorkerHeartbeat.objects.count() == 2
