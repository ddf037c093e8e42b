"""`manage.py probe`: whether a process of this node serves, for health checks that run a command.

It imports no Django and opens no connection to database or storage, so that it takes a tenth of a second and
needs neither curl nor a writable file system.
"""

import http.client
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from registry_control import settings
from registry_control.serving.addresses import reachable
from registry_control.settings.environment import Address

QUEUES: Final = ("fast", "bulk")  # `common.background.Queue`, whose import would load Celery
_LATE: Final = 30.0  # seconds without a heartbeat; a process has one every 10 s
_TIMEOUT: Final = 10.0  # seconds; /readyz responds sooner
_PROC: Final = Path("/proc")


class NotServing(Exception):
    """The process does not serve; the message is one line for the operator."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("role", choices=tuple(_PROBES))
    help_text = "only whether the process responds: /livez instead of /readyz; not for the worker"
    parser.add_argument("--live", action="store_true", help=help_text)


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments after `manage.py probe`, print one line, and return the exit status."""
    parser = ArgumentParser(
        "manage.py probe", description="Check a process of this node: exit status 0 or 1."
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    return run(options.role, live=options.live)


def run(role: str, *, live: bool) -> int:
    """Probe the role; 0 if it serves, 1 if not, 2 for a worker and `live`, which would restart it in vain."""
    if live and role == "worker":
        print("worker: --live is for control and data; a worker restarts its processes", file=sys.stderr)
        return 2
    try:
        _PROBES[role](live)
    except NotServing as error:
        print(f"{role}: {error}")
        return 1
    print(f"{role}: ok")
    return 0


def _probe_server(address: Address, *, live: bool) -> None:
    target = reachable(address)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/livez" if live else "/readyz")
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            text = response.read(1024).decode("ascii", "replace")
            raise NotServing(f"status {response.status} {text}")
    except (OSError, http.client.HTTPException) as error:
        raise NotServing(f"{target} does not respond: {error}") from error
    finally:
        connection.close()


def check_worker(folder: Path) -> None:
    """Check the heartbeats of this node's worker, which are files in its state folder.

    Raises:
        NotServing: a process does not run, or has had no connection to database and broker for 30 seconds.
    """
    for queue in QUEUES:
        path = folder / "run" / f"worker-{queue}.pid"
        try:
            pid, age = int(path.read_text(encoding="ascii")), time.time() - path.stat().st_mtime
        except (OSError, ValueError) as error:
            raise NotServing(f"the process for {queue} is not connected yet, or has ended") from error
        if not _is_running(pid):
            raise NotServing(f"the process for {queue} has ended or is stopped")
        if age > _LATE:
            raise NotServing(f"the process for {queue} has not reached database and broker for {age:.0f} s")


def _is_running(pid: int) -> bool:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    # The state follows the name, which is in parentheses and may contain parentheses and spaces (proc(5)).
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X", b"T", b"t")


_PROBES: Final[Mapping[str, Callable[[bool], None]]] = {
    "control": lambda live: _probe_server(settings.CONTROL_ADDR, live=live),
    "data": lambda live: _probe_server(settings.DATA_ADDR, live=live),
    "worker": lambda _: check_worker(settings.STATE_DIR),
}
