"""The blob store configured for this installation."""

from functools import lru_cache

from django.conf import settings

from registry_data.storage.base import BlobStore
from registry_data.storage.factory import open_store


@lru_cache(maxsize=1)
def blob_store() -> BlobStore:
    """The driver of this process. Creating it causes no I/O."""
    return open_store(settings.STORAGE_URL, reserve=settings.DISK_RESERVE)
