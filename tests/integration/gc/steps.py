"""Short names for what the tests of garbage collection do."""

from datetime import timedelta

from django.db import transaction

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from registry_control.catalog.services import deletion, images
from registry_control.common.clock import now
from registry_control.gc.policy import Rules
from registry_control.gc.services.collector import Batch, collect_batch
from registry_data.storage.base import BlobStore, Key, NotStored
from tests.factories import Pushed

GRACE = timedelta(hours=1)
LATER = timedelta(days=3)
"""After every lease and grace period of the tests."""


def rules(after: timedelta = LATER, *, ignore_grace: bool = False) -> Rules:
    """The rules at a later time."""
    return Rules(now() + after, GRACE, ignore_grace=ignore_grace)


def collect(store: BlobStore, after: timedelta = LATER, *, limit: int = 100) -> Batch:
    """One batch of the collector, at a later time."""
    return collect_batch(store=store, rules=rules(after), limit=limit)


def delete_image(pushed: Pushed, store: BlobStore) -> None:
    """Delete an image with all its rows, as the worker does."""
    with transaction.atomic():
        images.start_deletion(images.get_for_update(pushed.image_id), actor=SYSTEM)
    while deletion.run_batch(store=store, limit=100):
        pass


def expire_leases() -> None:
    """Let all leases be over for an hour, and delete them as the worker does."""
    BlobLease.objects.update(expires_at=now() - timedelta(hours=1))
    while deletion.remove_expired_leases(limit=100):
        pass


def is_stored(store: BlobStore, key: str) -> bool:
    """Whether the storage has content under a key."""
    try:
        store.size(Key(key))
    except NotStored:
        return False
    return True


def keys() -> dict[str, str]:
    """The storage keys of all blobs, by digest."""
    return dict(Blob.objects.values_list("digest", "storage_key"))


def queued() -> set[str]:
    """The digests in the review queue."""
    return set(BlobReview.objects.values_list("blob__digest", flat=True))
