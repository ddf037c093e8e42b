"""A memory budget: what transfers buffer does not grow with their number."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

LEAST: Final = 64 * 1024
"""Bytes that every transfer may use, however many there are."""


class MemoryBudget:
    """A number of bytes that is divided evenly among the transfers that run at the same time."""

    def __init__(self, budget: int, *, most: int) -> None:
        """No transfer gets more than `most` bytes, however few there are."""
        self._budget, self._most = budget, most
        self._leases = 0

    @contextmanager
    def lease(self) -> Iterator[Callable[[], int]]:
        """Yield a function that returns how many bytes this transfer may use at the moment."""
        self._leases += 1
        try:
            yield lambda: max(LEAST, min(self._most, self._budget // self._leases))
        finally:
            self._leases -= 1
