"""The background tasks of the administration."""

from datetime import timedelta
from typing import Final

from django.contrib.sessions.models import Session

from registry_control.common.background import Queue, background_task
from registry_control.common.clock import now

_BATCH: Final = 1000


@background_task(name="administration.delete_expired_sessions", queue=Queue.FAST, every=timedelta(hours=1))
def delete_expired_sessions() -> bool:
    """Delete expired sessions: a browser that does not return leaves its session behind."""
    return delete_batch(limit=_BATCH) == _BATCH


def delete_batch(*, limit: int) -> int:
    """Delete at most `limit` expired sessions; returns how many were found."""
    expired = Session.objects.filter(expire_date__lt=now())
    keys = list(expired.order_by("expire_date").values_list("pk", flat=True)[:limit])
    # The condition again: a request may have extended a session meanwhile.
    expired.filter(pk__in=keys).delete()
    return len(keys)
