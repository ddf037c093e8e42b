"""Which process on which machine: so that a dead one's lease need not run out."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def this_process() -> str:
    """A name that no other process has, in no other container or machine, nor after a reboot."""
    pid = os.getpid()
    return f"{_machine()} {pid} {_started(pid) or 0}"


def is_known_dead(process: str) -> bool:
    """Whether a process by that name ran here and does not any more. False where it cannot be known."""
    machine, _, rest = process.partition(" ")
    pid, _, started = rest.partition(" ")
    if machine != _machine() or not pid.isdigit() or started == "0":
        return False
    return _started(int(pid)) != int(started)


@lru_cache(maxsize=1)
def _machine() -> str:
    """The kernel's boot and the space in which its process numbers mean something."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return f"unknown-{os.urandom(8).hex()}"  # no such files here: then nobody is known to be dead


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None for one that is gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # Behind the name, which is in brackets and may itself hold brackets and spaces.
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
