"""The three processes of a registry on one machine."""

import http.client
from collections.abc import Callable
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connections

from registry_control.serving.addresses import reachable
from registry_control.serving.pid_file import PidFile
from registry_control.serving.process import fork
from registry_control.serving.process_tuning import freeze_objects
from registry_control.serving.roles import ROLES, run
from registry_control.serving.signals import Signals
from registry_control.serving.supervised import SupervisedProcess
from registry_control.serving.supervision import supervise
from registry_control.settings.environment import Address

_STOP_TIMEOUT: Final = 7.0  # seconds; `up` promises to end within 10
_PROBE_TIMEOUT: Final = 1.0  # seconds


def run_all_roles(signals: Signals, *, on_ready: Callable[[], None], report: Callable[[str], None]) -> None:
    """Run control plane, data plane and worker until a signal requests a stop.

    Args:
        signals: already active, so that no signal is missed.
        on_ready: called once, when all three are ready.
        report: receives lines for the operator.
    """
    connections.close_all()  # A forked process must not share a connection.
    freeze_objects()  # Otherwise each of them would visit and so copy what this process has imported.
    worker = PidFile("worker")
    worker.remove()
    is_ready: dict[str, Callable[[int], bool]] = {
        "control": lambda _: _is_healthy(settings.CONTROL_ADDR),
        "data": lambda _: _is_healthy(settings.DATA_ADDR),
        "worker": worker.names,
    }
    processes = [
        SupervisedProcess(
            role,
            start=partial(fork, partial(run, role), title=f"manage.py serve {role}"),
            is_ready=is_ready[role],
            report=report,
        )
        for role in ROLES
    ]
    supervise(processes, signals, on_ready=on_ready, report=report, stop_timeout=_STOP_TIMEOUT)


def _is_healthy(address: Address) -> bool:
    """Whether the health check of the server at this address succeeds."""
    target = reachable(address)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=_PROBE_TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
