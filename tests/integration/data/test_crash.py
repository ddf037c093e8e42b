"""kill -9 during a push: confirmed writes are durable, others are invisible, and the push can be repeated."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.oci_client import OciClient, digest_of
from tests.services.plugin import Backing
from tests.services.processes import wait_until_gone
from tests.services.stack import STATE, Credentials, Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.slow

PROCESSES = {
    "control": lambda command: "serve control" in command,
    "data": lambda command: "serve data" in command,
    "worker": lambda command: "serve worker" in command,
}


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory, backing: Backing) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("crashing")
    with Stack(folder, environment=backing.migrated_environment(folder / STATE)) as stack:
        yield stack


@pytest.mark.oci(174)
@pytest.mark.parametrize("victim", ["control", "data", "worker", "up", "all"])
def test_a_push_interrupted_by_a_kill_succeeds_when_repeated(crashing: Stack, victim: str) -> None:
    # given an image that was pushed before, and a push in the middle of its layer
    credentials = crashing.credentials
    wait_until(
        lambda: httpx.get(f"{credentials.control_url}/healthz").status_code == 200
    )  # it may have been killed by an earlier case
    namespace = f"crash-{victim}-{os.getpid()}"
    response = httpx.post(
        f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces",
        headers={"X-Auth-Token": credentials.secret_key},
        json={"name": namespace},
    )
    assert response.status_code == 200, response.text
    repository, layer = f"{namespace}/app", os.urandom(8_000_000)
    with OciClient(credentials.registry_host, credentials.secret_key) as client:
        before = client.push_image(repository, "before", b"old layer")
        upload = client.start_upload(repository)
        half, killed = threading.Event(), threading.Event()
        push = (credentials, repository, upload, layer, half, killed)
        pushing = threading.Thread(target=_push_in_two_halves, args=push)
        pushing.start()
        assert half.wait(60)

        # when a process is killed, or all of them
        _kill(crashing, victim)
        killed.set()
        pushing.join(60)
        wait_until(lambda: client.http.get("/healthz").status_code == 200)

        # then the incomplete blob is not visible, and the earlier image can still be pulled
        assert client.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 404
        assert client.on(repository, "GET", "manifests/before").headers["docker-content-digest"] == before

        # and the push succeeds, both when it continues the upload and when it starts again
        offset = _next_offset(client.on(repository, "GET", upload).headers["range"])
        if offset < len(layer):
            content_range = {"Content-Range": f"{offset}-{len(layer) - 1}"}
            rest = client.on(repository, "PATCH", upload, content=layer[offset:], headers=content_range)
            assert rest.status_code == 202, rest.text
        params = {"digest": digest_of(layer)}
        assert client.on(repository, "PUT", upload, params=params).status_code == 201
        client.push_image(repository, "after", layer)
        assert client.on(repository, "GET", f"blobs/{digest_of(layer)}").content == layer


def _push_in_two_halves(
    credentials: Credentials,
    repository: str,
    upload: str,
    layer: bytes,
    half: threading.Event,
    killed: threading.Event,
) -> None:
    """Send the layer in one request that pauses in the middle, from `half` until `killed`."""

    def body() -> Iterator[bytes]:
        for start in range(0, len(layer), 500_000):
            if start > len(layer) // 2 and not half.is_set():
                half.set()
                killed.wait(60)
            yield layer[start : start + 500_000]

    # A kill of a data plane process ends the request; the test sends the rest.
    with OciClient(credentials.registry_host, credentials.secret_key) as client, suppress(httpx.HTTPError):
        client.on(repository, "PATCH", upload, content=body())


def _next_offset(status: str) -> int:
    """The Range of an empty upload is `0-0` too; here a push always sends more than one byte."""
    last = int(status.removeprefix("0-"))
    return last + 1 if last else 0


def _kill(stack: Stack, victim: str) -> None:
    started = stack.processes()
    if victim == "all":
        stack.kill()
    elif victim == "up":
        os.kill(stack.pid, signal.SIGKILL)
        assert not wait_until_gone(started, timeout=10), "children outlived their parent"
    else:
        doomed = [pid for pid, command in started.items() if PROCESSES[victim](command)]
        assert doomed, started
        for pid in sorted(doomed):  # parents first, because they would restart their children
            os.kill(pid, signal.SIGKILL)
    if victim in ("all", "up"):
        wait_until(lambda: not stack.is_running)
        stack.start()
