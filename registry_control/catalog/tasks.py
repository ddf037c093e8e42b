"""The worker's entry points: each does a bounded batch, and calls itself while there is more."""

from celery import shared_task

from registry_control.catalog.services import deletion, uploads
from registry_control.common.store import blob_store
from registry_data.storage.base import Unavailable

_BATCH = 200


@shared_task(name="catalog.finish_deletions", autoretry_for=(Unavailable,), retry_backoff=True, max_retries=8)
def finish_deletions(limit: int = _BATCH) -> None:
    """Remove what DELETE requests left behind."""
    if deletion.run_batch(store=blob_store(), limit=limit):
        finish_deletions.delay(limit=limit)


@shared_task(name="catalog.expire_uploads", autoretry_for=(Unavailable,), retry_backoff=True, max_retries=8)
def expire_uploads(limit: int = _BATCH) -> None:
    """Discard uploads that nobody finished, and images that nothing was ever pushed to."""
    expired = uploads.expire(store=blob_store(), limit=limit)
    if limit in (expired, deletion.remove_never_pushed(limit=limit)):
        expire_uploads.delay(limit=limit)


@shared_task(name="catalog.expire_leases")
def expire_leases(limit: int = _BATCH) -> None:
    """Forget promises that are over."""
    if deletion.remove_expired_leases(limit=limit) == limit:
        expire_leases.delay(limit=limit)
