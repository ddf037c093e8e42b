"""Tells the worker that there is work.

The rows are the work (invariant 8): losing a nudge costs time only.
"""

import logging

from django.db import transaction
from kombu.exceptions import OperationalError

from registry_control.celery import app

logger = logging.getLogger(__name__)


def nudge(task: str) -> None:
    """Send the task by name once the present transaction has committed.

    A broker that is away must not fail a request whose change is already made: the worker's own
    schedule finds the rows.
    """
    transaction.on_commit(lambda: _send(task))


def _send(task: str) -> None:
    try:
        app.send_task(task)
    except (OperationalError, OSError) as error:
        logger.warning("could not nudge %s, its schedule will find the work: %s", task, error)
