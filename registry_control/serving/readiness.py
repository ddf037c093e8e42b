"""Whether this process can serve: the checks behind /readyz (ADR 59).

Each check runs in threads of its own and not in those of requests, which may all wait for the same server. A
result is used for a second, and requests that come during a run wait for that run, so any number of probes
causes at most one query and one request to the storage per second and process.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

logger = logging.getLogger(__name__)

_FRESH: Final = 1.0  # seconds for which a result is used
_TIMEOUT: Final = 5.0  # seconds for a run; /readyz promises a response within 10
# A run that has timed out keeps its thread until its server answers or the connection times out. The next
# run opens a new connection, and recovers even if the old one never does; more than this do not help.
_THREADS: Final = 3


class Status(StrEnum):
    """The result of one check."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"  # not examined, because an earlier check failed


class CheckFailed(Exception):
    """Something that requests need is missing. The message is for the log, not for clients."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


Check: TypeAlias = Callable[[], None]
"""May block. Raises CheckFailed with one of its names."""


class Readiness:
    """The results of all checks, shared by all probes of one process."""

    def __init__(self, checks: Mapping[tuple[str, ...], Check]) -> None:
        """`checks` maps the names that a check examines, in its order, to the check. Runs nothing yet."""
        self._checks = [_BackgroundCheck(names, check) for names, check in checks.items()]
        self._results: Mapping[str, Status] = MappingProxyType({})
        self._fresh_until = 0.0
        self._run: asyncio.Task[None] | None = None

    async def results(self) -> Mapping[str, Status]:
        """The status of each name, at most a second old."""
        if time.monotonic() >= self._fresh_until:
            # Shielded: a client that disconnects must not cancel the run of the others.
            await asyncio.shield(self.start())
        return self._results

    def start(self) -> "asyncio.Task[None]":
        """Start a run, unless there is one."""
        if self._run is None:
            self._run = asyncio.create_task(self._refresh())
        return self._run

    async def _refresh(self) -> None:
        try:
            failures = [f for f in await asyncio.gather(*(check.run() for check in self._checks)) if f]
            failed = {failure.name: failure for failure in failures}
            results = {
                name: status for check in self._checks for name, status in _statuses(check.names, failed)
            }
            self._report(results, failures)
            self._results = MappingProxyType(results)
            self._fresh_until = time.monotonic() + _FRESH
        finally:
            self._run = None

    def _report(self, results: Mapping[str, Status], failures: list[CheckFailed]) -> None:
        """Log each change, not each probe."""
        if results == self._results:
            return
        if failures:
            logger.error("not ready: %s", "; ".join(map(str, failures)))
        elif self._results:
            logger.info("ready")


def _statuses(names: tuple[str, ...], failed: Mapping[str, CheckFailed]) -> list[tuple[str, Status]]:
    found, status = [], Status.OK
    for name in names:
        if name in failed:
            found.append((name, Status.FAILED))
            status = Status.UNKNOWN
        else:
            found.append((name, status))
    return found


class _BackgroundCheck:
    """A check with a time-out, which it does not need to support itself."""

    def __init__(self, names: tuple[str, ...], check: Check) -> None:
        self.names = names
        self._check = check
        self._threads = 0

    async def run(self) -> CheckFailed | None:
        """Run the check in a new thread; None if it succeeds."""
        if self._threads >= _THREADS:
            return self._timed_out()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[CheckFailed | None] = loop.create_future()
        attempt = partial(self._attempt, loop, outcome)
        try:
            threading.Thread(target=attempt, name=f"ready-{self.names[0]}", daemon=True).start()
        except RuntimeError as error:  # the limit of threads of this process or container is reached
            return CheckFailed(self.names[0], str(error))
        self._threads += 1
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asyncio.shield(outcome)
        except TimeoutError:
            return self._timed_out()

    def _attempt(
        self, loop: asyncio.AbstractEventLoop, outcome: "asyncio.Future[CheckFailed | None]"
    ) -> None:
        failure = None
        try:
            self._check()
        except CheckFailed as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the process cannot be called ready
            failure = CheckFailed(self.names[0], f"{type(error).__name__}: {error}")
        with suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(self._finish, outcome, failure)

    def _finish(self, outcome: "asyncio.Future[CheckFailed | None]", failure: CheckFailed | None) -> None:
        self._threads -= 1
        if not outcome.done():
            outcome.set_result(failure)

    def _timed_out(self) -> CheckFailed:
        return CheckFailed(self.names[0], f"no response within {_TIMEOUT:g} s")
