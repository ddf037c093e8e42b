"""One run: generates load from a separate process and reads the cost for the measured side from /proc."""

import json
import math
import multiprocessing
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from bench.client import Connection, Failure, Operation, Outcome, Steps, drive
from bench.content import MANIFEST
from bench.registry import Registry
from bench.sides import program
from tests.services.processes import descendants

_SCRIPT: Final = Path(__file__).parent / "requests.lua"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_EVERY: Final = 0.1  # seconds between two samples of the memory
_PATIENCE: Final = 300.0  # seconds after which a run is aborted


@dataclass(frozen=True, slots=True)
class Get:
    """A request for wrk, and its expected response."""

    path: str
    authorization: str
    size: int | None  # None: unknown
    range: str = ""

    def headers(self) -> str:
        named = {"Accept": MANIFEST, "Authorization": self.authorization, "Range": self.range}
        return "".join(f"{name}: {value}\r\n" for name, value in named.items() if value)


@dataclass(frozen=True, slots=True)
class Wrk:
    """GETs of small bodies, sent by wrk in order and repeatedly."""

    requests: Sequence[Get]


@dataclass(frozen=True, slots=True)
class Loop:
    """Operations that wrk cannot do."""

    operations: Iterator[Operation]


Load = Wrk | Loop


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run, in seconds and bytes."""

    operations: int
    rate: float  # operations a second
    p50: float
    p99: float
    calls: int  # HTTP requests
    errors: int
    first_error: str
    server_cpu: float  # user and system time of all processes of the side
    client_cpu: float
    peak_rss: int  # maximum of the summed resident memory of its processes; shared pages count in each
    memory: int  # after the run, with shared pages counted once (PSS)


def measure(load: Load, registry: Registry, connections: int, seconds: float) -> Run:
    """Generate load on a registry for `seconds`. Operations in progress are completed."""
    watched = _Watch(registry)
    client_before = _children_cpu()
    try:
        match load:
            case Wrk():
                numbers = _wrk(load, registry.host, connections, seconds, watched)
            case Loop():
                numbers = _loop(load, registry.host, connections, seconds, watched)
    except Failure as failure:
        numbers = _Numbers(0, 1, 0, 0, 0, 1, str(failure))
    return Run(
        **{name: value for name, value in asdict(numbers).items() if name != "wall"},
        rate=numbers.operations / numbers.wall,
        server_cpu=watched.cpu(),
        client_cpu=_children_cpu() - client_before,
        peak_rss=watched.peak_rss,
        memory=watched.memory(),
    )


@dataclass(frozen=True, slots=True)
class _Numbers:
    operations: int
    wall: float
    p50: float
    p99: float
    calls: int
    errors: int
    first_error: str


class _Watch:
    """The processes of a side during one run."""

    def __init__(self, registry: Registry) -> None:
        self._roots = registry.processes
        self._pids = self._find()
        self._before = sum(map(_cpu, self._pids))
        self.peak_rss = 0

    def look(self) -> None:
        self.peak_rss = max(self.peak_rss, sum(map(_resident, self._pids)))

    def memory(self) -> int:
        """Expensive for the kernel, so only after the load has ended."""
        return sum(map(_proportional, self._find()))

    def cpu(self) -> float:
        """Processor time since the start. Ended processes are counted by their parents."""
        return sum(map(_cpu, self._find())) - self._before

    def _find(self) -> set[int]:
        return {*self._roots, *(child for root in self._roots for child in descendants(root))}


def _wrk(load: Wrk, host: str, connections: int, seconds: float, watched: _Watch) -> _Numbers:
    _try(load.requests[0], host)
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as listed:
        listed.writelines(f"{get.path}\t{get.authorization}\t{get.range}\n" for get in load.requests)
        listed.flush()
        options = [
            "-t1",
            f"-c{connections}",
            f"-d{math.ceil(seconds)}s",
            "--timeout",
            "20s",
            "-s",
            str(_SCRIPT),
        ]
        wrk = subprocess.Popen(
            [program("wrk"), *options, f"http://{host}", "--", listed.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _await(lambda: wrk.poll() is not None, watched)
        printed = wrk.communicate()[0]
    if wrk.returncode != 0:
        raise Failure(f"wrk ended with {wrk.returncode}: {printed}")
    said = json.loads(printed.splitlines()[-1])
    count, errors = int(said["requests"]), int(said["errors"])
    why = printed if errors else ""
    return _Numbers(count, said["seconds"], said["p50"], said["p99"], count, errors, why)


def _try(get: Get, host: str) -> None:
    """Check one response exactly: wrk only checks that the status is below 400."""
    sizes = []

    def once(connection: Connection) -> Steps:
        status = HTTPStatus.PARTIAL_CONTENT if get.range else HTTPStatus.OK
        answer = yield from connection.call("GET", get.path, get.headers(), expect=status)
        sizes.append(answer.length)

    outcome = drive(host, iter([once]), 1, seconds=60)
    if outcome.errors or get.size not in (None, *sizes):
        raise Failure(outcome.first_error or f"GET {get.path}: {sizes} bytes instead of {get.size}")


def _loop(load: Loop, host: str, connections: int, seconds: float, watched: _Watch) -> _Numbers:
    """Run in a separate process, so that its CPU time can be measured."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=lambda: theirs.send(drive(host, load.operations, connections, seconds)), daemon=True
    )
    process.start()
    theirs.close()
    _await(lambda: ours.poll(_EVERY), watched)
    try:
        outcome: Outcome = ours.recv()
    except EOFError:
        raise Failure("the client ended early") from None
    finally:
        process.join()
    return _summary(outcome)


def _summary(outcome: Outcome) -> _Numbers:
    ordered = sorted(outcome.latencies) or [0.0]
    return _Numbers(
        operations=len(outcome.latencies),
        wall=outcome.wall,
        p50=ordered[len(ordered) // 2],
        p99=ordered[len(ordered) * 99 // 100],
        calls=outcome.calls,
        errors=outcome.errors,
        first_error=outcome.first_error,
    )


def _await(done: Callable[[], bool], watched: _Watch) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        watched.look()
        if time.monotonic() > deadline:
            raise Failure(f"not done after {_PATIENCE:g} s")
        time.sleep(_EVERY)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu(pid: int) -> float:
    """CPU time of a process and of its ended children."""
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _resident(pid: int) -> int:
    fields = _text(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * _PAGE if fields else 0


def _proportional(pid: int) -> int:
    found = re.search(r"^Pss: +(\d+) kB", _text(Path(f"/proc/{pid}/smaps_rollup")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
