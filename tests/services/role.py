"""One process of the registry, started with `manage.py serve` as a container does."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

import httpx

from tests.services.child import Child
from tests.services.stack import ROOT


@contextmanager
def running_role(
    role: str, environment: Mapping[str, str], *, log: Path, command: tuple[str, ...] = ("serve",)
) -> Iterator[Child]:
    """Start `serve ROLE`, and stop it at the end. It need not be ready when this returns."""
    child = Child(
        [sys.executable, "manage.py", *command, role],
        cwd=ROOT,
        env=environment,
        log=log,
        stop_signal=SIGTERM,
    )
    try:
        yield child
    finally:
        child.stop(timeout=30)


def status_of(address: str, path: str) -> int:
    """The status of a response to a new connection; 0 if there is none within 10 seconds."""
    try:
        return httpx.get(f"http://{address}{path}", timeout=10).status_code
    except httpx.HTTPError:
        return 0
