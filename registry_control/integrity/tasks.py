"""The background tasks that look after stored content."""

from datetime import timedelta

from django.conf import settings

from registry_control.common.background import Queue, background_task
from registry_control.common.store import blob_store
from registry_control.integrity.services import checks, reconcile, scrub


@background_task(name="integrity.scrub", queue=Queue.BULK, every=timedelta(seconds=3), at_most=1)
def scrub_content() -> bool:
    """Read the next content that is due, and compare it with its digest."""
    if settings.SCRUB_PERIOD:
        scrub.work(blob_store(), period=settings.SCRUB_PERIOD)
    return False  # the pace decides when there is more to read


@background_task(name="integrity.reconcile", queue=Queue.BULK, every=timedelta(seconds=5), at_most=1)
def compare_store() -> bool:
    """Compare the next rows and objects, and remove unknown objects whose grace period is over."""
    if settings.RECONCILE_PERIOD:
        reconcile.work(blob_store(), period=settings.RECONCILE_PERIOD, grace=settings.GC_GRACE)
    return False  # the pace decides when there is more to compare


@background_task(name="integrity.check", queue=Queue.BULK, every=timedelta(seconds=5), at_most=1)
def check_suspects() -> bool:
    """Look again at content that was found damaged or missing."""
    return checks.work(blob_store())
