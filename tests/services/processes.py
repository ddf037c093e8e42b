"""Information about processes, from /proc."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from signal import SIGSTOP

_PROC = Path("/proc")


def descendants(pid: int) -> dict[int, str]:
    """The children of `pid`, their children and so on: process id to command line, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found: dict[int, str] = {}
    waiting = sorted(children.get(pid, []))
    while waiting:
        current = waiting.pop(0)
        found[current] = _command(current)
        waiting += sorted(children.get(current, []))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    state_and_parent = _state_and_parent(pid)
    return state_and_parent is not None and state_and_parent[0] not in "ZX"


def wait_until_gone(pids: Iterable[int], *, timeout: float) -> list[int]:
    """Wait at most `timeout` seconds until none of the processes runs; return those that still do."""
    deadline = time.monotonic() + timeout
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [pid for pid in left if is_alive(pid)]
    return left


def freeze(pid: int, *, timeout: float = 10) -> None:
    """Stop a process (SIGSTOP) and wait until all of its threads are stopped.

    Raises:
        AssertionError: a thread still runs after `timeout` seconds.
    """
    os.kill(pid, SIGSTOP)
    deadline = time.monotonic() + timeout
    while not all(_is_stopped(thread) for thread in (_PROC / str(pid) / "task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} has not stopped within {timeout:g} s"
        time.sleep(0.01)


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[
        0
    ] == "T"


def resident_bytes(pid: int) -> int:
    """Resident memory of a process. Raises OSError if it has ended."""
    for line in (_PROC / str(pid) / "status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _parents() -> dict[int, int]:
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return {pid: found[1] for pid in pids if (found := _state_and_parent(pid)) and found[0] not in "ZX"}


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The fields follow the name, which is in parentheses and may contain parentheses and spaces.
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)


def _command(pid: int) -> str:
    try:
        return (
            (_PROC / str(pid) / "cmdline")
            .read_text(encoding="utf-8", errors="replace")
            .replace("\0", " ")
            .strip()
        )
    except OSError:
        return ""
