"""Background tasks: how an app declares one, and how code asks the worker to run it.

A job is a row in the database; a task only advances rows (invariant 8). So a task has no arguments, may run
twice at once, and may be killed at any line: a lost message costs time, because the beat enqueues every task
again at its interval.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from django.db import InterfaceError, OperationalError, transaction

from registry_control.celery import app
from registry_control.common.publisher import Publisher
from registry_data.storage.base import Unavailable

logger = logging.getLogger(__name__)

_TIME_SLICE: Final = 2.0  # seconds of batches in one run of a task; a stop of the worker waits for the run
_EXPIRES: Final = 600  # seconds after which a message is dropped: the beat has sent later ones


class Queue(StrEnum):
    """The queues of the worker. Each has its own process, so `bulk` work never delays `fast` work."""

    FAST = "fast"
    """Work of at most a few seconds that users wait for: deletions, expiry."""

    BULK = "bulk"
    """Work of minutes that moves content: replication, scrubbing."""


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """A declared task."""

    name: str
    queue: Queue
    every: timedelta
    at_most: int | None = None  # runs at once in one process; None: as many as the queue has threads


_declared: Final[dict[str, BackgroundTask]] = {}
_stop: Final = threading.Event()


def background_task(
    *, name: str, queue: Queue, every: timedelta, at_most: int | None = None
) -> Callable[[Callable[[], bool]], BackgroundTask]:
    """Declare a function as a task of the worker.

    The function works on one bounded batch of rows and returns whether there may be more. The task repeats it
    for a short time slice and then enqueues itself, so that tasks of one queue alternate.

    Args:
        name: of the messages; the same in all releases.
        queue: the queue whose workers run it.
        every: interval at which the beat enqueues it, whether or not there is work.
        at_most: how often one process runs it at once. Needed for batches that take longer than `every`:
            further messages are dropped, and do not fill all threads of the queue and the queue itself.
    """

    def declare(batch: Callable[[], bool]) -> BackgroundTask:
        task = _declared[name] = BackgroundTask(name, queue, every, at_most)
        slots = threading.BoundedSemaphore(at_most) if at_most else None

        @app.task(name=name)
        def run() -> None:
            if slots is None:
                _run(task, batch)
            elif slots.acquire(blocking=False):
                try:
                    _run(task, batch)
                finally:
                    slots.release()

        return task

    return declare


def declared_tasks() -> Iterable[BackgroundTask]:
    """All tasks of the modules that have been imported."""
    return _declared.values()


def enqueue(task: BackgroundTask) -> None:
    """Send a message for the task from the publisher thread of this process; never blocks and never fails."""
    _publisher.enqueue(task.name)


def enqueue_on_commit(task: BackgroundTask) -> None:
    """Enqueue the task when the current transaction commits, or at once outside of one."""
    # Robust: a thread that cannot be started must not fail a request whose change is committed.
    transaction.on_commit(lambda: enqueue(task), robust=True)


def request_stop() -> None:
    """Make batches of this process that take long end soon; called when the worker is stopped."""
    _stop.set()


def is_stopping() -> bool:
    """Whether this process is being stopped, so that a batch should save its progress and return."""
    return _stop.is_set()


def pause(seconds: float) -> None:
    """Sleep, but not after the process was asked to stop."""
    _stop.wait(seconds)


def _run(task: BackgroundTask, batch: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIME_SLICE
    try:
        while not is_stopping() and batch():
            if time.monotonic() > deadline:
                enqueue(task)
                return
    except (Unavailable, OperationalError, InterfaceError) as error:
        logger.warning("%s stopped and runs again in %s: %s", task.name, task.every, error)


def _send(name: str) -> None:
    task = _declared[name]
    options: dict[str, Any] = {"queue": task.queue.value, "expires": _EXPIRES}
    app.send_task(name, **options)


_publisher: Final = Publisher(_send)
