"""Least recently used cache for several threads, bounded by the size of its entries."""

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from cachetools import LRUCache

ENTRY_OVERHEAD: Final = 500  # bytes that an entry takes besides its value, about
K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """`cachetools.LRUCache` behind a lock: cachetools leaves locking to its callers."""

    def __init__(self, capacity: int, size_of: Callable[[V], int] | None = None) -> None:
        """`capacity` is the greatest sum of `size_of` over all entries; by default the number of entries."""
        self._entries: LRUCache[K, V] = LRUCache(capacity, getsizeof=size_of)
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value of a key, which thereby becomes the most recently used."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Store a value, evicting the least recently used ones. One larger than the cache is not stored."""
        with self._lock:
            if self._entries.getsizeof(value) <= self._entries.maxsize:
                self._entries[key] = value

    def pop(self, key: K) -> V | None:
        """Remove and return the value of a key."""
        with self._lock:
            return self._entries.pop(key, None)


def size_of_bytes(content: bytes) -> int:
    """Memory that a cached byte string takes, about."""
    return len(content) + ENTRY_OVERHEAD
