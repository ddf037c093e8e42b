"""A process that its supervisor restarts whenever it ends."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_FIRST_DELAY: Final = 0.2  # seconds before the first restart
_LONGEST_DELAY: Final = 30.0
_STEADY: Final = 60.0  # seconds of uptime after which the restart back-off is reset


class SupervisedProcess:
    """A process with restarts and back-off; `tick` does all the work and never blocks."""

    def __init__(
        self,
        name: str,
        *,
        start: Callable[[], int],
        is_ready: Callable[[int], bool],
        report: Callable[[str], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            name: shown to the operator.
            start: starts the leader of a process group and returns its process id.
            is_ready: returns whether the process with that id serves.
            report: receives lines for the operator.
        """
        self.name: Final = name
        self.ready = False
        self._start = start
        self._is_ready = is_ready
        self._report = report
        self._pid: int | None = None
        self._started_at = self._due = time.monotonic()
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._pid

    def tick(self) -> None:
        """Start the process when that is due, detect its end, check whether it is ready."""
        if self._pid is None:
            if time.monotonic() >= self._due:
                self._try_to_start()
        elif _has_ended(self._pid):
            self._schedule_restart(f"ended with {_described(_kill_group(self._pid))}")
        elif not self.ready and self._is_ready(self._pid):
            self.ready = True
            if self._failures:
                self._report(f"{self.name} serves again")

    def terminate(self) -> None:
        """Send SIGTERM. Only another `tick` would restart the process."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)

    def has_ended(self) -> bool:
        """Whether the process has ended. Its own children may be left, until `kill`."""
        return self._pid is None or _has_ended(self._pid)

    def kill(self) -> None:
        """Send SIGKILL to the process and its children, and reap it."""
        if self._pid is not None:
            _kill_group(self._pid)
            self._pid = None

    def _try_to_start(self) -> None:
        self._started_at = time.monotonic()
        try:
            self._pid = self._start()
        except OSError as error:
            self._schedule_restart(f"could not be started ({error})")

    def _schedule_restart(self, reason: str) -> None:
        # A process that has served is restarted at once; one that always fails must not use up the processor.
        if self.ready or time.monotonic() - self._started_at > _STEADY:
            self._failures = 0
        self._pid, self.ready = None, False
        delay = min(_FIRST_DELAY * 2**self._failures, _LONGEST_DELAY)
        self._failures += 1
        self._due = time.monotonic() + delay
        self._report(f"{self.name} {reason}; it is started again in {delay:g} s")


def _has_ended(pid: int) -> bool:
    """Leaves an ended process unreaped, so that its id cannot be reused while it is still needed."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int) -> int:
    """Kill a process and its children, which might hold its port; return its exit status."""
    with suppress(ProcessLookupError, PermissionError):  # Some kernels report these for ended processes.
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _described(status: int) -> str:
    return f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
