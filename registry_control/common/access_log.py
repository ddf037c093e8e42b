"""The access log: one line for each response of either plane, as key=value text or as JSON (ADR 44).

Lines have no query string and no header but User-Agent, so no secret can be in them. Every value that a
client chooses is quoted, with control characters and anything but ASCII escaped: a request cannot forge a
line.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

TEXT: Final = "text"
JSON: Final = "json"
OFF: Final = "off"

_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without space, quote, = and backslash
_LONGEST: Final = 1024  # characters of a value
_INTERVAL: Final = 0.2  # seconds between writes
_ATOMIC: Final = (
    4096  # bytes (PIPE_BUF) that a pipe takes from one process without those of others in between
)
_CAPACITY: Final = 4 * 1024 * 1024  # bytes of lines that wait to be written
_FIELDS_SIZE: Final = 600  # bytes of the fields of a line besides path and User-Agent, about


class Entry(NamedTuple):
    """The fields of a line, in its order."""

    time: str
    client: str
    method: str
    path: str
    status: int
    bytes: int
    ms: float
    request_id: str
    principal: str
    cache: str
    user_agent: str


def text_line(entry: Entry) -> str:
    """The fields as key=value; a value of the client that is not plain is a JSON string."""
    time_, client, method, path, status, size, ms, request_id, principal, cache, user_agent = entry
    return (
        f"access time={time_} client={_text(client)} method={_text(method)} path={_text(path)}"
        f" status={status} bytes={size} ms={ms} request_id={request_id} principal={principal}"
        f" cache={cache} user_agent={_text(user_agent)}"
    )


@lru_cache(maxsize=1024)  # the same paths, clients and programs come again and again
def _text(value: str) -> str:
    if _BARE.fullmatch(value):
        return value[:_LONGEST]
    return json.dumps(value[:_LONGEST]).replace("\x7f", "\\u007f")


def json_line(entry: Entry) -> str:
    """The fields as one JSON object."""
    short = {
        name: value[:_LONGEST] if isinstance(value, str) else value for name, value in entry._asdict().items()
    }
    return json.dumps({"log": "access", **short}).replace("\x7f", "\\u007f")


def _timestamp(nanoseconds: int) -> str:
    """A time since the epoch in UTC with milliseconds (RFC 3339)."""
    seconds, milliseconds = divmod(nanoseconds // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_Fields: TypeAlias = tuple[int, str, str, str, int, int, float, str, str, str, str]
"""Those of an entry, with the time in nanoseconds and the duration in seconds; empty if unknown."""
_Line: TypeAlias = "str | tuple[Callable[[_Fields], str], _Fields]"
"""A line, or the function and the fields that make it."""


class LineWriter:
    """Writes lines to a file descriptor from a thread, several at once: no request waits for their reader.

    The thread also makes the lines: one after the other, they cost a fraction of what each costs between two
    requests, whose code and data replace each other in the processor's cache.

    While nothing is read from the descriptor, lines are dropped beyond a limit, and their number is written
    once it can be.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._lines: list[_Line] = []
        self._size = self._dropped = 0
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Have a line of ASCII written soon."""
        self._add(line, len(line))

    def write_entry(self, make: Callable[[_Fields], str], fields: _Fields, size: int) -> None:
        """Have a line made of these fields, and written soon. `size` is their memory in bytes, about."""
        self._add((make, fields), size)

    def _add(self, line: _Line, size: int) -> None:
        with self._lock:
            if (
                self._thread is None
            ):  # not earlier: a server's processes are forked before their first request
                thread = threading.Thread(target=self._run, name="access-log", daemon=True)
                thread.start()  # If this raises, the next call tries again.
                self._thread = thread
            if self._size + size > _CAPACITY:
                self._dropped += 1
                return
            self._lines.append(line)
            self._size += size

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
            lines, self._lines, self._size = self._lines, [], 0
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(f"access log: {dropped} lines were dropped because they were not read")
        chunk = b""
        for each in lines:
            line = each if isinstance(each, str) else each[0](each[1])
            encoded = line.encode("ascii", "backslashreplace") + b"\n"
            # As many whole lines as fit; one that is longer goes alone.
            if chunk and len(chunk) + len(encoded) > _ATOMIC:
                self._send(chunk)
                chunk = b""
            chunk += encoded
        self._send(chunk)

    def _send(self, chunk: bytes) -> None:
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
        self._format = text_line if style == TEXT else json_line
        self._writer = writer

    def record(
        self,
        *,
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
        """Write a line. `status` is 0 if the client left before a response; `cache` is hit, miss or empty."""
        fields = (
            time.time_ns(),
            client,
            method,
            path,
            status,
            sent,
            seconds,
            request_id,
            principal,
            cache,
            user_agent,
        )
        self._writer.write_entry(self._line, fields, _FIELDS_SIZE + len(path) + len(user_agent))

    def _line(self, fields: _Fields) -> str:
        at, client, method, path, status, sent, seconds, request_id, principal, cache, user_agent = fields
        entry = Entry(
            _timestamp(at),
            client or "-",
            method,
            path,
            status,
            sent,
            round(seconds * 1000, 2),
            request_id,
            principal or "-",
            cache or "-",
            user_agent or "-",
        )
        return self._format(entry)

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


def open_access_log(style: str) -> AccessLog | None:
    """The access log of this process, on standard error; None if it is OFF."""
    return None if style == OFF else AccessLog(style, LineWriter())
