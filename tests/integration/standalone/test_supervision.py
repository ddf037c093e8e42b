"""Killed processes are restarted, and a stop ends all processes in time."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.standalone.product import api, main_process, server_process, serves
from tests.oci_client import OciClient, digest_of
from tests.services.plugin import Backing
from tests.services.processes import is_alive, wait_until_gone
from tests.services.stack import STATE, Stack
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.only_on("sqlite")]  # processes and signals, no SQL

LAYER = os.urandom(1_000_000) * 64


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, backing: Backing) -> Iterator[Stack]:
    """A product with an image; tests may kill its processes and need not restart them."""
    folder = tmp_path_factory.mktemp("supervised")
    environment = backing.migrated_environment(folder / STATE) | {"REGISTRY_DATA_WORKERS": "2"}
    with Stack(folder, environment=environment) as stack:
        api(stack, "POST", "/namespaces", name="supervised")
        credentials = stack.credentials
        with OciClient(credentials.registry_host, credentials.secret_key) as client:
            client.push_image("supervised/app", "latest", LAYER)
        yield stack


@pytest.fixture
def running(product: Stack) -> Stack:
    if not product.is_running:
        product.start()
    return product


@pytest.mark.parametrize("name", ["control", "data", "worker"])
def test_a_killed_process_is_restarted_and_reported(running: Stack, name: str) -> None:
    # given a process and its descendants
    victim, log_start = main_process(running, name), len(running.log)
    family = [pid for pid, command in running.processes().items() if f"serve {name}" in command]

    # when it is killed
    os.kill(victim, signal.SIGKILL)

    # then its descendants end too, and a new process replaces it
    assert wait_until_gone(family, timeout=10) == []
    wait_until(lambda: f"{name} serves again" in running.log[log_start:], timeout=20)
    assert serves(running, name)
    assert main_process(running, name) != victim
    assert (
        f"stowage: {name} ended with signal 9 (SIGKILL); it is started again in 0" in running.log[log_start:]
    )


@pytest.mark.parametrize("name", ["control", "data"])
def test_a_killed_worker_process_of_a_server_is_replaced_and_reported(running: Stack, name: str) -> None:
    # given one of the worker processes of a server
    main, victim, log_start = main_process(running, name), server_process(running, name), len(running.log)

    # when it is killed
    os.kill(victim, signal.SIGKILL)

    # then the server continues with a new one
    wait_until(lambda: f"{name}: process " in running.log[log_start:], timeout=20)
    assert f"{name} process 0 ended with signal 9 (SIGKILL)" in running.log[log_start:]
    wait_until(lambda: serves(running, name), timeout=10)
    assert main_process(running, name) == main
    assert not is_alive(victim)


def test_no_process_outlives_a_killed_up_and_the_next_start_can_bind_its_ports(running: Stack) -> None:
    # given all processes of a product
    started = running.processes()
    assert len(started) == 8  # three, and their children: one of control, two of data, two of the worker

    # when `up` itself is killed
    os.kill(running.pid, signal.SIGKILL)

    # then all of them end by themselves, and a new start works at once
    assert wait_until_gone(started, timeout=10) == []
    wait_until(lambda: not running.is_running, timeout=10)
    running.start()
    assert serves(running, "data")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_ends_every_process_with_status_zero(running: Stack, number: signal.Signals) -> None:
    # given an idle product, with a connection that a client keeps alive
    started, credentials = running.processes(), running.credentials
    with httpx.Client(base_url=f"http://{credentials.registry_host}") as client:
        assert client.get("/healthz").status_code == 200

        # when it is stopped
        os.kill(running.pid, number)
        wait_until(lambda: not running.is_running, timeout=30)

    # then it ends with the connection still open, and leaves no process
    assert running.exit_code == 0
    assert wait_until_gone(started, timeout=0) == []


def test_a_stop_waits_for_an_open_download(running: Stack) -> None:
    # given a download by a slow client
    credentials, began = running.credentials, threading.Event()
    received = bytearray()
    download = threading.Thread(target=_download_slowly, args=(running, received, began))
    download.start()
    assert began.wait(20)

    # when the product is stopped
    code = running.stop()
    download.join(20)

    # then the client receives the whole blob
    assert code == 0
    assert digest_of(bytes(received)) == digest_of(LAYER)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{credentials.registry_host}/healthz")


def test_a_stop_does_not_wait_for_a_client_that_stopped_reading(running: Stack) -> None:
    # given a download of which the client reads only the beginning
    credentials, started = running.credentials, running.processes()
    with (
        OciClient(credentials.registry_host, credentials.secret_key) as client,
        client.stream("supervised/app", f"blobs/{digest_of(LAYER)}") as response,
    ):
        pieces = response.iter_raw(1000)
        next(pieces)  # not the last reference to it: a generator that ends closes the connection

        # when the product is stopped, then it ends all the same
        assert running.stop() == 0
    assert wait_until_gone(started, timeout=0) == []
    assert "stowage: data had not finished: killed" in running.log


def _download_slowly(stack: Stack, received: bytearray, began: threading.Event) -> None:
    """Takes about three seconds."""
    credentials = stack.credentials
    with (
        OciClient(credentials.registry_host, credentials.secret_key) as client,
        client.stream("supervised/app", f"blobs/{digest_of(LAYER)}") as response,
    ):
        for piece in response.iter_raw(1_000_000):
            received += piece
            began.set()
            time.sleep(0.05)
