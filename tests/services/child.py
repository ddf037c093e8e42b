"""A program started by the tests, with its output in a file; it never outlives the tests."""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import Final

_POLL: Final = 0.02  # seconds
_TAIL: Final = 6_000  # characters of output shown when something failed


class ServiceError(Exception):
    """A service failed to start, stop or respond. The message has the end of its output."""


class Child:
    """A running program. The kernel ends it when the thread that started it ends, even by a kill.

    It runs in its own session, so that Ctrl-C reaches only pytest, which then stops all programs in order.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: Signals,
        output: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start `command`, after `prefix` (a program that runs another one).

        Standard error is appended to `log`, and so is standard output unless it has its own file, `output`.
        """
        self._name = log.stem
        self._outputs = [output, log] if output else [log]
        self._stop_signal = stop_signal
        with log.open("ab") as errors, (output or log).open("ab") as printed:
            self._process = subprocess.Popen(
                [*prefix, *_dying_with_parent(stop_signal), *command],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal if a signal ended it."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Return once `ready()` is true.

        Raises:
            ServiceError: it ended, or `timeout` seconds passed (it keeps running).
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if self.exit_code is not None:
                raise ServiceError(f"{self._name} ended with {self.exit_code}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self._name} was not ready within {timeout:g} s\n{self.tail()}")
            time.sleep(_POLL)

    def stop(self, *, timeout: float = 10) -> int:
        """Send the stop signal and wait; return the exit code.

        Raises:
            ServiceError: it was killed, because it still ran after `timeout` seconds.
        """
        if self.exit_code is None:
            self._process.send_signal(self._stop_signal)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceError(f"{self._name} did not end within {timeout:g} s\n{self.tail()}") from None

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()

    def tail(self) -> str:
        """The end of its output, standard output first."""
        return "\n".join(
            path.read_text(encoding="utf-8", errors="replace")[-_TAIL:] for path in self._outputs
        )


def _dying_with_parent(stop_signal: Signals) -> list[str]:
    """Prefix that makes the kernel send the signal when the parent dies: a killed pytest cannot stop it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"] if setpriv else []
