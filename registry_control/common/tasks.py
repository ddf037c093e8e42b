"""The worker's entry point for the change log."""

from celery import shared_task

from registry_control.common.changes import prune_changes as prune

_BATCH = 5000


@shared_task(name="common.prune_changes")
def prune_changes(limit: int = _BATCH) -> None:
    """Delete rows of the change log that every data process has read long ago."""
    if prune(limit=limit) == limit:
        prune_changes.delay(limit=limit)
