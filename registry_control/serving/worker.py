"""The worker: one process for each queue, and this one, which supervises them.

Any number of workers, on any number of nodes, may run beside each other. Tasks are bounded and safe to run
twice at once, and one of all workers is the leader that enqueues the periodic tasks (`beat`).
"""

import logging
import os
from functools import partial
from typing import Final

from registry_control.celery import app
from registry_control.common.background import Queue
from registry_control.serving import broker
from registry_control.serving.consumer import consume
from registry_control.serving.pid_file import PidFile
from registry_control.serving.process import fork
from registry_control.serving.process_tuning import freeze_objects, rare_collections
from registry_control.serving.signals import Signals
from registry_control.serving.supervised import SupervisedProcess
from registry_control.serving.supervision import supervise

logger = logging.getLogger(__name__)

# Tasks end when a stop is requested, unless they wait for a server that does not answer, such as a target of
# replication. They are safe to kill at any line; the promise is 10 seconds.
_STOP_TIMEOUT: Final = 8.0


def run_worker() -> int:
    """Run tasks until SIGTERM; running tasks get 8 seconds to finish. Returns the exit status."""
    broker.make_folder()
    # Django's checks would import both HTTP planes.
    os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
    with rare_collections():
        app.loader.import_default_modules()  # Before the forks, which then share its memory.
    freeze_objects()
    ready = PidFile("worker")
    ready.remove()
    with Signals() as signals:
        try:
            supervise(
                [_process(queue) for queue in Queue],
                signals,
                on_ready=ready.write,
                report=logger.warning,
                stop_timeout=_STOP_TIMEOUT,
            )
        finally:
            ready.remove()
    return 0


def _process(queue: Queue) -> SupervisedProcess:
    pid_file = PidFile(f"worker-{queue}")
    pid_file.remove()
    return SupervisedProcess(
        f"worker {queue}",
        start=partial(fork, partial(consume, queue), title=f"manage.py serve worker {queue}"),
        is_ready=pid_file.names,
        report=logger.warning,
    )
