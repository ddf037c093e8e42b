"""Response hooks run for several responses at once, and for each of them."""

import asyncio

import pytest

from registry_control.common.request_context import start
from registry_data.http.app_context import Exchange
from registry_data.http.ended_responses import EndedResponses


def exchanges(number: int) -> list[Exchange]:
    return [Exchange({"type": "http"}, {}, start(None)) for _ in range(number)]


def test_hooks_see_each_response_once_and_in_order() -> None:
    seen: list[Exchange] = []
    made = exchanges(100)

    async def end_all() -> None:
        all_seen = asyncio.Event()

        def note(exchange: Exchange) -> None:
            seen.append(exchange)
            if len(seen) == len(made):
                all_seen.set()

        ended = EndedResponses([note])
        for exchange in made:
            ended.add(exchange)
        assert len(seen) > 50
        await asyncio.wait_for(all_seen.wait(), timeout=10)  # the rest follows without a further response

    asyncio.run(end_all())
    assert [id(exchange) for exchange in seen] == [id(exchange) for exchange in made]


def test_a_hook_that_raises_loses_no_other_response() -> None:
    seen: list[Exchange] = []
    made = exchanges(3)

    def fail_once(exchange: Exchange) -> None:
        seen.append(exchange)
        if len(seen) == 1:
            raise RuntimeError("can't start new thread")

    async def end_all() -> None:
        ended = EndedResponses([fail_once])
        for exchange in made:
            ended.add(exchange)
        with pytest.raises(RuntimeError):
            ended.report()
        ended.report()

    asyncio.run(end_all())
    assert len(seen) == len(made)
