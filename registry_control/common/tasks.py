"""The background task of the change log."""

from datetime import timedelta
from typing import Final

from registry_control.common import changes
from registry_control.common.background import Queue, background_task

_BATCH: Final = 5000


@background_task(name="common.prune_changes", queue=Queue.FAST, every=timedelta(minutes=5))
def prune_changes() -> bool:
    """Delete rows of the change log that every data process has read long ago."""
    return changes.prune_changes(limit=_BATCH) == _BATCH
