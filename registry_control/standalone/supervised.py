"""One of the processes that `up` looks after."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_FIRST_DELAY: Final = 0.2  # seconds before it is started again
_LONGEST_DELAY: Final = 30.0
_STEADY: Final = 60.0  # seconds after which an end is a new misfortune, not the last one going on


class Child:
    """A process, started again as often as it ends; `tick` does all there is to do."""

    def __init__(
        self,
        name: str,
        *,
        start: Callable[[], int],
        is_ready: Callable[[int], bool],
        say: Callable[[str], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            name: for the operator.
            start: starts the leader of a process group and returns its id.
            is_ready: is asked with that id.
            say: is given lines for the operator.
        """
        self.name: Final = name
        self.ready = False
        self._start = start
        self._is_ready = is_ready
        self._say = say
        self._pid: int | None = None
        self._started_at = self._due = time.monotonic()
        self._misfortunes = 0

    def tick(self) -> None:
        """Start it when that is due, notice its end, ask whether it is ready."""
        if self._pid is None:
            if time.monotonic() >= self._due:
                self._try_to_start()
        elif _has_ended(self._pid):
            self._start_later(f"ended with {_described(_end_group(self._pid))}")
        elif not self.ready and self._is_ready(self._pid):
            self.ready = True
            if self._misfortunes:
                self._say(f"{self.name} serves again")

    def ask_to_end(self) -> None:
        """Let it finish what it does. Only another `tick` would start it again."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)

    def has_ended(self) -> bool:
        """Whether it has. What it had started may be left, until `clear`."""
        return self._pid is None or _has_ended(self._pid)

    def clear(self) -> None:
        """End whatever is left of it, at once."""
        if self._pid is not None:
            _end_group(self._pid)
            self._pid = None

    def _try_to_start(self) -> None:
        self._started_at = time.monotonic()
        try:
            self._pid = self._start()
        except OSError as error:
            self._start_later(f"could not be started ({error})")

    def _start_later(self, reason: str) -> None:
        # One that has served is missed at once; one that never does must not keep the machine busy.
        if self.ready or time.monotonic() - self._started_at > _STEADY:
            self._misfortunes = 0
        self._pid, self.ready = None, False
        delay = min(_FIRST_DELAY * 2**self._misfortunes, _LONGEST_DELAY)
        self._misfortunes += 1
        self._due = time.monotonic() + delay
        self._say(f"{self.name} {reason}; it is started again in {delay:g} s")


def _has_ended(pid: int) -> bool:
    """Leaves an ended process unreaped, so that its id still names it and its group, and nothing else."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(pid: int) -> int:
    """Kill it and all that it started, which might hold its port; return its exit status."""
    with suppress(ProcessLookupError, PermissionError):  # Some kernels say so of ended processes.
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _described(status: int) -> str:
    return f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
