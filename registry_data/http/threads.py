"""Threads that run calls of an event loop: the thread that became idle last runs the next call.

ThreadPoolExecutor wakes its threads in turn. A thread of the use cases has a connection to the database, and
that a process on the server with caches and prepared statements of its own: in turn, all of them are used at
any load, and all of them cold. It also makes two futures and a work item for each call.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Call:
    """A call, and the future on the event loop that gets its result."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]


_Inbox: TypeAlias = "SimpleQueue[_Call | None]"
"""Where a thread waits for its next call; None ends the thread."""


class Threads:
    """At most `limit` threads, each of which is started when all earlier ones are busy."""

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit, self._name = limit, name
        self._lock = Lock()
        self._threads: list[tuple[Thread, _Inbox]] = []
        self._idle: list[_Inbox] = []  # the last one became idle last
        self._waiting: deque[_Call] = deque()  # until a thread is idle
        self._is_closed = False

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run a call in a thread and return its future, whose cancellation does not stop the call.

        Raises:
            RuntimeError: the threads are closed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("no call can run after the threads were closed")
            if self._idle:
                self._idle.pop().put(_Call(call, future))
            elif len(self._threads) < self._limit:
                self._start().put(_Call(call, future))
            else:
                self._waiting.append(_Call(call, future))
        return future

    def close(self) -> None:
        """Wait for all calls that were accepted, and end the threads."""
        with self._lock:
            self._is_closed = True
        for _, inbox in self._threads:
            inbox.put(None)
        for thread, _ in self._threads:
            thread.join()

    def _start(self) -> _Inbox:
        inbox: _Inbox = SimpleQueue()
        name = f"{self._name}_{len(self._threads)}"
        # Daemon: an interpreter that ends without `close` must not wait for an idle thread.
        thread = Thread(target=self._serve, args=(inbox,), name=name, daemon=True)
        thread.start()
        self._threads.append((thread, inbox))
        return inbox

    def _serve(self, inbox: _Inbox) -> None:
        while (call := inbox.get()) is not None:
            while call is not None:
                call = self._run(call, inbox)

    def _run(self, call: _Call, inbox: _Inbox) -> _Call | None:
        """Run a call; returns the next one, if one waits. Otherwise the thread becomes idle.

        It does so before the event loop learns the result, so that the loop's next call finds it.
        """
        try:
            result = call.run()
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            following = self._next(inbox)
            _settle(call.future, call.future.set_exception, error)
        else:
            following = self._next(inbox)
            _settle(call.future, call.future.set_result, result)
        finally:
            # An exception refers to this frame, and the future to the exception: see Bridge._run_in.
            del call
        return following

    def _next(self, inbox: _Inbox) -> _Call | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(inbox)
            return None


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], outcome: object) -> None:
    def in_loop() -> None:
        if not future.done():  # done: it was cancelled
            settle(outcome)

    with suppress(RuntimeError):  # the loop was closed: nothing awaits the future
        future.get_loop().call_soon_threadsafe(in_loop)
