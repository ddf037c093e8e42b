"""Calls of an event loop in threads: few threads under low load, never more than the limit."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from registry_data.http.threads import Threads


@contextmanager
def made(limit: int) -> Iterator[Threads]:
    threads = Threads(limit, name="test")
    try:
        yield threads
    finally:
        threads.close()


def run(scenario: Callable[[Threads], Coroutine[Any, Any, None]], *, limit: int) -> None:
    with made(limit) as threads:
        asyncio.run(scenario(threads))


def test_calls_one_after_the_other_run_in_one_thread() -> None:
    async def scenario(threads: Threads) -> None:
        # given two threads that have run calls at the same time
        both = threading.Barrier(2)
        await asyncio.gather(*(threads.run(lambda: both.wait(10)) for _ in range(2)))

        # when calls come one after the other, then the thread that became idle last runs all of them
        names = {await threads.run(lambda: threading.current_thread().name) for _ in range(50)}
        assert len(names) == 1

    run(scenario, limit=8)


def test_calls_beyond_the_limit_wait_in_order() -> None:
    async def scenario(threads: Threads) -> None:
        running, most, order, lock = 0, 0, list[int](), threading.Lock()

        def call(number: int) -> int:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                order.append(number)
            with lock:
                running -= 1
            return number

        results = await asyncio.gather(*(threads.run(lambda n=n: call(n)) for n in range(200)))  # type: ignore[misc]
        assert results == list(range(200))
        assert most <= 2
        assert sorted(order) == results

    run(scenario, limit=2)


def test_an_exception_is_raised_where_the_result_is_awaited() -> None:
    async def scenario(threads: Threads) -> None:
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        # and the thread goes on
        assert await threads.run(lambda: 1) == 1

    run(scenario, limit=1)


def test_an_exception_keeps_nothing_alive() -> None:
    class Body:
        """What a request holds."""

    async def scenario(threads: Threads) -> None:
        def fail(body: Body) -> None:
            raise ZeroDivisionError

        async def request() -> weakref.ref[Body]:
            body = Body()
            future = threads.run(partial(fail, body))
            try:
                await future
            except ZeroDivisionError:
                return weakref.ref(body)
            finally:
                del future
            raise AssertionError("the call has not failed")

        body = await request()
        await threads.run(lambda: None)  # the thread has dropped the call
        assert body() is None

    gc.disable()
    try:
        run(scenario, limit=1)
    finally:
        gc.enable()


def test_a_cancelled_future_does_not_disturb_the_thread() -> None:
    async def scenario(threads: Threads) -> None:
        go = threading.Event()
        waiting = threads.run(lambda: go.wait(10))
        waiting.cancel()
        go.set()
        assert await threads.run(lambda: 1) == 1

    run(scenario, limit=1)


def test_closing_waits_for_accepted_calls_and_refuses_others() -> None:
    done: list[int] = []

    async def scenario() -> None:
        with made(1) as threads:
            for number in range(20):
                threads.run(lambda n=number: done.append(n))  # type: ignore[misc]
        assert done == list(range(20))
        with pytest.raises(RuntimeError):
            threads.run(lambda: None)

    asyncio.run(scenario())


def test_a_result_for_a_closed_loop_is_dropped() -> None:
    go = threading.Event()
    with made(1) as threads:

        async def begin() -> None:
            threads.run(lambda: go.wait(10))

        asyncio.run(begin())
        go.set()

        async def again() -> None:
            assert await threads.run(lambda: 1) == 1

        asyncio.run(again())
