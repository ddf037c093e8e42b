"""Layers that several images share, used again at the moment when the collector may remove them."""

import random
import threading
import time
from typing import Final

_EARLY: Final = 1.5  # seconds before the collector may remove a layer
_LATE: Final = 3.0  # seconds after that
_SIZES: Final[dict[int, float]] = {500: 12, 5_000: 6, 100_000: 2, 1_000_000: 0.3}
"""In bytes, with their relative frequencies."""


class SharedLayers:
    """Thread-safe; one for all clients."""

    def __init__(self, chance: random.Random, *, due_after: float) -> None:
        """`due_after`: seconds after its last use at which a layer without references may be removed."""
        self._chance = chance
        self._due_after = due_after
        self._lock = threading.Lock()
        self._used: dict[bytes, float] = {}  # content: when it was last used (monotonic)

    def choose(self) -> bytes:
        """A layer that may be removed about now, one that is used elsewhere, or a new one."""
        with self._lock:
            now = time.monotonic()
            ages = {content: now - used for content, used in self._used.items()}
            due = [content for content, age in ages.items() if -_EARLY < age - self._due_after < _LATE]
            recent = [content for content, age in ages.items() if age < 1]
            choice = self._chance.random()
            if due and choice < 0.6:
                content = self._chance.choice(due)
            elif recent and choice < 0.8:
                content = self._chance.choice(recent)
            else:
                content = self._chance.randbytes(self._chance.choices([*_SIZES], [*_SIZES.values()])[0])
            self._used[content] = now
            for old in [content for content, age in ages.items() if age > self._due_after + 10 * _LATE]:
                del self._used[old]
            return content
