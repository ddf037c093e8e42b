"""`manage.py probe worker`, on the files that the worker's processes write."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_control.common.background import Queue
from registry_control.serving.probe import QUEUES, NotServing, check_worker
from tests.services.processes import freeze


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as running:
        yield running
        running.kill()


def write(folder: Path, queue: str, pid: int, *, age: float = 0) -> None:
    path = folder / "run" / f"worker-{queue}.pid"
    path.parent.mkdir(exist_ok=True)
    path.write_text(str(pid), encoding="ascii")
    os.utime(path, (time.time() - age,) * 2)


def reason(folder: Path) -> str:
    with pytest.raises(NotServing) as refused:
        check_worker(folder)
    return str(refused.value)


def test_the_probe_knows_every_queue() -> None:
    assert set(QUEUES) == {queue.value for queue in Queue}


def test_both_processes_must_run_and_be_connected(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    assert "not connected yet" in reason(tmp_path)
    write(tmp_path, "fast", process.pid)
    assert "the process for bulk is not connected yet" in reason(tmp_path)
    write(tmp_path, "bulk", process.pid, age=20)
    check_worker(tmp_path)
    write(tmp_path, "bulk", process.pid, age=40)
    assert "bulk has not reached database and broker for 40 s" in reason(tmp_path)


def test_a_process_that_is_stopped_or_has_ended_does_not_serve(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    write(tmp_path, "fast", os.getpid())
    write(tmp_path, "bulk", process.pid)
    freeze(process.pid)
    assert "bulk has ended or is stopped" in reason(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie until `wait`
    assert "bulk has ended or is stopped" in reason(tmp_path)
    process.wait()
    assert "bulk has ended or is stopped" in reason(tmp_path)
