"""Identity of a process across machines, so that the lease of a dead process can be taken over at once."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def this_process() -> str:
    """An identity unique among all processes of all containers and machines, also across reboots."""
    pid = os.getpid()
    return f"{_machine()} {pid} {_started(pid) or 0}"


def is_known_dead(process: str) -> bool:
    """Whether a process ran on this machine and has ended. False if that cannot be known."""
    machine, _, rest = process.partition(" ")
    pid, _, started = rest.partition(" ")
    if machine != _machine() or not pid.isdigit() or started == "0":
        return False
    return _started(int(pid)) != int(started)


@lru_cache(maxsize=1)
def _machine() -> str:
    """The boot of the kernel and the PID namespace, within which a process id is meaningful."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return f"unknown-{os.urandom(8).hex()}"  # no /proc: no process is known to be dead


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it has ended."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The fields follow the name, which is in parentheses and may contain parentheses and spaces (proc(5)).
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
