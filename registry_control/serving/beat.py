"""The beat: enqueues each declared task at its interval, in one process of the whole installation."""

from collections.abc import Callable, Iterable
from typing import Final

from celery.beat import ScheduleEntry, Scheduler

from registry_control.celery import app
from registry_control.common.background import BackgroundTask, enqueue
from registry_control.serving.lease import Lease

LEASE: Final = 15.0
"""Seconds without a renewal after which another process takes over."""

CHECK_INTERVAL: Final = 1.0  # seconds


class _Scheduler(Scheduler):
    """Celery's schedule, in memory. The publisher thread sends, so the broker never blocks the beat."""

    producer = None  # type: ignore[assignment]  # Celery's own connects to the broker at each tick.

    def __init__(self, tasks: Iterable[BackgroundTask]) -> None:
        super().__init__(app, lazy=True)
        self._tasks = {task.name: task for task in tasks}
        self.update_from_dict(
            {name: {"task": name, "schedule": task.every} for name, task in self._tasks.items()}
        )

    def apply_entry(self, entry: ScheduleEntry, producer: object = None) -> None:  # noqa: ARG002 - Celery's
        """Enqueue a task that is due."""
        enqueue(self._tasks[str(entry.task)])


class Beat:
    """The beat of one process; idle while another process is the leader."""

    def __init__(self, tasks: Iterable[BackgroundTask], *, is_connected: Callable[[], bool]) -> None:
        """`is_connected` returns whether this process reaches the broker; if not, another one may lead."""
        self._scheduler = _Scheduler(tasks)
        self._is_connected = is_connected
        self._lease = Lease("beat", duration=LEASE)

    def tick(self) -> None:
        """Enqueue the tasks that are due, if this process is the leader or becomes it.

        A process that takes over finds overdue what its predecessor did not enqueue.
        """
        if not self._is_connected():
            self._lease.release()
            return
        while self._lease.hold() and self._scheduler.tick() <= 0:
            continue

    def stop(self) -> None:
        """Let another process take over at once."""
        self._lease.release()
