"""The beat: enqueues each declared task at its interval, in one process of the whole installation."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from registry_control.common.background import BackgroundTask, enqueue
from registry_control.serving.lease import Lease

LEASE: Final = 15.0
"""Seconds without a renewal after which another process takes over."""

CHECK_INTERVAL: Final = 1.0  # seconds


class Beat:
    """The beat of one process; idle while another process is the leader."""

    def __init__(self, tasks: Iterable[BackgroundTask], *, is_connected: Callable[[], bool]) -> None:
        """`is_connected` returns whether this process reaches the broker; if not, another one may lead."""
        # Not Celery's schedule: it uses the wall clock, and sends nothing after that was set back.
        started = time.monotonic()
        self._due_at = {task: started + task.every.total_seconds() for task in tasks}
        self._is_connected = is_connected
        self._lease = Lease("beat", duration=LEASE)

    def tick(self) -> None:
        """Enqueue the tasks that are due, if this process is the leader or becomes it.

        A process that takes over finds overdue what its predecessor did not enqueue.
        """
        if not self._is_connected():
            self._lease.release()
            return
        if not self._lease.hold():
            return
        moment = time.monotonic()
        for task, due_at in self._due_at.items():
            if due_at <= moment:
                enqueue(task)
                self._due_at[task] = moment + task.every.total_seconds()

    def stop(self) -> None:
        """Let another process take over at once."""
        self._lease.release()
