"""Workers of several nodes: exactly one runs the beat, and another one takes over when it is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.standalone.product import api, row
from tests.services.processes import descendants
from tests.services.redis import Redis
from tests.services.stack import ROOT, Stack
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.only_on("postgresql")]  # as every installation of several nodes


@contextmanager
def further_worker(stack: Stack, state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of another node: same database, broker and secret key, another state folder."""
    database_url = stack.environment.get("REGISTRY_DATABASE_URL")
    shared = {
        "REGISTRY_STATE_DIR": str(state_dir),
        "REGISTRY_SECRET_KEY": (stack.state_dir / "secret_key").read_text(encoding="ascii"),
        "REGISTRY_DATABASE_URL": database_url or f"sqlite:///{stack.state_dir}/registry.sqlite3",
    }
    command = [sys.executable, "manage.py", "serve", "worker"]
    with subprocess.Popen(command, cwd=ROOT, env=stack.environment | shared) as worker:
        try:
            wait_until((state_dir / "run" / "worker.pid").exists, timeout=60)
            yield worker
        finally:
            worker.terminate()
            worker.wait(20)


def leader(stack: Stack) -> tuple[int, bool]:
    """The process that holds the beat's lease, and whether the lease is valid."""
    owner, valid = row(
        stack,
        "SELECT owner, expires_at > CURRENT_TIMESTAMP FROM serving_leaderlease WHERE name = 'beat'",
    )
    return int(str(owner).split()[1]), bool(valid)


def test_another_worker_takes_over_the_beat_of_one_that_is_killed(
    make_stack: Callable[..., Stack], redis: Redis, tmp_path: Path
) -> None:
    # given a product, and the worker of another node
    stack = make_stack(REGISTRY_REDIS_URL=redis.spare()).start()
    wait_until(lambda: leader(stack)[1])
    first = leader(stack)[0]
    assert first in stack.processes()
    with further_worker(stack, tmp_path / "other") as other:
        # when the whole worker that has the beat is killed
        assert leader(stack)[0] == first
        victims = [pid for pid, command in stack.processes().items() if "serve worker" in command]
        os.kill(stack.pid, signal.SIGSTOP)  # so that `up` does not restart the worker
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

        # then the other one has it within half a minute, and deletions are completed
        wait_until(lambda: leader(stack)[0] in descendants(other.pid), timeout=30)
        assert leader(stack)[1]
        namespace = api(stack, "POST", "/namespaces", name="doomed")
        api(stack, "DELETE", f"/namespaces/{namespace['id']}")
        wait_until(lambda: row(stack, "SELECT count(*) FROM namespaces_namespace") == (0,), timeout=20)
        os.kill(stack.pid, signal.SIGCONT)


def test_a_worker_that_stops_releases_the_beat(
    make_stack: Callable[..., Stack], redis: Redis, tmp_path: Path
) -> None:
    # given the worker of another node, which was started first and so has the beat
    stack = make_stack(REGISTRY_REDIS_URL=redis.spare()).start()
    wait_until(lambda: leader(stack)[1])
    with further_worker(stack, tmp_path / "other") as other:
        main = next(pid for pid, command in stack.processes().items() if command.endswith("serve worker"))
        fast = leader(stack)[0]

        # when the leader is stopped, then the other one has the beat before the lease would expire
        os.kill(stack.pid, signal.SIGSTOP)
        os.kill(main, signal.SIGTERM)
        wait_until(lambda: leader(stack)[0] in descendants(other.pid), timeout=10)
        assert leader(stack)[0] != fast
        os.kill(stack.pid, signal.SIGCONT)
