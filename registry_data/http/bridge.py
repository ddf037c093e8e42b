"""Calls the synchronous core from the asynchronous edge: the only place where one calls the other (ADR 8)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from registry_data.http.loop_wait import LoopWait
from registry_data.http.read_executor import ReadExecutor
from registry_data.scoped_cache import ConnectionUnavailable, Dependencies

P = ParamSpec("P")
T = TypeVar("T")


class Bridge:
    """Runs use cases in one thread pool and byte transfers in another, so that neither waits for the other.

    Each thread of the first pool has its own database connection, so its size limits the connections of a
    process. Context variables of the request are visible in the threads.
    """

    def __init__(
        self,
        *,
        database_threads: int,
        storage_threads: int,
        reads: ReadExecutor,
        wait: LoopWait | None = None,
    ) -> None:
        """`wait` is for use cases that wait for no server: the event loop waits for the short ones."""
        self._reads = reads
        self._wait = wait
        self._use_cases = ThreadPoolExecutor(database_threads, thread_name_prefix="use-case")
        self._bytes = ThreadPoolExecutor(storage_threads, thread_name_prefix="bytes")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case in a thread of the first pool."""
        return await self._run_in(self._use_cases, partial(function, *args, **kwargs))

    async def read(
        self, dependencies: Dependencies | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a read-only use case, whose only access to the database is db/sql.py, on the event loop.

        Adds the scopes that the result depends on to `dependencies`; with None, no cached rows are used. If
        the pipeline has no connection, the use case runs in a thread instead.
        """
        call = partial(function, *args, **kwargs)
        try:
            return await self._reads.run(dependencies, call)
        except ConnectionUnavailable:  # the thread opens its own connection, or reports the error
            if dependencies is not None:
                dependencies.add(None)
        return await self._run_in(self._use_cases, call)

    async def run_bytes(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that reads, writes or hashes content and does not use the database."""
        return await self._run_in(self._bytes, partial(function, *args, **kwargs))

    async def _run_in(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        """Run a call in a pool. A cancelled request waits for it too: it may hold locks and open files."""
        submitted = pool.submit(copy_context().run, call)
        try:
            if self._wait is not None and pool is self._use_cases and self._wait.until_done(submitted):
                return submitted.result()
            return await _result(submitted)
        finally:
            # An exception refers to this frame, and the future to the exception. Without `del`, this cycle
            # would keep the request and its connection alive until the garbage collector runs.
            del submitted

    def close(self) -> None:
        """Wait for running calls and start no new ones."""
        self._use_cases.shutdown(wait=True)
        self._bytes.shutdown(wait=True)


async def _result(submitted: Future[T]) -> T:
    future = asyncio.wrap_future(submitted)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
    finally:
        del future, submitted  # see Bridge._run_in
