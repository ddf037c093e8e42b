"""Budgets: the minimum speed of this registry, as ratios within one run on one machine."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from bench.sides import REFERENCE

_OURS: Final = frozenset({"sqlite", "postgresql", "minio"})
_ON_DISK: Final = frozenset({"sqlite", "postgresql"})


@dataclass(frozen=True, slots=True)
class Budget:
    """Each of `sides` has to do each of `works` at least `ratio` times as fast as the side `against`."""

    works: Collection[str]
    sides: Collection[str]
    ratio: float
    connections: Collection[int] = (16,)
    against: str = REFERENCE


# `python -m bench.mixed` checks the budgets of reads during pushes.
BUDGETS: Final = (
    Budget({"manifest GET by tag"}, _OURS, 3),
    Budget({"pull and push 1 MiB (3:1), unique"}, _ON_DISK, 1.5),
)


def budgets_for(work: str, side: str, connections: int) -> list[Budget]:
    """The budgets of one work on one side."""
    return [
        budget
        for budget in BUDGETS
        if work in budget.works and side in budget.sides and connections in budget.connections
    ]
