"""Where asynchronous edge and synchronous core meet: nowhere else does one colour call the other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Bridge:
    """Runs the core in threads: use cases in some, bytes in others, so that neither waits for the other.

    Threads of use cases keep their own database connection; their number is the process's most.
    With `reads_inline`, use cases that only read run right here, without a hop: for a database that is a
    file on this machine and never makes a reader wait, the hop costs several times the query.
    """

    def __init__(self, *, database_threads: int, storage_threads: int, reads_inline: bool) -> None:
        # Django keeps connections by context; in a context of their own, all reads share one.
        self._reads = copy_context() if reads_inline else None
        self._use_cases = ThreadPoolExecutor(database_threads, thread_name_prefix="use-case")
        self._bytes = ThreadPoolExecutor(storage_threads, thread_name_prefix="bytes")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case."""
        return await self._in(self._use_cases, partial(function, *args, **kwargs))

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case that only reads."""
        if self._reads is not None:
            return self._reads.run(function, *args, **kwargs)
        return await self._in(self._use_cases, partial(function, *args, **kwargs))

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

    def close(self) -> None:
        """Let running calls end, start no more."""
        self._use_cases.shutdown(wait=True)
        self._bytes.shutdown(wait=True)
