"""The event loop waits for short use cases, within a budget."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.http.bridge import Bridge
from registry_data.http.loop_wait import AHEAD, COST, COST_IN_VAIN, LONGEST, LoopWait, WaitBudget
from registry_data.scoped_cache import Dependencies

T = TypeVar("T")


class NoReads:
    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        raise NotImplementedError


def a_bridge(wait: LoopWait | None) -> Bridge:
    return Bridge(database_threads=2, storage_threads=2, reads=NoReads(), wait=wait)


async def what_ends_first(wait: LoopWait | None, call: Callable[[], object]) -> list[str]:
    """Run a use case beside a task of the event loop that is ready to run."""
    bridge, ended = a_bridge(wait), list[str]()

    async def use_case() -> None:
        await bridge.run(call)
        ended.append("use case")

    async def other() -> None:
        ended.append("other")

    try:
        await asyncio.gather(use_case(), other())
    finally:
        bridge.close()
    return ended


class LongWait(LoopWait):
    """Waits as long as a thread may need to start on a busy machine."""

    def until_done(self, call: Future[Any]) -> bool:
        call.exception(60)
        return super().until_done(call)


def test_a_short_use_case_ends_before_the_loop_goes_on() -> None:
    assert asyncio.run(what_ends_first(LongWait(), lambda: None)) == ["use case", "other"]


def test_without_a_wait_the_loop_goes_on() -> None:
    assert asyncio.run(what_ends_first(None, lambda: None)) == ["other", "use case"]


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
        asyncio.run(what_ends_first(LongWait(), failing))


def test_the_loop_does_not_wait_for_bytes() -> None:
    async def run() -> list[str]:
        bridge, ended = a_bridge(LongWait()), list[str]()

        async def transfer() -> None:
            await bridge.run_bytes(lambda: None)
            ended.append("transfer")

        async def other() -> None:
            ended.append("other")

        try:
            await asyncio.gather(transfer(), other())
        finally:
            bridge.close()
        return ended

    assert asyncio.run(run()) == ["other", "transfer"]


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
    # The last wait is charged after it began, whatever was left.
    assert charged <= now + AHEAD + LONGEST * COST_IN_VAIN + 1e-9
