"""The background tasks of replication."""

from datetime import timedelta
from typing import Final

from django.conf import settings

from registry_control.common.background import Queue, background_task, enqueue
from registry_control.replication.engine import claims, triggers
from registry_control.replication.engine.run import run
from registry_control.replication.services import rules

_RULES: Final = 50
_ROWS: Final = 1000


@background_task(name="replication.start", queue=Queue.FAST, every=timedelta(seconds=2))
def start() -> bool:
    """Start executions by recorded pushes and due schedules, and have the queue `bulk` work on them."""
    started = triggers.start_due(limit=_RULES), triggers.start_pushed(limit=_RULES)
    if any(started):
        enqueue(advance)
    return max(started) == _RULES


@background_task(
    name="replication.advance",
    queue=Queue.BULK,
    every=timedelta(seconds=5),
    at_most=settings.WORKER_BULK,
)
def advance() -> bool:
    """Do one piece of work of the running executions: list images, plan one, or copy a blob or manifests."""
    work = claims.claim_next()
    if work is None:
        return False
    enqueue(advance)  # where there is one, there may be one for another thread or another worker
    run(work)
    return True


@background_task(name="replication.clean_up", queue=Queue.FAST, every=timedelta(seconds=30))
def clean_up() -> bool:
    """Delete rows of finished executions and of deleted rules, and the rules of deleted namespaces."""
    orphaned = rules.delete_without_namespace(limit=_RULES)
    return triggers.clean_up(limit=_ROWS) or orphaned == _RULES
