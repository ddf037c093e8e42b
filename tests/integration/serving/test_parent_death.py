"""Real processes whose parents are killed."""

import os
import subprocess
import sys

import pytest

from registry_control.serving.parent_death import end_with_parent
from tests.services.processes import is_alive, wait_until_gone
from tests.services.stack import ROOT

# Each starts one process, prints its id once that is bound to its parent, and then waits.
SPAWNED = """
import os, subprocess, sys
child = '''
import os, time
from registry_control.serving.parent_death import end_with_parent
end_with_parent(os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
'''
subprocess.run([sys.executable, "-c", child])
"""
FORKED = """
import multiprocessing, os, time
from registry_control.serving.parent_death import end_with_parent
def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(60)
multiprocessing.get_context("fork").Process(target=child).start()
"""
WATCHING = """
import os, subprocess, sys
child = '''
import os, threading, time
from registry_control.serving.parent_death import end_when_orphaned
threading.Thread(target=end_when_orphaned, args=(os.getppid(),)).start()
print(os.getpid(), flush=True)
time.sleep(60)
'''
subprocess.run([sys.executable, "-c", child])
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            SPAWNED, id="told its parent", marks=pytest.mark.skipif(sys.platform != "linux", reason="")
        ),
        pytest.param(FORKED, id="forked"),
        pytest.param(WATCHING, id="where the kernel does not help"),
    ],
)
def test_a_process_ends_within_two_seconds_of_its_killed_parent(program: str) -> None:
    # given a process that another process has started
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)

        # when the parent is killed
        parent.kill()

    # then both have ended
    assert wait_until_gone([child], timeout=2) == []


def test_a_parent_that_has_already_ended_is_detected() -> None:
    # given a process with the id of a parent that is not (or no longer) its own
    program = "from registry_control.serving.parent_death import end_with_parent; end_with_parent(2**22 + 1)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=10)
    assert done.returncode == -9


def test_a_process_with_another_parent_is_not_affected() -> None:
    end_with_parent()
    assert is_alive(os.getpid())
