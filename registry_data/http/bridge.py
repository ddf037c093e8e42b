"""Where asynchronous edge and synchronous core meet: nowhere else does one colour call the other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from registry_data.freshness import ConnectionUnavailable, DatabaseVersion
from registry_data.http.read_executor import ReadExecutor

P = ParamSpec("P")
T = TypeVar("T")


class Bridge:
    """Runs the core in threads: use cases in some, bytes in others, so that neither waits for the other.

    Threads of use cases keep their own database connection; their number is the process's most.
    """

    def __init__(self, *, database_threads: int, storage_threads: int, reads: ReadExecutor) -> None:
        self._reads = reads
        self._use_cases = ThreadPoolExecutor(database_threads, thread_name_prefix="use-case")
        self._bytes = ThreadPoolExecutor(storage_threads, thread_name_prefix="bytes")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case."""
        return await self._in(self._use_cases, partial(function, *args, **kwargs))

    async def read(
        self, stamp: DatabaseVersion | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a use case that asks queries of db/sql.py and nothing else.

        `stamp` is one that was taken since the request came, or none.
        """
        call = partial(function, *args, **kwargs)
        with suppress(ConnectionUnavailable):  # a thread makes a connection of its own, or says what is wrong
            return await self._reads.run(stamp, call)
        return await self._in(self._use_cases, call)

    async def run_bytes(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what reads, writes or hashes bytes and asks the database nothing."""
        return await self._in(self._bytes, partial(function, *args, **kwargs))

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        """Wait for the thread even when the request is cancelled: what it holds must not be torn away."""
        future = asyncio.get_running_loop().run_in_executor(pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        finally:
            # An error would hold this frame, which holds the error by the future: the request, and with it
            # the connection, would be there until the collector of cycles comes by.
            del future

    def close(self) -> None:
        """Let running calls end, start no more."""
        self._use_cases.shutdown(wait=True)
        self._bytes.shutdown(wait=True)
