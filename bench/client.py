"""HTTP/1.1 client that generates load: one process, one epoll loop, one generator for each connection.

It supports what wrk does not: HEAD (wrk waits for a body that never comes), large bodies in both directions,
and operations of several calls. A generator yields the epoll events that it waits for.
"""

import re
import select
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

Buffer = bytes | bytearray | memoryview
Steps = Generator[int, None, None]

_BUFFER: Final = 256 * 1024  # bytes of a read
_ENOUGH: Final = 100  # errors after which a run is aborted
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LOCATION: Final = re.compile(rb"\r\nlocation: *(?:http://[^/]*)?([^\r\n]*)", re.IGNORECASE)


class Failure(Exception):
    """A response was not the expected one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. A large body is counted and discarded."""

    length: int
    location: str
    body: bytes


class Connection:
    """A keep-alive connection to a server that sends Content-Length."""

    def __init__(self, host: str) -> None:
        """Connect to `host`, given as address:port."""
        address, _, port = host.rpartition(":")
        self._host = host
        self._socket = socket.create_connection((address, int(port)), timeout=30)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER)
        self.calls = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def call(
        self,
        method: str,
        target: str,
        headers: str,
        *body: Buffer,
        expect: int,
    ) -> Generator[int, None, Answer]:
        """Send one request and read the response; `headers` are complete lines.

        Raises:
            Failure: the status is not `expect`, or the connection ended.
        """
        self.calls += 1
        length = (
            f"Content-Length: {sum(len(part) for part in body)}\r\n" if method not in ("GET", "HEAD") else ""
        )
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n{headers}{length}\r\n"
        try:
            yield from self._send([head.encode(), *body])
            return (yield from self._receive(f"{method} {target}", expect, has_body=method != "HEAD"))
        except OSError as error:
            raise Failure(f"{method} {target}: {error}") from error

    def _send(self, parts: Sequence[Buffer]) -> Steps:
        for part in parts:
            left = memoryview(part)
            while left:
                try:
                    left = left[self._socket.send(left) :]
                except BlockingIOError:
                    yield select.EPOLLOUT

    def _receive(self, what: str, expect: int, *, has_body: bool) -> Generator[int, None, Answer]:
        have, end, view = 0, -1, memoryview(self._buffer)
        while end < 0:
            have += yield from self._read(view[have:])
            end = self._buffer.find(b"\r\n\r\n", 0, have)
        head = bytes(self._buffer[: end + 2])
        if head[9:12] != b"%d" % expect:
            raise Failure(f"{what}: {bytes(self._buffer[:have])!r}"[:600])
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        missing = length - (have - end - 4) if has_body else 0
        fits = have + missing <= _BUFFER
        while missing > 0:
            got = yield from self._read(view[have : have + missing] if fits else view[:missing])
            missing -= got
            have += got
        location = _LOCATION.search(head)
        body = bytes(self._buffer[end + 4 : have]) if fits else b""
        return Answer(length, location[1].decode() if location else "", body)

    def _read(self, into: memoryview) -> Generator[int, None, int]:
        while True:
            yield select.EPOLLIN
            with suppress(BlockingIOError):
                if count := self._socket.recv_into(into):
                    return count
                raise Failure("the server closed the connection")


Operation = Callable[[Connection], Steps]


@dataclass
class Outcome:
    """The result of a run. Times are in seconds."""

    latencies: list[float] = field(default_factory=list)
    wall: float = 0
    calls: int = 0
    errors: int = 0
    first_error: str = ""


def drive(host: str, operations: Iterator[Operation], connections: int, seconds: float) -> Outcome:
    """Run operations for `seconds`, or until none is left. Operations in progress are completed."""
    outcome = Outcome()
    began = time.perf_counter()
    loop = _Loop(host, operations, began + seconds, outcome)
    for _ in range(connections):
        loop.connect()
    loop.run()
    outcome.wall = time.perf_counter() - began
    return outcome


class _Loop:
    def __init__(self, host: str, operations: Iterator[Operation], until: float, outcome: Outcome) -> None:
        self._host, self._operations, self._until, self._outcome = host, operations, until, outcome
        self._epoll = select.epoll()
        self._workers: dict[int, tuple[Connection, Steps]] = {}
        self._wants: dict[int, int] = {}

    def connect(self) -> None:
        connection = Connection(self._host)
        number = connection.fileno()
        self._workers[number] = connection, self._work(connection)
        self._wants[number] = select.EPOLLOUT  # writable at once: starts with the first poll
        self._epoll.register(number, select.EPOLLOUT)

    def run(self) -> None:
        while self._workers:
            for number, _ in self._epoll.poll(60):
                self._step(number)
        self._epoll.close()

    def _step(self, number: int) -> None:
        connection, steps = self._workers[number]
        try:
            wanted = next(steps)
        except StopIteration:
            self._remove(number, connection)
        except Failure as failure:
            self._remove(number, connection)
            self._outcome.errors += 1
            self._outcome.first_error = self._outcome.first_error or str(failure)
            if self._outcome.errors < _ENOUGH:
                self.connect()
        else:
            if wanted != self._wants[number]:
                self._wants[number] = wanted
                self._epoll.modify(number, wanted)

    def _remove(self, number: int, connection: Connection) -> None:
        self._epoll.unregister(number)
        del self._workers[number]
        connection.close()
        self._outcome.calls += connection.calls

    def _work(self, connection: Connection) -> Steps:
        clock, latencies = time.perf_counter, self._outcome.latencies
        while (began := clock()) < self._until:
            operation = next(self._operations, None)
            if operation is None:
                return
            yield from operation(connection)
            latencies.append(clock() - began)
