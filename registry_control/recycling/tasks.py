"""The background tasks of the recycle bin."""

from datetime import timedelta
from typing import Final

from registry_control.catalog.services import tags
from registry_control.common.background import Queue, background_task
from registry_control.recycling.services import emptying

_BATCH: Final = 200
_ENTRIES: Final = 20  # settled in one batch


@background_task(name="recycling.expire", queue=Queue.FAST, every=timedelta(seconds=5), at_most=1)
def expire() -> bool:
    """Delete for good what has been in the recycle bin for its whole time."""
    return emptying.expire(limit=_BATCH)


@background_task(name="recycling.forget_history", queue=Queue.FAST, every=timedelta(minutes=1), at_most=1)
def forget_history() -> bool:
    """Delete the history of tags that is older than what the recycle bin keeps."""
    return tags.forget_history(limit=_BATCH) == _BATCH


@background_task(name="recycling.settle", queue=Queue.FAST, every=timedelta(seconds=10), at_most=1)
def settle() -> bool:
    """End leases and uploads of what was moved to the recycle bin."""
    return emptying.settle(entries=_ENTRIES, limit=_BATCH)
