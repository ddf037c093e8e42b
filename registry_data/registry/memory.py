"""What cannot change may be kept: contents that a process has read lately."""

import threading
from collections import OrderedDict
from typing import Final

_OVERHEAD: Final = 400  # bytes that an entry takes besides its content, its name included


class RecentBytes:
    """Byte strings by name, the most recently used ones, up to a number of bytes."""

    def __init__(self, capacity: int) -> None:
        self._left = capacity  # bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        """The bytes of that name, if they are still here."""
        with self._lock:
            content = self._kept.get(name)
            if content is not None:
                self._kept.move_to_end(name)
            return content

    def put(self, name: str, content: bytes) -> None:
        """Keep these bytes, in place of those that were used longest ago."""
        with self._lock:
            if name not in self._kept:
                self._kept[name] = content
                self._left -= len(content) + _OVERHEAD
            while self._left < 0:
                self._left += len(self._kept.popitem(last=False)[1]) + _OVERHEAD
