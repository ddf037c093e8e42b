"""Runs several processes until a signal, restarts those that end, and stops them together."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from registry_control.serving.process import reap_orphans
from registry_control.serving.signals import Signals
from registry_control.serving.supervised import SupervisedProcess

_POLL: Final = 0.05  # seconds between two checks while a process is not ready
_IDLE_POLL: Final = 1.0  # seconds between two checks otherwise; the end of a process wakes the loop at once
_PATIENCE: Final = 30.0  # seconds of waiting for readiness between two reports


def supervise(
    processes: Sequence[SupervisedProcess],
    signals: Signals,
    *,
    on_ready: Callable[[], None],
    report: Callable[[str], None],
    stop_timeout: float,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Run the processes until a signal requests a stop, then stop them.

    Args:
        processes: not started yet.
        signals: active already, so that none is missed.
        on_ready: called once, when all processes are ready for the first time.
        report: receives lines for the operator.
        stop_timeout: seconds from SIGTERM until a process that has not ended is killed.
        on_stop: called before the processes are stopped.
    """
    try:
        _run(processes, signals, on_ready=on_ready, report=report)
    finally:
        on_stop()
        _stop(processes, signals, report, stop_timeout)


def _run(
    processes: Sequence[SupervisedProcess],
    signals: Signals,
    *,
    on_ready: Callable[[], None],
    report: Callable[[str], None],
) -> None:
    announced, report_at = False, time.monotonic() + _PATIENCE
    while not signals.stops:
        for process in processes:
            process.tick()
        if os.getpid() == 1:
            reap_orphans({process.pid for process in processes})
        waiting = [process.name for process in processes if not process.ready]
        if not waiting and not announced:
            announced = True
            on_ready()
        elif waiting and not announced and time.monotonic() > report_at:
            report_at += _PATIENCE
            report(f"still waiting for {' and '.join(waiting)}; the reason should be logged above")
        signals.wait(_POLL if waiting else _IDLE_POLL)


def _stop(
    processes: Sequence[SupervisedProcess],
    signals: Signals,
    report: Callable[[str], None],
    timeout: float,
) -> None:
    """Terminate all processes; kill the rest after the timeout or at a second stop signal."""
    stops, deadline = signals.stops, time.monotonic() + timeout
    for process in processes:
        process.terminate()
    while (left := [process for process in processes if not process.has_ended()]) and signals.stops == stops:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        signals.wait(min(remaining, _IDLE_POLL))
    for process in left:
        report(f"{process.name} had not finished: killed")
    for process in processes:
        process.kill()
