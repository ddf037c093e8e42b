"""Memory that grows with the number of requests only up to a budget."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_LEAST: Final = 64 * 1024  # bytes


class MemoryBudget:
    """A budget of bytes, divided evenly among those who use it just now."""

    def __init__(self, budget: int, *, most: int) -> None:
        """Nobody gets more than `most` bytes, however few they are."""
        self._budget, self._most = budget, most
        self._users = 0

    @contextmanager
    def part(self) -> Iterator[Callable[[], int]]:
        """Take part; what it yields says how many bytes that is at the moment."""
        self._users += 1
        try:
            yield lambda: max(_LEAST, min(self._most, self._budget // self._users))
        finally:
            self._users -= 1
