"""A work: one kind of operation to measure."""

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
    """A kind of operation, measured on every side at these numbers of connections.

    `load` pushes the content it needs, requests new tokens, and returns the operations.
    """

    name: str
    load: Callable[[Registry, int], Load]
    connections: tuple[int, ...] = RATES
    size: int = 0  # bytes transferred by one operation, if the result is a throughput
    writes: int = 0  # bytes stored by one operation, on average
    needs_registry: bool = False  # plain files are not enough
