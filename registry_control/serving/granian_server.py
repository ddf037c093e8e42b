"""Granian with sockets that are opened here, because it has no setting for socket options (ADR 40)."""

import socket
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from granian._granian import SocketHolder
from granian.server.mp import MPServer

# Only on Linux: how long the kernel waits for a client that does not acknowledge data.
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
_LONGEST_SLEEP: Final = 0.5  # seconds
_SIGNALS: Final = 3
_BETWEEN_SIGNALS: Final = 1.0  # seconds


class Interrupt:
    """Wakes the loop of the main process, as threading.Event does, but from signal handlers too.

    They run in the thread that waits. One that runs while this thread holds the lock of an Event, in the
    first lines of `Event.wait`, would wait for that lock in `Event.set` for ever. SimpleQueue has no such
    lock.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """End one call of `wait`, now or later."""
        self._calls.put(None)

    def wait(self) -> None:
        """Return after a call of `set`. The caller looks at what has changed, which may be nothing new.

        The handler of a signal that arrives just before this thread sleeps runs when it wakes up.
        """
        while True:
            with suppress(Empty):
                return self._calls.get(timeout=_LONGEST_SLEEP)

    def clear(self) -> None:
        """Nothing is left to clear: `wait` took the call."""


class GranianServer(MPServer):
    """A server whose worker processes listen on one socket each, which share the port.

    Accepted connections inherit the options of the socket. TCP_USER_TIMEOUT also ends downloads of files,
    which the server sends without our code.
    """

    unread_timeout = 0  # seconds; 0 means the default of the kernel

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        interrupt: Any = Interrupt()  # Granian's type is threading.Event
        self.main_loop_interrupt = interrupt

    def _init_shared_socket(self) -> None:
        self._sso = None
        self._listening = [self._listen() for _ in range(self.workers)]

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.bind_addr else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _USER_TIMEOUT is not None:
            listening.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, self.unread_timeout * 1000)
        listening.bind((self.bind_addr, self.bind_port))
        return listening

    def _spawn_worker(self, idx: int, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - Granian's types
        """Start a worker. One that replaces another accepts the connections that came meanwhile."""
        holder: Any = SocketHolder  # its stub lacks the constructor
        self._own = idx
        self._shd = holder(self._listening[idx].fileno(), False, self.backlog)
        return super()._spawn_worker(idx, *arguments, **options)

    def close_inherited_sockets(self) -> None:
        """Close, in a worker, the sockets of the others: an open copy keeps a port open after their end."""
        for number, listening in enumerate(self._listening):
            if number != self._own:
                listening.close()

    def _stop_workers(self) -> None:
        """Stop the workers; one that is just starting may lose the first signal, and would never end.

        Granian runs the loop of a worker twice: for the start of the application, and then to serve. uvloop
        ignores a signal that arrives between two runs.
        """
        workers: list[Any] = self.wrks  # Granian's types
        for _ in range(_SIGNALS):
            left = [worker for worker in workers if worker.is_alive()]
            for worker in left:
                worker.terminate()
            for worker in left[:1]:
                worker.join(_BETWEEN_SIGNALS)
        super()._stop_workers()  # type: ignore[no-untyped-call]

    def _drop_shared_socket(self) -> None:
        for listening in self._listening:
            listening.close()
