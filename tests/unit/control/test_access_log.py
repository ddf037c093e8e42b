"""Access log lines: parsing returns the logged values, and no value can inject a line or a field."""

import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.access_log import (
    JSON,
    TEXT,
    AccessLog,
    LineWriter,
    Parts,
    json_parts,
    open_access_log,
    text_parts,
)


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


FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "=]+)(?: |$)')


def parse(line: str) -> dict[str, str]:
    """The fields of a text line; nothing else may be in the line."""
    assert line.startswith("access ")
    rest = line.removeprefix("access ")
    found = FIELD.findall(rest)
    assert "".join(match.group(0) for match in FIELD.finditer(rest)) == rest
    return {name: json.loads(value) if value.startswith('"') else value for name, value in found}


ENTRY = Entry(
    time="2026-11-29T12:00:00.000Z",
    client="192.0.2.1",
    method="GET",
    path="/v2/",
    status=200,
    bytes=2,
    ms=0.25,
    request_id="id-1",
    principal="-",
    cache="-",
    user_agent="docker/28",
)


def texts(entry: Entry) -> dict[str, str]:
    return {name: str(value) for name, value in entry._asdict().items()}


def line_of(entry: Entry, make: Callable[[str, str, str, int, int, str, str, str], Parts]) -> str:
    parts = make(
        entry.client,
        entry.method,
        entry.path,
        entry.status,
        entry.bytes,
        entry.principal,
        entry.cache,
        entry.user_agent,
    )
    return parts.line(entry.time, entry.ms, entry.request_id).removesuffix("\n")


@given(values=st.lists(st.text(max_size=200), min_size=4, max_size=4))
def test_a_text_line_is_one_printable_line_that_parses_back(values: list[str]) -> None:
    client, method, path, user_agent = values
    entry = ENTRY._replace(client=client, method=method, path=path, user_agent=user_agent)
    line = line_of(entry, text_parts)
    assert line.isascii()
    assert line.isprintable()
    assert parse(line) == texts(entry)


@given(value=st.text(max_size=200))
def test_a_json_line_is_one_printable_line_that_parses_back(value: str) -> None:
    entry = ENTRY._replace(path=value)
    line = line_of(entry, json_parts)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"log": "access", **entry._asdict()}


@pytest.mark.parametrize(
    "forged",
    [
        "x\naccess status=200",
        'x" status=200',
        "x status=200",
        "x\x1b[2J",
        "x\x7f",
        "x\u2028y",
        "",
        "status=200",
        "\\",
    ],
)
def test_a_client_cannot_add_a_line_or_a_field(forged: str) -> None:
    entry = ENTRY._replace(path=forged, status=404)
    assert parse(line_of(entry, text_parts)) == texts(entry)


def record(log: AccessLog, path: str, user_agent: str = "docker/28") -> None:
    log.record(
        at=1_800_000_000.25,
        client="192.0.2.1",
        method="GET",
        path=path,
        status=200,
        sent=12,
        seconds=0.0015,
        request_id="id-1",
        principal="",
        user_agent=user_agent,
        cache="hit",
    )


@pytest.mark.parametrize("style", [TEXT, JSON])
def test_lines_of_concurrent_threads_are_not_interleaved(style: str) -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    log = AccessLog(style, writer)
    lines: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            lines.extend(pipe)

    def write(number: int) -> None:
        for each in range(200):
            record(log, f"/v2/{number}/{each}")

    threads = [threading.Thread(target=read), *(threading.Thread(target=write, args=(n,)) for n in range(8))]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    log.close()
    os.close(writing)
    threads[0].join()
    parsed = [json.loads(line) if style == JSON else parse(line.decode().rstrip("\n")) for line in lines]
    assert {fields["path"] for fields in parsed} == {
        f"/v2/{n}/{each}" for n in range(8) for each in range(200)
    }
    assert {fields["time"] for fields in parsed} == {"2027-01-15T08:00:00.250Z"}
    assert {fields["principal"] for fields in parsed} == {"-"}
    assert {float(fields["ms"]) for fields in parsed} == {1.5}


@pytest.mark.parametrize("style", [TEXT, JSON])
def test_long_values_are_truncated(style: str) -> None:
    reading, writing = os.pipe()
    log = AccessLog(style, LineWriter(writing))
    record(log, "/" + "\n" * 100_000, user_agent="a" * 100_000)
    log.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert len(pipe.read()) < 3600


def test_with_a_full_pipe_lines_are_dropped_without_blocking() -> None:
    # given a log whose pipe is full
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    began = time.monotonic()
    for _ in range(1000):
        writer.write("x" * 10_000 + "\n")
    assert time.monotonic() - began < 5

    # when the pipe is read, then the number of dropped lines is logged
    with os.fdopen(reading, "rb") as pipe:
        deadline = time.monotonic() + 30
        for line in pipe:
            if b"lines were dropped because they were not read" in line:
                break
            assert time.monotonic() < deadline
        writer.close()
        os.close(writing)


def test_a_closed_descriptor_does_not_end_the_server() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing)
    writer.write("x\n")
    writer.close()
    os.close(writing)


def test_the_access_log_can_be_disabled() -> None:
    assert open_access_log("off") is None


def test_a_thread_that_could_not_be_started_is_started_by_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a process that cannot start a thread, as at a limit of its number
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    reading, writing = os.pipe()
    writer = LineWriter(writing)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            writer.write("first\n")

    # when it can again, then the next line is written
    writer.write("second\n")
    writer.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"second\n"
