"""The beat: the leader enqueues each task at its interval of the monotonic clock."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from registry_control.common.background import BackgroundTask, Queue
from registry_control.serving import beat
from registry_control.serving.beat import Beat

pytestmark = pytest.mark.django_db

TASKS = [
    BackgroundTask("often", Queue.FAST, timedelta(seconds=10)),
    BackgroundTask("seldom", Queue.BULK, timedelta(hours=1)),
]


class Clock:
    """The monotonic clock of the beat, and what it has enqueued."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.sent: list[str] = []

    def after(self, seconds: float, *beats: Beat) -> list[str]:
        """The names of the tasks that these enqueue when this time has passed."""
        self.seconds += seconds
        self.sent.clear()
        for each in beats:
            each.tick()
        return self.sent.copy()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    # Only this clock: a wall clock that an administrator sets back must not stop the tasks.
    monkeypatch.setattr(beat, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    monkeypatch.setattr(beat, "enqueue", lambda task: clock.sent.append(task.name))
    return clock


def test_each_task_is_enqueued_at_its_interval(clock: Clock) -> None:
    leader = Beat(TASKS, is_connected=lambda: True)
    assert clock.after(9, leader) == []
    assert clock.after(1, leader) == ["often"]
    assert clock.after(1, leader) == []
    assert clock.after(9, leader) == ["often"]
    assert clock.after(3580, leader) == ["often", "seldom"]
    assert clock.after(1, leader) == []


def test_another_process_enqueues_what_is_overdue_when_the_leader_stops(clock: Clock) -> None:
    # given a leader and another process, which does nothing meanwhile
    leader, other = (Beat(TASKS, is_connected=lambda: True) for _ in range(2))
    assert clock.after(10, leader, other) == ["often"]

    # when the leader stops, then the other one takes over
    leader.stop()
    assert clock.after(1, other, leader) == ["often"]
    assert clock.after(9, other, leader) == []
    assert clock.after(1, other, leader) == ["often"]


def test_a_leader_without_a_broker_lets_another_one_lead(clock: Clock) -> None:
    connected = [True]
    leader = Beat(TASKS, is_connected=lambda: connected[0])
    other = Beat(TASKS, is_connected=lambda: True)
    assert clock.after(10, leader, other) == ["often"]
    connected[0] = False
    assert clock.after(1, leader, other) == ["often"]
