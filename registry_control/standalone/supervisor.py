"""Starts the three processes of one machine, keeps them running, and ends them together."""

import http.client
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import connections

from registry_control.serving.addresses import reachable
from registry_control.serving.pid_file import worker_pid_file
from registry_control.serving.process import fork
from registry_control.serving.roles import ROLES, run
from registry_control.settings.environment import Address
from registry_control.standalone.signals import Signals
from registry_control.standalone.supervised import Child

STOP_TIME: Final = 7.0
"""Seconds until what has not ended by itself is killed; `up` has 10."""

_TICK: Final = 0.05  # seconds between two looks while something is not ready
_REST: Final = 1.0  # seconds between two looks otherwise; an end is noticed at once
_PROBE_TIMEOUT: Final = 1.0
_PATIENCE: Final = 30.0  # seconds until somebody who waits is told for what


def supervise(signals: Signals, *, on_ready: Callable[[], None], say: Callable[[str], None]) -> None:
    """Run the three until a signal asks to stop.

    Args:
        signals: active already, so that none is missed.
        on_ready: called once, when all three serve.
        say: given lines for the operator.
    """
    worker_pid_file(settings.STATE_DIR).unlink(missing_ok=True)
    connections.close_all()  # A connection is no thing to share with a fork.
    children = _children(say)
    try:
        _run(children, signals, on_ready=on_ready, say=say)
    finally:
        _stop(children, signals, say)


def _run(
    children: Sequence[Child],
    signals: Signals,
    *,
    on_ready: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    announced, impatient_at = False, time.monotonic() + _PATIENCE
    while not signals.stops:
        for child in children:
            child.tick()
        waiting = [child.name for child in children if not child.ready]
        if not waiting and not announced:
            announced = True
            on_ready()
        elif waiting and not announced and time.monotonic() > impatient_at:
            impatient_at += _PATIENCE
            say(f"still waiting for {' and '.join(waiting)}; what is wrong should be said above")
        signals.wait(_TICK if waiting else _REST)


def _stop(children: Sequence[Child], signals: Signals, say: Callable[[str], None]) -> None:
    """End all, first kindly. Whoever asks twice does not want to wait."""
    asked, deadline = signals.stops, time.monotonic() + STOP_TIME
    for child in children:
        child.ask_to_end()
    while (left := [child for child in children if not child.has_ended()]) and signals.stops == asked:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        signals.wait(remaining)
    for child in left:
        say(f"{child.name} had not finished: killed")
    for child in children:
        child.clear()


def _children(say: Callable[[str], None]) -> list[Child]:
    is_ready: dict[str, Callable[[int], bool]] = {
        "control": lambda _: _answers(settings.CONTROL_ADDR),
        "data": lambda _: _answers(settings.DATA_ADDR),
        "worker": lambda pid: _names(worker_pid_file(settings.STATE_DIR), pid),
    }
    return [
        Child(
            role,
            start=partial(fork, partial(run, role), title=f"manage.py serve {role}"),
            is_ready=is_ready[role],
            say=say,
        )
        for role in ROLES
    ]


def _answers(address: Address) -> bool:
    """Whether the server's own health check says that it can work."""
    place = reachable(address)
    connection = http.client.HTTPConnection(place.host, place.port, timeout=_PROBE_TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _names(file: Path, pid: int) -> bool:
    try:
        return file.read_text(encoding="ascii") == str(pid)
    except (OSError, ValueError):
        return False
