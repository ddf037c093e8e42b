"""`manage.py up` from the outside: the first start, the second one, and starts that are killed."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.integration.standalone.product import api, count, serves
from tests.oci_client import OciClient
from tests.services.processes import descendants, wait_until_gone
from tests.services.role import status_of
from tests.services.stack import ROOT, Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.mark.only_on("sqlite")
def test_a_second_start_finds_the_state_unchanged(make_new_stack: Callable[..., Stack]) -> None:
    # given a first start, and an image
    stack = make_new_stack().start()
    file = stack.state_dir / "credentials.json"
    assert file.stat().st_mode & 0o777 == 0o600
    first, written = stack.credentials, file.stat().st_mtime_ns
    api(stack, "POST", "/namespaces", name="kept")
    with OciClient(first.registry_host, first.secret_key) as client:
        digest = client.push_image("kept/app", "latest", b"a layer")
    users = count(stack, "identity_user")

    # when it is stopped and started again
    assert stack.stop() == 0
    stack.start()

    # then nothing was created again, and everything is there
    assert stack.credentials == first
    assert file.stat().st_mtime_ns == written
    assert count(stack, "identity_user") == users
    with OciClient(first.registry_host, first.secret_key) as client:
        pulled = client.on("kept/app", "GET", "manifests/latest")
    assert pulled.headers["docker-content-digest"] == digest

    # and no log line contains a secret, and no file can be read by others
    assert first.secret_key not in stack.log
    assert first.admin_password not in stack.log
    assert (stack.state_dir / "secret_key").read_text(encoding="ascii") not in stack.log
    others = [path for path in stack.state_dir.rglob("*") if path.stat().st_mode & 0o077]
    assert others == []


@pytest.mark.only_on("sqlite")
def test_the_printed_commands_create_a_namespace(stack: Stack) -> None:
    # given the text that follows `ready`
    assert re.search(r"^ready", stack.log, re.MULTILINE)
    commands = stack.log.partition("first push and pull:\n")[2].partition("  secret | docker")[0]

    # when its first commands are run
    done = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=30, check=False)

    # then there is a namespace
    assert done.returncode == 0, done.stderr
    assert api(stack, "GET", "/namespaces?name=hello")["total_count"] == 1


def test_first_starts_that_are_killed_do_not_prevent_the_next(
    make_new_stack: Callable[..., Stack],
) -> None:
    # given first starts that are killed after different times
    stack = make_new_stack()
    for moment in (0.5, 0.9, 1.2, 1.5, 1.9, 2.5):
        with subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env=stack.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as up:
            time.sleep(moment)
            started = descendants(up.pid)
            up.kill()
        assert wait_until_gone(started, timeout=10) == []

    # when one is not killed, then there is one row of each kind, and the key works
    stack.start()
    assert count(stack, "identity_organization") == 1
    assert count(stack, "identity_user") == 1
    assert count(stack, "identity_apikey") == 1
    assert api(stack, "GET", "/namespaces")["total_count"] == 0


# Migrates in forked processes, each of which kills itself as soon as one migration is committed.
CUT_SHORT = """
import os, signal
import django
from django.core.management import call_command
from django.db import connection

django.setup()
leave = connection.SchemaEditorClass.__exit__

def left(editor, kind, error, traceback):
    leave(editor, kind, error, traceback)
    if kind is None:
        os.kill(os.getpid(), signal.SIGKILL)

connection.SchemaEditorClass.__exit__ = left
for _ in range(12):
    child = os.fork()
    if child == 0:
        call_command("migrate", verbosity=0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


def test_migrations_continue_after_processes_were_killed_between_them(
    make_new_stack: Callable[..., Stack],
) -> None:
    # given migrations that are killed one after another
    stack = make_new_stack()
    environment = stack.environment | {"DJANGO_SETTINGS_MODULE": "registry_control.settings"}
    subprocess.run([sys.executable, "-c", CUT_SHORT], cwd=ROOT, env=environment, check=True)

    # when one is not killed, then the schema is complete
    stack.start()
    assert api(stack, "GET", "/namespaces")["total_count"] == 0


@pytest.mark.only_on("sqlite")
def test_a_start_without_the_file_says_how_to_create_another_key(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack().start()
    (stack.state_dir / "credentials.json").unlink()
    stack.restart()
    last = stack.log.rpartition("\nready")[2]
    assert "credentials.json contains no valid key" in last
    assert "manage.py create_key" in last
    assert not (stack.state_dir / "credentials.json").exists()


@pytest.mark.only_on("sqlite")
def test_a_second_up_on_the_same_folder_exits_and_does_not_affect_the_first(stack: Stack) -> None:
    # given a running product
    processes = stack.processes()

    # when another is started on its folder
    done = stack.manage("up", check=False)

    # then it exits with one line, and the first one continues to serve
    assert done.returncode == 1
    assert done.stderr == (
        f"stowage: REGISTRY_STATE_DIR: {stack.state_dir} is in use by another `up` (process {stack.pid}):"
        " stop that one, or set REGISTRY_STATE_DIR to another folder\n"
    )
    assert stack.processes() == processes
    assert all(serves(stack, name) for name in ("control", "data", "worker"))


@pytest.mark.only_on("sqlite")
def test_a_second_server_does_not_share_the_port_of_the_first(make_stack: Callable[..., Stack]) -> None:
    # given a data plane that was started by itself
    stack = make_stack()
    with subprocess.Popen(
        [sys.executable, "manage.py", "serve", "data"], cwd=ROOT, env=stack.environment
    ) as server:
        wait_until(lambda: status_of(stack.data_address, "/livez") == 200)

        # when another one is started on its port, then it exits with an error
        done = stack.manage("serve", "data", check=False)
        server.send_signal(signal.SIGTERM)
    assert done.returncode == 1
    assert done.stderr.startswith(f"stowage: REGISTRY_DATA_ADDR: {stack.environment['REGISTRY_DATA_ADDR']}")
    assert server.returncode == 0


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("plane", ["data", "control"])
def test_a_server_that_is_stopped_at_any_moment_of_its_start_ends(
    make_stack: Callable[..., Stack], plane: str
) -> None:
    # given a migrated database
    stack = make_stack()

    # when a server is stopped after different times, then it ends
    for moment in range(6):
        with subprocess.Popen(
            [sys.executable, "manage.py", "serve", plane],
            cwd=ROOT,
            env=stack.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            time.sleep(0.4 + 0.15 * moment)
            server.terminate()
            server.wait(timeout=20)
