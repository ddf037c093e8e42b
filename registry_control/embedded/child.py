"""One of the processes that `up` looks after."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from registry_control.common.clock import ticks

_FIRST_DELAY: Final = 0.2  # seconds before it is started again
_LONGEST_DELAY: Final = 30.0
_STEADY: Final = 60.0
"""Seconds after which an end is a new misfortune, and not the last one going on."""


class Child:
    """A process, started again as often as it ends; `tick` does all there is to do."""

    def __init__(
        self, name: str, command: Sequence[str], *, is_ready: Callable[[int], bool], say: Callable[[str], None]
    ) -> None:
        """`is_ready` is asked with the process id; `say` is given lines for the operator."""
        self.name: Final = name
        self.ready = False
        self._command = command
        self._is_ready = is_ready
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = self._due = ticks()
        self._misfortunes = 0

    def tick(self) -> None:
        """Start it when that is due, notice its end, ask whether it is ready."""
        if self._process is None:
            if ticks() >= self._due:
                self._start()
        elif _has_ended(self._process):
            self._ended(self._process)
        elif not self.ready and self._is_ready(self._process.pid):
            self.ready = True
            if self._misfortunes:
                self._say(f"{self.name} serves again")

    def ask_to_end(self) -> None:
        """Let it finish what it does. It is not started again without another `tick`."""
        if self._process is not None and not _has_ended(self._process):
            self._process.terminate()

    def has_ended(self) -> bool:
        """Whether its first process has; those that this one started may linger until `clear`."""
        return self._process is None or _has_ended(self._process)

    def clear(self) -> None:
        """End whatever is left of it, at once."""
        if self._process is not None:
            _end_group(self._process)
            self._process = None

    def _start(self) -> None:
        self.ready = False
        self._started_at = ticks()
        # A group of its own: so all of it can be ended, and Ctrl-C reaches `up` alone.
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, process_group=0)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        status = _end_group(process)
        self._process, self.ready = None, False
        if ticks() - self._started_at > _STEADY:
            self._misfortunes = 0
        delay = min(_FIRST_DELAY * 2**self._misfortunes, _LONGEST_DELAY)
        self._misfortunes += 1
        self._due = ticks() + delay
        self._say(f"{self.name} ended with {_described(status)}; it is started again in {delay:g} s")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Leaves the ended process unreaped, so that its id still names its group and nothing else."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> int:
    """Kill it and all that it started, which would hold its port otherwise; return its exit status."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _described(status: int) -> str:
    return f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
