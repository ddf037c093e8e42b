"""What a work is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.measure import Load
from bench.registry import Registry

KIB: Final = 1024
MIB: Final = 1024 * KIB
LARGE: Final = 200 * 10**6  # bytes

RATES: Final = (1, 16, 64, 256)  # numbers of connections
BULK: Final = (1, 16)


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to do to every side, at these numbers of connections.

    `load` sees to it that the content it needs is there, takes new tokens, and says what to do.
    """

    name: str
    load: Callable[[Registry, int], Load]
    connections: tuple[int, ...] = RATES
    size: int = 0  # bytes moved by one operation, where that is what matters
    writes: int = 0  # bytes stored by one operation, on average
    needs_registry: bool = False  # plain files do not do
