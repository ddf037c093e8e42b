"""Signals as events to wait for, not interrupts."""

import math
import select
import signal
import socket
import time
from types import FrameType, TracebackType
from typing import Final, Self

_STOP: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAKE: Final = (signal.SIGCHLD, *_STOP)
_SAME_REQUEST: Final = 1.0  # seconds in which several signals count as one request


class Signals:
    """Counts requests to stop, and wakes a waiting loop at each of them and when a child process ends.

    with Signals() as signals:
        while not signals.stops:
            signals.wait(timeout=1)
    """

    def __init__(self) -> None:
        self.stops = 0  # number of requests to stop
        self._stopped_at = -math.inf

    def wait(self, timeout: float) -> None:
        """Return when a signal has arrived since the last call, or after `timeout` seconds."""
        if select.select([self._reader], [], [], timeout)[0]:
            self._reader.recv(4096)

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # Python writes a byte here for each signal, so one that arrives just before `wait` ends it too.
        self._old_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Signals that the parent process has set to be ignored stay ignored: SIGHUP under `nohup`.
        ignored = [number for number in _STOP if signal.getsignal(number) is signal.SIG_IGN]
        handled = [number for number in _WAKE if number not in ignored]
        self._old_handlers = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_descriptor)
        self._reader.close()
        self._writer.close()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number in _STOP and time.monotonic() - self._stopped_at > _SAME_REQUEST:
            self.stops += 1
            self._stopped_at = time.monotonic()
