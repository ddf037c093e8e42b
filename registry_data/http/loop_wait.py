"""Lets the event loop wait for a short use case instead of competing for the interpreter lock (ADR 8)."""

import time
from concurrent.futures import Future, wait
from typing import Any, Final

LONGEST: Final = 0.005  # seconds of one wait; Python lets a thread keep the interpreter lock as long
COST: Final = 2.0  # for each second of waiting two seconds must pass: the loop waits half of the time at most
COST_IN_VAIN: Final = 10.0  # the same if the use case has not ended then: a tenth of the time at most
SAVED: Final = 0.05  # seconds that have passed without waits and count for later ones, at most


class WaitBudget:
    """How much of its time an event loop may wait. Times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._used_until = float("-inf")

    def allows(self, now: float) -> bool:
        """Whether another wait may begin."""
        return now >= self._used_until

    def charge(self, now: float, waited: float, *, in_vain: bool) -> None:
        """Count a wait that ends now; `in_vain` if the use case has not ended."""
        self._used_until = max(self._used_until, now - SAVED) + waited * (COST_IN_VAIN if in_vain else COST)


class LoopWait:
    """The waits of one event loop."""

    def __init__(self) -> None:
        self._budget = WaitBudget()

    def until_done(self, call: Future[Any]) -> bool:
        """Wait for a call if the budget allows it. Returns whether the call has ended."""
        began = time.monotonic()
        if self._budget.allows(began):
            wait([call], LONGEST)
            ended = time.monotonic()
            self._budget.charge(ended, ended - began, in_vain=not call.done())
        return call.done()
