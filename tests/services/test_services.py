"""The tests' own tools, whose faults could hide failures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.services.child import Child, ServiceError
from tests.services.ports import free_port
from tests.services.processes import descendants, is_alive, wait_until_gone
from tests.services.tools import require_tool

SLEEPS = "import time; time.sleep(60)"
IGNORES_SIGTERM = (
    f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {SLEEPS}"
)
STARTS_ONE_MORE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"


def python(code: str, folder: Path) -> Child:
    command = [sys.executable, "-c", code]
    return Child(command, log=folder / "program.log", stop_signal=signal.SIGTERM)


def test_a_port_is_reserved_once() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)


def test_a_program_that_ends_early_is_reported_with_its_output(tmp_path: Path) -> None:
    child = python("import sys; sys.exit('the port is taken')", tmp_path)
    with pytest.raises(ServiceError, match=r"ended with 1\n.*the port is taken"):
        child.wait_until(lambda: False, timeout=30)


def test_a_program_that_does_not_end_is_killed_and_reported(tmp_path: Path) -> None:
    child = python(IGNORES_SIGTERM, tmp_path)
    child.wait_until(lambda: "up" in child.tail(), timeout=30)
    with pytest.raises(ServiceError, match=r"did not end within 0\.2 s"):
        child.stop(timeout=0.2)
    assert child.exit_code == -signal.SIGKILL


def test_descendants_of_a_program_are_found(tmp_path: Path) -> None:
    # given a program that has started another one
    child = python(STARTS_ONE_MORE, tmp_path)
    child.wait_until(lambda: SLEEPS in "".join(descendants(child.pid).values()), timeout=30)
    (grandchild,) = descendants(child.pid)

    # when only the first one is killed
    child.kill()

    # then the second is reported as running until it is killed too
    assert wait_until_gone([child.pid, grandchild], timeout=0) == [grandchild]
    os.kill(grandchild, signal.SIGKILL)
    assert wait_until_gone([grandchild], timeout=5) == []


def test_a_program_does_not_outlive_killed_tests(tmp_path: Path) -> None:
    # given a test process that has started a program
    code = f"""
import signal, sys
from pathlib import Path
from tests.services.child import Child
folder = Path({str(tmp_path)!r})
child = Child([sys.executable, "-c", {SLEEPS!r}], log=folder / "program.log", stop_signal=signal.SIGTERM)
print(child.pid, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as tests:
        assert tests.stdout
        program = int(tests.stdout.readline())
        # Before exec it is `setpriv`, which may not have set the signal yet; during exec the line is empty.
        while not (line := Path(f"/proc/{program}/cmdline").read_text(encoding="utf-8")) or "setpriv" in line:
            time.sleep(0.01)
        assert is_alive(program)

        # when the test process is killed
        tests.kill()

    # then the program ends
    assert wait_until_gone([program], timeout=5) == []


def test_a_missing_program_skips_a_test_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI_FORBID_SKIPS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs no-such-program: run make tools"):
        require_tool("no-such-program")


def test_a_missing_program_fails_a_test_if_skips_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_FORBID_SKIPS", "1")
    with pytest.raises(pytest.fail.Exception, match="needs no-such-program"):
        require_tool("no-such-program")
