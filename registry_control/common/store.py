"""The blob store that this installation is configured for."""

from functools import lru_cache

from django.conf import settings

from registry_data.storage.base import BlobStore
from registry_data.storage.factory import open_store


@lru_cache(maxsize=1)
def blob_store() -> BlobStore:
    """One driver a process; making it reads and writes nothing."""
    return open_store(settings.STORAGE_URL, reserve=settings.DISK_RESERVE)
