"""The background tasks of the catalogue."""

from datetime import timedelta
from typing import Final

from registry_control.catalog.services import deletion, reachability, uploads
from registry_control.common.background import Queue, background_task
from registry_control.common.store import blob_store

_BATCH: Final = 200
_IMAGES: Final = 10  # recounted in one batch; an image of a million manifests takes a minute


# This and `expire_uploads` call the storage: `at_most` keeps threads free while it does not respond.
@background_task(name="catalog.finish_deletions", queue=Queue.FAST, every=timedelta(seconds=10), at_most=2)
def finish_deletions() -> bool:
    """Remove the rows and uploads of namespaces, images and tags that are marked `deleting`."""
    return deletion.run_batch(store=blob_store(), limit=_BATCH)


@background_task(name="catalog.recount_images", queue=Queue.BULK, every=timedelta(seconds=5))
def recount_images() -> bool:
    """Recount the sizes of images where a request would have had to evaluate too many manifests."""
    return reachability.recount_stale(limit=_IMAGES) == _IMAGES


@background_task(name="catalog.expire_uploads", queue=Queue.FAST, every=timedelta(seconds=10), at_most=1)
def expire_uploads() -> bool:
    """Discard expired uploads, and what closed ones left in the storage, such as copies (ADR 35)."""
    return uploads.expire(store=blob_store(), limit=_BATCH) == _BATCH


@background_task(name="catalog.remove_never_pushed", queue=Queue.FAST, every=timedelta(minutes=5))
def remove_never_pushed() -> bool:
    """Delete images to which no manifest was ever pushed."""
    return deletion.remove_never_pushed(limit=_BATCH) == _BATCH


@background_task(name="catalog.expire_leases", queue=Queue.FAST, every=timedelta(seconds=5))
def expire_leases() -> bool:
    """Delete expired leases of blobs."""
    return deletion.remove_expired_leases(limit=_BATCH) == _BATCH
