"""The process that runs the tasks of one queue: a Celery worker with a pool of threads."""

import logging
import os
import warnings
from typing import Any, Final

from celery import signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from django.conf import settings

from registry_control.celery import app
from registry_control.common.background import Queue, declared_tasks, enqueue, request_stop
from registry_control.serving.beat import CHECK_INTERVAL, Beat
from registry_control.serving.heartbeat import INTERVAL, record_heartbeat
from registry_control.serving.periodic import Periodic
from registry_control.serving.pid_file import PidFile

logger = logging.getLogger(__name__)

# One thread more for bulk tasks: those that take minutes run in at most WORKER_BULK threads at once, so that
# one is free for the others, and for the messages that `at_most` drops.
_CONCURRENCY: Final = {Queue.FAST: settings.WORKER_FAST, Queue.BULK: settings.WORKER_BULK + 1}

# Added to the nice value of the process for bulk tasks: the kernel prefers clients' processes (ADR 66).
_NICE: Final = 10


def consume(queue: Queue) -> int:
    """Run the tasks of a queue until SIGTERM, which lets running tasks finish. Returns the exit status."""
    _quiet_celery()
    if queue is Queue.BULK:
        _lower_priority()  # Before the pool's threads, which inherit it.
    # With the file-based broker, remote control commands would be files that no consumer deletes.
    app.conf.worker_enable_remote_control = settings.REDIS_URL is not None
    worker = app.Worker(
        hostname=f"{queue}@%h",
        queues=[queue.value],
        pool="threads",  # Tasks wait for database, disk and network; see ADR 37.
        concurrency=_CONCURRENCY[queue],
        quiet=True,
        redirect_stdouts=False,
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    companions = _Companions(queue, worker)
    signals.worker_ready.connect(lambda **_: companions.start(), weak=False)
    signals.worker_shutting_down.connect(lambda **_: companions.stop(), weak=False)
    worker.start()
    return int(worker.exitcode or 0)


class _Companions:
    """Runs in the process of the consumer: pid file, heartbeat and, for the fast queue, the beat."""

    def __init__(self, queue: Queue, worker: Any) -> None:  # noqa: ANN401 - Celery has no types
        self._queue = queue
        self._worker = worker
        self._is_ready = False
        self._pid_file = PidFile(f"worker-{queue}")
        self._beat = Beat(declared_tasks(), is_connected=self._is_connected)
        self._heartbeat_thread = Periodic("heartbeat", self._record_heartbeat, interval=INTERVAL)
        self._beat_thread = Periodic("beat", self._beat.tick, interval=CHECK_INTERVAL, at_end=self._beat.stop)

    def start(self) -> None:
        """Called once, when the consumer is connected for the first time."""
        for task in declared_tasks():
            if task.queue is self._queue:
                enqueue(task)  # Rows may have waited for a worker.
        self._heartbeat_thread.start()
        if self._queue is Queue.FAST:
            self._beat_thread.start()

    def stop(self) -> None:
        """Called when a stop was requested; tasks may still run."""
        request_stop()
        self._heartbeat_thread.stop()
        self._beat_thread.stop()
        self._pid_file.remove()

    def _record_heartbeat(self) -> None:
        if self._is_connected():
            record_heartbeat(self._queue)
            if self._is_ready:
                self._pid_file.refresh()
            else:
                self._pid_file.write()  # If this raises, the next heartbeat tries again.
                self._is_ready = True

    def _is_connected(self) -> bool:
        """Whether the consumer has a connection to the broker: Celery removes it when it is lost."""
        return self._worker.consumer.connection is not None


def _lower_priority() -> None:
    try:
        os.nice(_NICE)
    except OSError as error:  # a stricter filter of system calls than that of our units
        logger.warning("bulk tasks keep the usual nice value: %s", error)


def _quiet_celery() -> None:
    # Celery warns when root runs it. The danger it means, pickled messages, is off: only JSON is accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    # At each loss of the connection Celery announces a change of one of its defaults.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    # Otherwise each task is several lines, every few seconds.
    logging.getLogger("celery").setLevel(logging.WARNING)
