"""The worker runs tasks with both brokers, in about two seconds, and continues after it was killed."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
import redis

from tests.integration.standalone.product import api, count, main_process, serves
from tests.oci_client import OciClient
from tests.services.disks import small_disk
from tests.services.plugin import Backing, requested_database
from tests.services.processes import descendants, freeze
from tests.services.redis import Redis, running_redis
from tests.services.role import running_role, status_of
from tests.services.stack import ROOT, STATE, Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.slow

# Many rows without bytes: their deletion takes several seconds, in batches.
FILL = """
from registry_control.catalog.models import Image, Manifest
image = Image.objects.get(namespace__name="large")
made = (
    Manifest(image=image, digest=f"sha256:{number:064x}", media_type="x", payload=b"{}", size=2)
    for number in range(20_000)
)
Manifest.objects.bulk_create(made, batch_size=500)
"""


# Neither broker depends on the database, so one run has one and the other run the other.
@pytest.fixture(scope="module", params=["redis" if requested_database() == "postgresql" else "a folder"])
def product(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, backing: Backing
) -> Iterator[Stack]:
    """A product with one of the brokers."""
    folder = tmp_path_factory.mktemp("worker")
    environment = backing.migrated_environment(folder / STATE) | {"REGISTRY_REDIS_URL": ""}
    if request.param == "redis":
        environment["REGISTRY_REDIS_URL"] = request.getfixturevalue("redis").spare()
    with Stack(folder, environment=environment) as stack:
        yield stack


def push(stack: Stack, repository: str, *tags: str) -> None:
    credentials = stack.credentials
    with OciClient(credentials.registry_host, credentials.secret_key) as client:
        for tag in tags:
            client.push_image(repository, tag, f"the layer of {repository}:{tag}".encode())


def rows(stack: Stack) -> dict[str, int]:
    tables = ("namespaces_namespace", "catalog_image", "catalog_tag", "catalog_manifest", "catalog_bloblink")
    return {table: count(stack, table) for table in tables}


def messages(stack: Stack) -> list[Path]:
    return [path for path in (stack.state_dir / "broker").rglob("*") if path.is_file()]


def delete(stack: Stack, namespace_id: object) -> None:
    assert api(stack, "DELETE", f"/namespaces/{namespace_id}")["status"] == "deleting"


def test_a_deleted_namespace_and_all_its_rows_are_gone_in_two_seconds(product: Stack) -> None:
    # given a namespace with two images
    before = rows(product)
    namespace = api(product, "POST", "/namespaces", name="doomed")
    push(product, "doomed/one", "a", "b", "c")
    push(product, "doomed/two", "a")

    # when it is deleted, then its name is free at once, and its rows are soon deleted
    delete(product, namespace["id"])
    began = time.monotonic()
    again = api(product, "POST", "/namespaces", name="doomed")
    wait_until(lambda: rows(product)["catalog_image"] == before["catalog_image"], timeout=5)
    wait_until(lambda: rows(product)["namespaces_namespace"] == before["namespaces_namespace"] + 1, timeout=5)
    assert time.monotonic() - began < 4  # two, with a margin for a slow machine
    delete(product, again["id"])
    wait_until(lambda: rows(product) == before, timeout=5)


def test_a_deletion_continues_after_its_worker_was_killed(product: Stack) -> None:
    # given a namespace with so many rows that deleting it takes a while
    before = rows(product)
    namespace = api(product, "POST", "/namespaces", name="large")
    push(product, "large/app", "latest")
    product.manage("shell", "-c", FILL)

    # when the worker is killed after some rows were deleted
    delete(product, namespace["id"])
    wait_until(lambda: count(product, "catalog_manifest") < 15_000, timeout=20)
    os.kill(main_process(product, "worker"), signal.SIGKILL)
    assert count(product, "catalog_manifest") > before["catalog_manifest"]

    # then the next one completes the deletion
    wait_until(lambda: serves(product, "worker"), timeout=10)
    wait_until(lambda: rows(product) == before, timeout=60)


def stop_between_writes(product: Stack, pid: int) -> None:
    """Stop a process while it neither writes to SQLite nor waits to, because this would block all writers."""
    for _ in range(100):
        freeze(pid)
        if all(_is_free(product.state_dir / f"registry.sqlite3-{name}") for name in ("turn", "next")):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError("it was writing all the time")


def _is_free(file: Path) -> bool:
    if not file.exists():
        return True
    with file.open() as opened, suppress(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def test_a_deletion_without_a_worker_is_completed_after_the_next_start(product: Stack) -> None:
    # given a worker that cannot run, and a deletion
    before = rows(product)
    namespace = api(product, "POST", "/namespaces", name="waiting")
    push(product, "waiting/app", "latest")
    stop_between_writes(product, main_process(product, "worker"))
    delete(product, namespace["id"])
    product.kill()

    # when the product is restarted, then the deletion is completed, even if its message is lost
    product.start()
    wait_until(lambda: rows(product) == before, timeout=5)


@pytest.mark.only_on("sqlite")
def test_all_threads_of_bulk_tasks_have_a_higher_nice_value(product: Stack) -> None:
    def nice_values(queue: str) -> set[int]:
        pid = (product.state_dir / "run" / f"worker-{queue}.pid").read_text(encoding="ascii").strip()
        threads = Path("/proc", pid, "task").iterdir()
        return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads}

    usual = os.getpriority(os.PRIO_PROCESS, main_process(product, "data"))
    assert nice_values("fast") == {usual}
    assert nice_values("bulk") == {min(usual + 10, 19)}


@pytest.mark.only_on("sqlite")
def test_unreadable_messages_are_discarded(product: Stack) -> None:
    # given a broker folder with incomplete messages and a draft
    product.stop()
    folder = product.state_dir / "broker"
    for queue in ("fast", "bulk", "stowage"):
        (folder / queue).mkdir(parents=True, exist_ok=True)
        for number in range(50):
            (folder / queue / f"{number:020d}_x.msg").write_text('{"half": ', encoding="utf-8")
    (folder / "fast" / "1_x.draft").touch()

    # when the product is started, then it works, and the folder is empty again
    product.start()
    assert serves(product, "worker")
    wait_until(lambda: messages(product) == [], timeout=5)
    assert "Traceback" not in product.log


@pytest.mark.only_on("sqlite")
def test_messages_do_not_accumulate(product: Stack) -> None:
    for number in range(10):
        delete(product, api(product, "POST", "/namespaces", name=f"short-lived-{number}")["id"])
    wait_until(lambda: messages(product) == [], timeout=10)
    assert {entry.name for entry in product.state_dir.iterdir()} >= {"broker", "run"}


ANSWER_TIME = (
    2.0  # seconds; a request takes milliseconds, and a client of a broker times out after at least 3 s
)


def delete_at_once(stack: Stack, namespace_id: object) -> None:
    began = time.monotonic()
    delete(stack, namespace_id)
    assert time.monotonic() - began < ANSWER_TIME


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.mark.only_on("postgresql")
def test_a_redis_that_hangs_delays_no_request(make_stack: Callable[..., Stack], own_redis: Redis) -> None:
    # given a product whose Redis accepts connections and does not respond
    stack = make_stack(REGISTRY_REDIS_URL=own_redis.url()).start()
    namespaces = [api(stack, "POST", "/namespaces", name=f"doomed-{number}") for number in range(3)]
    ours = descendants(os.getpid())
    server = next(pid for pid, command in ours.items() if f"127.0.0.1:{own_redis.port}" in command)
    freeze(server)

    # when objects are deleted, then each response comes at once
    for namespace in namespaces:
        delete_at_once(stack, namespace["id"])

    # and the deletions are completed within a minute of its return
    time.sleep(8)  # long enough for every connection to time out
    os.kill(server, signal.SIGCONT)
    wait_until(lambda: count(stack, "namespaces_namespace") == 0, timeout=60)
    stack.stop()


@pytest.mark.only_on("postgresql")
def test_a_redis_without_free_memory_fails_no_request(
    make_stack: Callable[..., Stack], own_redis: Redis
) -> None:
    # given a product whose Redis has no memory left
    stack = make_stack(REGISTRY_REDIS_URL=own_redis.url()).start()
    namespace = api(stack, "POST", "/namespaces", name="doomed")
    with redis.Redis.from_url(own_redis.url()) as client:
        client.config_set("maxmemory", "1")

        # when a namespace is deleted, then the response is as usual
        delete_at_once(stack, namespace["id"])
        time.sleep(2)  # The message is sent again meanwhile.

        # and the deletion is completed within a minute after memory was freed
        client.config_set("maxmemory", "0")
    wait_until(lambda: count(stack, "namespaces_namespace") == 0, timeout=60)
    stack.stop()


@pytest.mark.only_on("postgresql")
def test_a_redis_that_is_stopped_fails_no_request(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    # given a product whose Redis was stopped
    with running_redis(tmp_path / "first") as server:
        stack = make_stack(REGISTRY_REDIS_URL=server.url()).start()
        namespace = api(stack, "POST", "/namespaces", name="doomed")

    # when a namespace is deleted, then the response is as usual
    delete_at_once(stack, namespace["id"])
    time.sleep(2)  # The message is sent again meanwhile.

    # and the deletion is completed within a minute of its start
    with running_redis(tmp_path / "second", port=server.port):
        wait_until(lambda: count(stack, "namespaces_namespace") == 0, timeout=60)
        stack.stop()


@pytest.mark.only_on("sqlite")
def test_a_full_disk_of_the_file_broker_fails_no_request(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    # given a product whose file broker is on a full disk
    with small_disk(tmp_path / "disk", mib=1) as disk:
        stack = make_stack(REGISTRY_REDIS_URL="")
        stack.state_dir.mkdir(parents=True, exist_ok=True)
        (stack.state_dir / "broker").symlink_to(disk)
        stack.start()
        namespace = api(stack, "POST", "/namespaces", name="doomed")
        filler = disk / "filler"
        with suppress(OSError):
            filler.write_bytes(b"x" * 2_000_000)

        # when a namespace is deleted, then the response is as usual
        delete_at_once(stack, namespace["id"])
        time.sleep(2)  # The message is sent again meanwhile.

        # and the deletion is completed within a minute after space was freed
        filler.unlink()
        wait_until(lambda: count(stack, "namespaces_namespace") == 0, timeout=60)
        stack.stop()


@pytest.mark.only_on("sqlite")
def test_a_worker_without_up_stops_on_sigterm(make_stack: Callable[..., Stack]) -> None:
    # given a worker as a container runs it
    stack = make_stack()
    with subprocess.Popen(
        [sys.executable, "manage.py", "serve", "worker"], cwd=ROOT, env=stack.environment
    ) as worker:
        sign = stack.state_dir / "run" / "worker.pid"
        wait_until(sign.exists, timeout=20)

        # when it is stopped
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)

    # then it ends, and deletes its pid file
    assert worker.returncode == 0
    assert time.monotonic() - began < 5
    assert not sign.exists()


@pytest.mark.only_on("postgresql")
def test_a_worker_stops_while_a_target_of_replication_does_not_respond(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    # given a rule whose target accepts connections and never responds
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as roles:
        stack = make_stack(REGISTRY_EGRESS_ALLOW="127.0.0.1").start()
        namespace = api(stack, "POST", "/namespaces", name="mirrored")["id"]
        target = replicate(
            stack, "/targets", name="silent", url=f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        rule = replicate(
            stack,
            "/rules",
            name="all",
            direction="pull",
            target_id=target["id"],
            namespace_id=namespace,
            repositories=["team/app"],
        )
        stack.stop()

        # when its execution waits in a worker that runs alone, and the worker is stopped
        for role in ("control", "worker"):
            log = tmp_path / f"{role}.log"
            worker = roles.enter_context(running_role(role, stack.environment, log=log))
        wait_until(lambda: status_of(stack.control_address, "/readyz") == 200)
        replicate(stack, f"/rules/{rule['id']}/run")
        silent.settimeout(30)
        connection, _ = silent.accept()
        began = time.monotonic()
        assert worker.stop(timeout=30) == 0

        # then it ends within 10 seconds
        assert time.monotonic() - began < 10
        connection.close()


def replicate(stack: Stack, path: str, **body: object) -> dict[str, object]:
    """Send a POST to the replication API."""
    response = httpx.post(
        f"http://{stack.control_address}/replication/v1beta1/regions/fr-par{path}",
        headers={"X-Auth-Token": stack.credentials.secret_key},
        json=body or None,
        timeout=30,
    )
    assert response.status_code == 200, response.text
    found: dict[str, object] = response.json()
    return found
