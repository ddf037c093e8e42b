"""A proxy between a client and the registry that breaks a connection in the middle of a blob."""

import re
import socket
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from typing import Final, Self

_PIECE: Final = 64 * 1024  # bytes
_REQUEST: Final = re.compile(rb"([A-Z]+ \S+) HTTP/1\.1\r\n")


class Line:
    """A TCP proxy to a registry. Clients use `line.host`, which is also the host in the challenges.

    with Line(registry_host) as line:
        line.cut_after(3_000_000)
        client("push", f"{line.host}/ns/app:1")  # the connection breaks on the way, once
        assert line.cuts == 1 and line.carried < 2 * size
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target: Final = (host, int(port))
        self._listener: Final = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock: Final = Lock()
        self._clients: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._limit: int | None = None
        self.cuts = 0
        self.carried = 0  # bytes, both ways
        self.requests: list[str] = []  # "GET /v2/", ...

    @property
    def host(self) -> str:
        """The host of the registry for clients."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def watch(self) -> None:
        """Reset the counters, and cut nothing."""
        self._limit, self.cuts, self.carried, self.requests = None, 0, 0, []

    def cut_after(self, count: int) -> None:
        """Reset the counters, and cut the first connection that has carried `count` bytes in a direction."""
        self.watch()
        self._limit = count

    def __enter__(self) -> Self:
        self._threads.append(Thread(target=self._accept))
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        self._threads[0].join()
        for client in self._clients:
            _shut(client)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                self._threads.append(thread := Thread(target=self._serve, args=(client,)))
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        """One connection: upstream in this thread, downstream in another one."""
        with client, socket.create_connection(self._target) as server:
            down = Thread(target=self._pump, args=(server, client))
            down.start()
            self._pump(client, server)
            down.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        moved = 0
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                # A client sends its next request after the last response: never two in one segment.
                if request := _REQUEST.match(piece):
                    self.requests.append(request[1].decode())
                sink.sendall(piece)
                moved += len(piece)
                if self._is_over(len(piece), moved):
                    break
        # One direction ends the other: no registry client half-closes its connection.
        _shut(source)
        _shut(sink)

    def _is_over(self, new: int, moved: int) -> bool:
        with self._lock:
            self.carried += new
            if self._limit is None or moved < self._limit:
                return False
            self._limit = None
            self.cuts += 1
            return True


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # it was closed already
        end.shutdown(socket.SHUT_RDWR)
