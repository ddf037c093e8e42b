"""The worker process: Celery, with its beat in a thread of it.

The schedule is kept in memory, and every scheduled task is sent once at the start: so there is no
schedule file to go stale or break, and what a killed worker left is picked up at once. Tasks are bounded
and may run twice at a time, so any number of these may run beside each other.
"""

import logging
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from celery import signals
from celery.beat import EmbeddedService
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from django.conf import settings

from registry_control.celery import app
from registry_control.common.nudge import nudge
from registry_control.serving import broker
from registry_control.serving.pid_file import worker_pid_file

if TYPE_CHECKING:
    from threading import Thread


def run_worker() -> int:
    """Work until SIGTERM; the task at hand is finished first. Returns the exit status."""
    broker.make_folder()
    # Django's checks would load all that the HTTP planes are made of.
    os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
    # Celery warns everybody who is root; what makes that dangerous, pickled messages, is not taken here.
    warnings.simplefilter("ignore", SecurityWarning)
    # And at each loss of its connection, of a default that it is going to change.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    # Commands to all workers would be files as well, which nobody takes away.
    app.conf.worker_enable_remote_control = settings.REDIS_URL is not None
    beat = cast("Thread", EmbeddedService(app, thread=True, scheduler_cls="celery.beat:Scheduler"))
    signals.worker_ready.connect(lambda **_: _begin(beat.start), weak=False)
    signals.worker_shutting_down.connect(lambda **_: _end(), weak=False)
    # Each task and each nudge is a line otherwise, every few seconds for ever.
    logging.getLogger("celery").setLevel(logging.WARNING)
    worker = app.Worker(
        pool="solo",  # One task at a time: what two at once would do to the same rows is done twice.
        quiet=True,
        redirect_stdouts=False,
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _begin(start_beat: Callable[[], None]) -> None:
    start_beat()
    for entry in app.conf.beat_schedule.values():
        nudge(entry["task"])
    path = worker_pid_file(settings.STATE_DIR)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(str(os.getpid()), encoding="ascii")


def _end() -> None:
    worker_pid_file(settings.STATE_DIR).unlink(missing_ok=True)
