"""Caches whose entries depend on scopes of the catalogue, and end when one of these changes (ADR 43).

A process reads changes in the order in which they become visible (`ChangeFeed`) and counts what it has
applied (`ChangeTracker.version`). An entry knows the version that was applied before its data was read, and
is returned only while none of its scopes has changed after that. So whatever a cache returns is as new as the
last change that the process has applied (invariant 5).
"""

import asyncio
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from cachetools import LRUCache

from registry_control.db.postgresql.pipeline import ConnectionUnavailable as ConnectionUnavailable
from registry_control.db.postgresql.pipeline import Pipeline as Pipeline
from registry_control.db.postgresql.pipeline import Rows as Rows

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

REMEMBERED: Final = 50_000
"""Scopes whose last change a process knows, which takes about 10 MB."""


class ChangeFeed(Protocol):
    """The change log of the database."""

    def when_current(self, call: Callable[[bool], None]) -> None:
        """Apply every change committed before now, then call back, perhaps at once.

        The argument of the call is False if the changes cannot be read.
        """
        ...

    def close(self) -> None:
        """Close the connection to the database."""
        ...


async def catch_up(feed: ChangeFeed) -> bool:
    """Apply every change committed before this call; False while that is not possible."""
    outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def done(is_current: bool) -> None:
        if not outcome.done():
            outcome.set_result(is_current)

    feed.when_current(done)
    return await outcome


class ChangeTracker:
    """What this process has applied of the change log."""

    def __init__(self) -> None:
        self.version = 0  # counts the calls of `apply`
        self._changed: dict[str, int] = {}  # scope to the version of its last change, oldest first
        self._known_since = 0  # `_changed` has every scope that changed after this version

    def apply(self, scopes: Collection[str] | None) -> None:
        """Count a change of these scopes, None for everything."""
        self.version += 1
        if scopes is None:
            self._changed.clear()
            self._known_since = self.version
            return
        for scope in scopes:
            self._changed.pop(scope, None)
            self._changed[scope] = self.version
        while len(self._changed) > REMEMBERED:
            self._known_since = self._changed.pop(next(iter(self._changed)))

    def is_unchanged(self, scopes: Collection[str], *, since: int) -> bool:
        """Whether none of these scopes has changed after version `since`, as far as that is known."""
        if since == self.version:
            return True
        return since >= self._known_since and all(self._changed.get(scope, 0) <= since for scope in scopes)


class Dependencies:
    """The scopes that a response depends on, collected while it is made."""

    __slots__ = ("is_cacheable", "scopes", "version")

    def __init__(self, version: int | None) -> None:
        """`version` is the tracker's before the first read; None if changes could not be read."""
        self.version = version
        self.scopes: set[str] = set()
        self.is_cacheable = version is not None

    def add(self, scopes: Collection[str] | None) -> None:
        """Add what a read depends on; None if it depends on more than scopes can tell."""
        if scopes is None:
            self.is_cacheable = False
        else:
            self.scopes.update(scopes)


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    scopes: Collection[str]
    since: int  # the version for which the value is known to be true
    size: int  # bytes


class ScopedCache(Generic[K, V]):
    """The most recently used values, up to a number of bytes. For one thread."""

    def __init__(self, tracker: ChangeTracker, capacity: int) -> None:
        """`capacity` is in bytes, and so are the sizes that values are stored with."""
        self._tracker = tracker
        self._entries: LRUCache[K, _Entry[V]] = LRUCache(capacity, getsizeof=lambda entry: entry.size)

    def get(self, key: K) -> V | None:
        """The value of a key, if it is still true after the last change that was applied."""
        try:
            entry = self._entries[key]
        except KeyError:
            return None
        if not self._tracker.is_unchanged(entry.scopes, since=entry.since):
            del self._entries[key]
            return None
        entry.since = self._tracker.version
        return entry.value

    def put(self, key: K, value: V, *, since: int, scopes: Collection[str], size: int) -> None:
        """Store a value that depends on these scopes and was read after version `since` was applied."""
        if size <= self._entries.maxsize:
            self._entries[key] = _Entry(value, frozenset(scopes), since, size)
