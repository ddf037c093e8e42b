"""A data plane in the test process."""

import asyncio
import threading
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
from django.db import connection

from registry_data.http.app import App
from registry_data.main import build_context
from registry_data.scoped_cache import catch_up

if TYPE_CHECKING:
    from registry_data.http.app_context import Exchange, ResponseHook


class Plane:
    """A data plane with its caches, in this process."""

    def __init__(self, *hooks: "ResponseHook") -> None:
        """`hooks` are called after each response, in addition."""
        self._runner = asyncio.Runner()
        self._exchanges: list[Exchange] = []
        self._context = replace(build_context(), on_response=(self._exchanges.append, *hooks))
        self._runner.run(self._connect())
        self._app = App(self._context)
        transport = httpx.ASGITransport(self._app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://registry.test")

    async def _connect(self) -> None:
        """Wait until the change log can be read; before that, nothing is cached."""
        for _ in range(1500):
            if await catch_up(self._context.feed):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the change log cannot be read")

    def get(self, method: str, path: str, headers: dict[str, str]) -> tuple[httpx.Response, bool]:
        """The response, and whether it came from the cache."""
        response = self._runner.run(self._client.request(method, path, headers=headers))
        self._app.report_responses()
        return response, self._exchanges[-1].from_cache

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._close_threads())
        self._context.bridge.close()
        self._runner.run(self._close_feed())
        self._runner.close()

    async def _close_threads(self) -> None:
        """Close the connection of every thread: all of them are busy with it at the same time."""
        number = self._context.config.database_threads
        barrier = threading.Barrier(number)

        def close_mine() -> None:
            barrier.wait(timeout=30)
            connection.close()

        await asyncio.gather(*(self._context.bridge.run(close_mine) for _ in range(number)))

    async def _close_feed(self) -> None:
        self._context.feed.close()
        if connection.vendor == "sqlite":
            connection.close()  # the one of the event loop, on which reads ran


def basic(secret: str) -> dict[str, str]:
    """The headers of a request with a secret key."""
    return {"Authorization": "Basic " + b64encode(f"x:{secret}".encode()).decode()}
