"""Waiting for signals instead of being interrupted by them."""

import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Final, Self

_STOP: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAKE: Final = (signal.SIGCHLD, *_STOP)


class Signals:
    """Notes requests to stop, and wakes a waiting loop when one comes or a child process ends.

    with Signals() as signals:
        while not signals.stops:
            signals.wait(timeout=1)
    """

    def __init__(self) -> None:
        self.stops = 0  # how often somebody has asked

    def wait(self, timeout: float) -> None:
        """Return when a signal came since the last call, or after `timeout` seconds."""
        if select.select([self._reader], [], [], timeout)[0]:
            self._reader.recv(4096)

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # Python writes a byte here for each signal, so one that comes just before `wait` ends it too.
        self._old_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # What our own parent has us ignore stays ignored: `nohup` and SIGHUP.
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
        if number in _STOP:
            self.stops += 1
