"""Looks at the stored content of a blob."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from registry_control.common.background import is_stopping
from registry_control.integrity.policy import Content, Finding
from registry_data.oci.digest import Digest, Hashers
from registry_data.storage.base import BlobStore, Key, NotStored, ReadsPastCache, StorageError

_TICK: Final = 5.0  # seconds between two renewals
_LONGEST_PAUSE: Final = 1.0  # seconds; a stop of the worker waits for it


class Interrupted(Exception):
    """The process is being stopped, or another worker has taken the work over."""


class Pace:
    """Limits the bytes per second of a reader, and renews its lease every few seconds."""

    def __init__(self, bytes_per_second: int | None, renew: Callable[[], bool] | None = None) -> None:
        """None means no limit, and no lease."""
        self._rate, self._renew = bytes_per_second, renew
        self._began = self._asked = time.monotonic()
        self._read = 0

    def count(self, size: int) -> None:
        """Wait until the bytes read so far are within the limit.

        Raises:
            Interrupted: the reader has to stop.
        """
        self._read += size
        moment = time.monotonic()
        if moment - self._asked > _TICK:
            self._asked = moment
            if self._renew is not None and not self._renew():
                raise Interrupted
        if is_stopping():
            raise Interrupted
        if self._rate is not None:
            time.sleep(max(0.0, min(self._began + self._read / self._rate - moment, _LONGEST_PAUSE)))


def look(store: BlobStore, *, key: str, digest: str, size: int, pace: Pace) -> Finding:
    """Read the whole content under a key, and compare its size and digest.

    Raises:
        Interrupted: the reader has to stop; nothing was found out.
    """
    expected = Digest.parse(digest)
    hashers, read = Hashers([expected.algorithm]), 0
    try:
        for piece in _pieces(store, Key(key)):
            hashers.update(piece)
            read += len(piece)
            pace.count(len(piece))
    except NotStored:
        return Finding(Content.MISSING, "the storage has no content under its key")
    except StorageError as error:
        return Finding(Content.UNKNOWN, str(error))
    if read != size:
        return Finding(Content.DAMAGED, f"the content has {read} bytes instead of {size}")
    actual = hashers.digest(expected.algorithm)
    if actual != expected:
        return Finding(Content.DAMAGED, f"the digest of the content is {actual}")
    return Finding(Content.WHOLE)


def _pieces(store: BlobStore, key: Key) -> Iterator[bytes]:
    return store.read_past_cache(key) if isinstance(store, ReadsPastCache) else store.read(key)


def glance(store: BlobStore, *, key: str, size: int) -> Finding:
    """Ask the storage only for the size of the content under a key."""
    try:
        found = store.size(Key(key))
    except NotStored:
        return Finding(Content.MISSING, "the storage has no content under its key")
    except StorageError as error:
        return Finding(Content.UNKNOWN, str(error))
    if found != size:
        return Finding(Content.DAMAGED, f"the content has {found} bytes instead of {size}")
    return Finding(Content.WHOLE)
