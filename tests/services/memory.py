"""The memory that a plane uses at present: a high-water mark would hide growth behind an earlier peak."""

import re
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.services.stack import Stack

_INTERVAL: Final = 0.2  # seconds


def plane_memory(stack: Stack, plane: str) -> int:
    """The sum of the proportional set sizes (PSS) of all processes of a plane, in MiB."""
    total = 0
    for pid, command in stack.processes().items():
        if f"serve {plane}" not in command:
            continue
        with suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
            total += int(found[1]) if found else 0
    return total // 1024


class Growth:
    """How far the memory of a plane grew while the context was entered, at most, in MiB."""

    def __init__(self, stack: Stack, plane: str) -> None:
        self._stack, self._plane = stack, plane
        self._before = self._most = 0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    @property
    def mib(self) -> int:
        """The growth so far."""
        self._look()
        return self._most - self._before

    def __enter__(self) -> Self:
        self._before = self._most = plane_memory(self._stack, self._plane)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, plane_memory(self._stack, self._plane))
