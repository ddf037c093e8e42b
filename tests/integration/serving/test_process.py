"""Forked processes: process group, title and exit status."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_control.serving.process import fork
from tests.services.processes import wait_until_gone


def status_of(run: Callable[[], int]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(fork(run, title="a test"), 0)[1])


def end(code: object) -> int:
    raise SystemExit(code)


def wait() -> int:
    time.sleep(30)
    return 0


@pytest.mark.parametrize(
    ("run", "status"),
    [
        (lambda: 0, 0),
        (lambda: 7, 7),
        (lambda: end(None), 0),
        (lambda: end(3), 3),
        (lambda: end("what went wrong"), 1),
        (lambda: 1 // 0, 1),
    ],
)
def test_the_return_value_or_exception_determines_the_exit_status(
    run: Callable[[], int], status: int
) -> None:
    assert status_of(run) == status


def test_a_child_leads_a_process_group_and_has_its_title() -> None:
    # given a child that waits
    child = fork(wait, title="serve nobody")
    assert os.getpgid(child) == child

    # then it soon has its own title, and this process still its old one
    command = Path(f"/proc/{child}/cmdline")
    deadline = time.monotonic() + 5
    while not command.read_bytes().startswith(b"serve nobody\0"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert b"serve nobody" not in Path("/proc/self/cmdline").read_bytes()
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_signal_to_a_child_that_has_just_started_is_not_lost() -> None:
    # given a parent that handles SIGTERM itself
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        for _ in range(20):
            # when a child gets SIGTERM right after the fork, then it ends
            child = fork(wait, title="a test")
            os.kill(child, signal.SIGTERM)
            assert wait_until_gone([child], timeout=5) == []
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
