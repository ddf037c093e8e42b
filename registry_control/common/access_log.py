"""The access log: one line for each response of either plane, as key=value text or as JSON (ADR 44).

Lines have no query string and no header but User-Agent, so no secret can be in them. Every value that a
client chooses is quoted, with control characters and anything but ASCII escaped: a request cannot forge a
line.
"""

import json
import os
import re
import threading
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

TEXT: Final = "text"
JSON: Final = "json"
OFF: Final = "off"

_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without space, quote, = and backslash
_LONGEST: Final = 1024  # characters of a value
_REMEMBERED: Final = 1024  # lines whose parts are remembered: the same ones come again and again
_INTERVAL: Final = 0.2  # seconds between writes
_ATOMIC: Final = (
    4096  # bytes (PIPE_BUF) that a pipe takes from one process without those of others in between
)
_CAPACITY: Final = 4 * 1024 * 1024  # bytes of lines that wait to be written


class Parts(NamedTuple):
    """What a line has besides the time, the duration in milliseconds and the request id."""

    before_time: str
    before_ms: str
    before_id: str
    after_id: str

    def line(self, at: str, ms: float, request_id: str) -> str:
        """The line, which ends with a line feed."""
        return f"{self.before_time}{at}{self.before_ms}{ms:.2f}{self.before_id}{request_id}{self.after_id}"


def text_parts(
    client: str, method: str, path: str, status: int, size: int, principal: str, cache: str, user_agent: str
) -> Parts:
    """Those of a line with key=value; a value of the client that is not plain is a JSON string."""
    request = f"client={_text(client)} method={_text(method)} path={_text(path)}"
    return Parts(
        "access time=",
        f" {request} status={status} bytes={size} ms=",
        " request_id=",
        f" principal={principal} cache={cache} user_agent={_text(user_agent)}\n",
    )


def _text(value: str) -> str:
    return value if _BARE.fullmatch(value) else _json(value)


def json_parts(
    client: str, method: str, path: str, status: int, size: int, principal: str, cache: str, user_agent: str
) -> Parts:
    """Those of a JSON object on a line."""
    request = f'"client": {_json(client)}, "method": {_json(method)}, "path": {_json(path)}'
    caller = f'"principal": {_json(principal)}, "cache": {_json(cache)}, "user_agent": {_json(user_agent)}'
    return Parts(
        '{"log": "access", "time": "',
        f'", {request}, "status": {status}, "bytes": {size}, "ms": ',
        ', "request_id": "',
        f'", {caller}}}\n',
    )


def _json(value: str) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")


@lru_cache(maxsize=2)
def _timestamp(milliseconds: int) -> str:
    """A time since the epoch in UTC (RFC 3339)."""
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{fraction:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class LineWriter:
    """Writes lines to a file descriptor from a thread, several at once: no request waits for their reader.

    Lines wait as bytes in one buffer. As objects of their own they would keep the memory of thousands of
    requests in use until the next write, and every request would get memory that is in no processor cache.

    While nothing is read from the descriptor, lines are dropped beyond a limit, and their number is written
    once it can be.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()  # complete lines
        self._dropped = 0
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Have a line of ASCII, which ends with a line feed, written soon."""
        encoded = line.encode("ascii", "backslashreplace")
        with self._lock:
            if self._thread is None:
                self._start()
            if len(self._waiting) + len(encoded) <= _CAPACITY:
                self._waiting += encoded
            else:
                self._dropped += 1

    def _start(self) -> None:
        """Start the thread: with the first line, because a server forks its processes before that."""
        thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        thread.start()  # If this raises, the next call tries again.
        self._thread = thread

    def close(self) -> None:
        """Write what waits, if the reader takes it soon, and end the thread."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_closed.wait(_INTERVAL):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, bytearray()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines += b"access log: %d lines were dropped because they were not read\n" % dropped
        start = 0
        while start < len(lines):
            # As many whole lines as fit; one that is longer goes alone.
            end = lines.rfind(b"\n", start, start + _ATOMIC) + 1 or lines.index(b"\n", start) + 1
            self._send(lines[start:end])
            start = end

    def _send(self, chunk: bytearray) -> None:
        try:
            while chunk:
                chunk = chunk[os.write(self._descriptor, chunk) :]
        except OSError:  # closed or full: the log must not end the server
            with self._lock:
                self._dropped += chunk.count(b"\n")


class AccessLog:
    """Formats and writes the responses of one process."""

    def __init__(self, style: str, writer: LineWriter) -> None:
        """`style` is TEXT or JSON."""
        self._parts = lru_cache(_REMEMBERED)(text_parts if style == TEXT else json_parts)
        self._writer = writer

    def record(
        self,
        *,
        at: float,
        client: str,
        method: str,
        path: str,
        status: int,
        sent: int,
        seconds: float,
        request_id: str,
        principal: str,
        user_agent: str,
        cache: str,
    ) -> None:
        """Write a line.

        `at` is in seconds since the epoch, `status` is 0 if the client left before a response, and `cache` is
        hit, miss or empty.
        """
        parts = self._parts(
            client or "-",
            method[:_LONGEST],
            path[:_LONGEST],
            status,
            sent,
            principal or "-",
            cache or "-",
            user_agent[:_LONGEST] or "-",
        )
        self._writer.write(parts.line(_timestamp(int(at * 1000)), seconds * 1000, request_id))

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


def open_access_log(style: str) -> AccessLog | None:
    """The access log of this process, on standard error; None if it is OFF."""
    return None if style == OFF else AccessLog(style, LineWriter())
