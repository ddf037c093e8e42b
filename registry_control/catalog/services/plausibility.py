"""Whether the storage is likely the one that the database describes (ADR 34)."""

from typing import Final

from registry_control.catalog.selectors.sample import random_blobs
from registry_data.storage.base import BlobStore, Key, NotStored, StorageError, Unavailable

_SAMPLE: Final = 20  # blobs
_FEWEST: Final = 10  # missing ones, below which nothing is suspicious
WRONG_STORE: Final = (
    "most content seems to be missing: check that the storage is the right one and completely mounted; if the"
    " content is lost, run `manage.py scrub --accept-losses`, after which the next pushes heal it"
)


def lacks_most(store: BlobStore) -> bool | None:
    """Whether the storage says of most blobs of a random sample that it has no such content.

    Then it is likely another bucket or a disk that is not mounted. Not for fewer than ten missing blobs.
    None if it fails for most.
    """
    sample = random_blobs(_SAMPLE)
    answers = [_is_missing(store, Key(blob.key)) for blob in sample]
    missing, present = answers.count(True), answers.count(False)
    if 2 * (missing + present) < len(sample):
        return None
    return missing >= _FEWEST and missing > present


def require_plausible(store: BlobStore) -> None:
    """Check that the storage has the content of the database, as far as a sample tells.

    For a process that begins to use it, and before an upload replaces content that is missing.

    Raises:
        Unavailable: it lacks most.
    """
    if lacks_most(store):
        raise Unavailable(WRONG_STORE)


def _is_missing(store: BlobStore, key: Key) -> bool | None:
    """None if the storage fails."""
    try:
        store.size(key)
    except NotStored:
        return True
    except StorageError:
        return None
    return False
