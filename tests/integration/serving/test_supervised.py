"""Supervision of one process: it is restarted whenever it ends, and its descendants are killed."""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry_control.serving.process import fork
from registry_control.serving.supervised import SupervisedProcess
from tests.services.processes import is_alive, wait_until_gone

# Writes its own id and that of a process that it forks, both of which ignore SIGTERM, and waits.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = os.fork()
if grandchild:
    open(sys.argv[1], "a").write(f"{os.getpid()} {grandchild}\\n")
time.sleep(60)
"""


class Watched:
    """A supervised child, the reports about it, and the processes of all its starts."""

    def __init__(self, folder: Path, program: str) -> None:
        self.pids = folder / "pids"
        self.reports: list[str] = []
        command = [sys.executable, "-c", program, str(self.pids)]
        self.child = SupervisedProcess(
            "data",
            start=lambda: fork(lambda: os.execv(command[0], command), title="data"),
            is_ready=self._is_ready,
            report=self.reports.append,
        )

    def starts(self) -> list[tuple[int, int]]:
        """For each start, the ids of the child and of the process that it has forked."""
        lines = self.pids.read_text(encoding="ascii").splitlines() if self.pids.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def tick_until(self, condition: Callable[[], bool], *, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.reports
            self.child.tick()
            time.sleep(0.01)

    def _is_ready(self, pid: int) -> bool:
        return any(pid == started for started, _ in self.starts())


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[str], Watched]]:
    made: list[Watched] = []

    def start(program: str) -> Watched:
        made.append(Watched(tmp_path, program))
        return made[-1]

    yield start
    for watched in made:
        watched.child.kill()


def test_a_killed_child_is_restarted_and_its_descendants_are_killed(
    watch: Callable[[str], Watched],
) -> None:
    # given a child that serves
    watched = watch(STUBBORN)
    watched.tick_until(lambda: watched.child.ready)
    (pid, grandchild) = watched.starts()[0]

    # when it is killed
    os.kill(pid, signal.SIGKILL)
    watched.tick_until(lambda: len(watched.starts()) == 2 and watched.child.ready)

    # then its own child is killed too, and the operator is told
    assert wait_until_gone([grandchild], timeout=2) == []
    assert watched.reports == [
        "data ended with signal 9 (SIGKILL); it is started again in 0.2 s",
        "data serves again",
    ]


def test_a_child_that_ends_repeatedly_is_restarted_with_increasing_delays(
    watch: Callable[[str], Watched],
) -> None:
    watched = watch("import sys; sys.exit(3)")
    watched.tick_until(lambda: len(watched.reports) == 3)
    assert watched.reports == [
        f"data ended with exit status 3; it is started again in {delay} s" for delay in ("0.2", "0.4", "0.8")
    ]


def test_a_failed_fork_is_retried() -> None:
    # given a machine on which no process can be started
    def no_room() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    said: list[str] = []
    child = SupervisedProcess("data", start=no_room, is_ready=lambda _: True, report=said.append)
    child.tick()
    assert not child.ready
    assert said[0].startswith("data could not be started (")


def test_a_child_that_ignores_sigterm_can_be_killed(watch: Callable[[str], Watched]) -> None:
    # given a child that ignores SIGTERM
    watched = watch(STUBBORN)
    watched.tick_until(lambda: watched.child.ready)
    (pid, grandchild) = watched.starts()[0]
    watched.child.terminate()
    time.sleep(0.2)
    assert not watched.child.has_ended()
    assert is_alive(grandchild)

    # when it is killed, then no process of it is left
    watched.child.kill()
    assert watched.child.has_ended()
    assert wait_until_gone([pid, grandchild], timeout=2) == []
