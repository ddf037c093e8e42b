"""The event loop waits for short use cases, within a budget."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.http.bridge import Bridge
from registry_data.http.loop_wait import COST, COST_IN_VAIN, LONGEST, SAVED, LoopWait, WaitBudget
from registry_data.http.read_executor import InlineReads
from registry_data.scoped_cache import ChangeTracker


def a_bridge(wait: LoopWait | None) -> Bridge:
    reads = InlineReads(lambda _: None, lambda _sql, _parameters: [], ChangeTracker())
    return Bridge(database_threads=2, storage_threads=2, reads=reads, wait=wait)


def what_ends_first(wait: LoopWait | None, call: Callable[[Bridge], Awaitable[object]]) -> list[str]:
    """Run a call of the bridge beside a task of the event loop that is ready to run."""
    ended: list[str] = []

    async def in_a_thread(bridge: Bridge) -> None:
        await call(bridge)
        ended.append("call")

    async def other() -> None:
        ended.append("other")

    async def both() -> None:
        bridge = a_bridge(wait)
        try:
            await asyncio.gather(in_a_thread(bridge), other())
        finally:
            bridge.close()

    asyncio.run(both())
    return ended


def nothing() -> None:
    pass


class LongWait(LoopWait):
    """Waits as long as a thread may need to start on a busy machine."""

    def until_done(self, call: Future[Any]) -> bool:
        call.exception(60)
        return super().until_done(call)


def test_a_short_use_case_ends_before_the_loop_goes_on() -> None:
    assert what_ends_first(LongWait(), lambda bridge: bridge.run(nothing)) == ["call", "other"]


def test_without_a_wait_the_loop_goes_on() -> None:
    assert what_ends_first(None, lambda bridge: bridge.run(nothing)) == ["other", "call"]


def test_the_loop_does_not_wait_for_bytes() -> None:
    assert what_ends_first(LongWait(), lambda bridge: bridge.run_bytes(nothing)) == ["other", "call"]


def test_a_use_case_that_takes_longer_does_not_stop_the_loop() -> None:
    release = threading.Event()

    async def run() -> None:
        bridge = a_bridge(LoopWait())
        try:
            calls = [asyncio.create_task(bridge.run(release.wait)) for _ in range(2)]
            await asyncio.sleep(LONGEST)
            assert not any(call.done() for call in calls)
            release.set()
            assert await asyncio.gather(*calls) == [True, True]
        finally:
            release.set()
            bridge.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_exception_is_raised_where_the_use_case_was_called() -> None:
    def failing() -> None:
        raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        what_ends_first(LongWait(), lambda bridge: bridge.run(failing))


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 0.1), st.floats(0, LONGEST), st.booleans()), min_size=1, max_size=200
    )
)
def test_waits_take_half_of_the_time_at_most_and_a_tenth_in_vain(
    steps: list[tuple[float, float, bool]],
) -> None:
    budget, now, charged = WaitBudget(), 0.0, 0.0
    for between, waited, in_vain in steps:
        now += between
        if budget.allows(now):
            now += waited
            budget.charge(now, waited, in_vain=in_vain)
            charged += waited * (COST_IN_VAIN if in_vain else COST)
    # Whatever is left, the last wait is charged whole.
    assert charged <= now + SAVED + LONGEST * COST_IN_VAIN + 1e-9
