"""deploy/compose on a Docker engine: images that are built, containers that are confined, TLS."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.compose import Installation, make_installation
from tests.services.docker import DockerEngine, build_image
from tests.services.images import build_images
from tests.services.waiting import wait_until
from tests.tenants import REGION

pytestmark = [
    pytest.mark.production,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

# Blobs of a deleted image are deleted within seconds, and not after a day. Replication may connect to
# the networks of containers.
SETTINGS = {
    "REGISTRY_GC_GRACE": "1",
    "REGISTRY_RECYCLE_BIN": "0",
    "REGISTRY_LEASE": "300",
    "REGISTRY_EGRESS_ALLOW": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
}
REPLICATION = "/replication/v1beta1/regions/fr-par"


@pytest.fixture(scope="module")
def engine(docker: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> DockerEngine:
    """The engine with every image that compose.yaml names."""
    build_images(docker.client(), tmp_path_factory.mktemp("images"))
    return docker


@pytest.fixture(scope="module")
def installation(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("one") / "deploy"
    made = make_installation("one", folder, engine.client(), **SETTINGS)
    try:
        made.start()
        yield made
    finally:
        made.remove()


def namespace(installation: Installation, name: str) -> str:
    response = installation.call("POST", f"{REGION}/namespaces", name=name)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def test_a_second_start_changes_no_secret(installation: Installation) -> None:
    key, before = installation.secret_key, installation.compose("ps", "--quiet").stdout
    installation.start()
    assert installation.read("bootstrap", "/run/secrets/bootstrap/secret_key") == key
    assert installation.compose("ps", "--quiet").stdout == before  # no service was created again


def test_no_container_runs_as_root_or_has_a_capability(
    installation: Installation, engine: DockerEngine
) -> None:
    docker = engine.client()
    containers = installation.compose("ps", "--quiet").stdout.split()
    assert len(containers) == 9
    for container in containers:
        status = docker("exec", container, "cat", "/proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] != "0"
        assert int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        written = docker("exec", container, "touch", "/file", check=False)
        assert written.returncode != 0


def test_docker_pushes_and_pulls_through_tls_and_a_policy_decides_the_next_pull(
    installation: Installation, engine: DockerEngine, tmp_path: Path
) -> None:
    # given an image that docker has pushed into a private namespace
    owner, anonymous = engine.client(), engine.client()
    image = f"{installation.registry}/tour/hello:1"
    space = namespace(installation, "tour")
    login = ("login", installation.registry, "--username", "x", "--password-stdin")
    assert "Login Succeeded" in owner(*login, stdin=installation.secret_key).stdout
    build_image(owner, image, context=tmp_path / "context")
    owner("push", image)
    owner("rmi", "--force", image)
    owner("pull", image)
    assert owner("run", "--rm", "--network=none", image).stdout == "hello from stowage\n"

    # when the policy changes, then the next pull follows it
    assert anonymous("pull", image, check=False).returncode != 0
    installation.call("PATCH", f"{REGION}/namespaces/{space}", is_public=True)
    anonymous("pull", image)
    installation.call("PATCH", f"{REGION}/namespaces/{space}", is_public=False)
    assert anonymous("pull", image, check=False).returncode != 0
    owner("rmi", "--force", image)


def test_http_is_redirected_and_other_names_reach_the_control_plane(installation: Installation) -> None:
    environment = (installation.folder / "compose" / ".env").read_text(encoding="utf-8")
    port = next(line for line in environment.splitlines() if line.startswith("STOWAGE_HTTP_PORT="))
    answer = httpx.get(f"http://localhost:{port.partition('=')[2]}/admin/", follow_redirects=False)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://localhost:{installation.https_port}/admin/"
    # on the port of both planes, the registry has a name
    url = f"https://127.0.0.1:{installation.https_port}/v2/"
    with httpx.Client(verify=installation.tls) as client:
        for host, status in (("registry.localhost", 401), ("localhost", 404)):
            headers = {"Host": f"{host}:{installation.https_port}"}
            assert client.get(url, headers=headers, extensions={"sni_hostname": host}).status_code == status


def test_the_bytes_of_a_deleted_image_disappear_from_minio(installation: Installation) -> None:
    # given an image of 20 MB
    space = namespace(installation, "garbage")
    before = installation.stored_bytes()
    with installation.client() as client:
        client.push_image("garbage/large", "1", os.urandom(20_000_000))
    assert installation.stored_bytes() > before + 20_000_000
    # when it is deleted, then its bytes are deleted 30 s after the grace period at the latest
    images = installation.call("GET", f"{REGION}/images?namespace_id={space}").json()["images"]
    assert installation.call("DELETE", f"{REGION}/images/{images[0]['id']}").status_code == 200
    wait_until(lambda: installation.stored_bytes() < before + 1_000_000, timeout=45)


def test_clients_continue_when_a_data_node_and_a_worker_are_killed(installation: Installation) -> None:
    namespace(installation, "kept")
    doomed = namespace(installation, "doomed")

    def push(number: int) -> int:
        """Push and pull as clients do, which repeat a request that a killed node left without a response."""
        failures = 0
        while True:
            try:
                with installation.client() as client:
                    client.push_image("kept/app", str(number), os.urandom(100_000))
                    assert client.pull_status("kept/app", str(number)) == 200
            except (AssertionError, httpx.HTTPError):
                failures += 1
                assert failures < 3
            else:
                return failures

    # when a node of each kind is killed while four clients push
    with ThreadPoolExecutor(4) as clients:
        pushes = [clients.submit(push, number) for number in range(40)]
        time.sleep(1)
        installation.compose("kill", "data-1", "worker-1")
        failures = sum(push.result() for push in pushes)
    # then only requests that the killed node was processing had to be repeated
    assert failures <= 4
    with installation.client() as client:
        assert len(client.on("kept/app", "GET", "tags/list").json()["tags"]) == 40
    # and the other worker works
    assert installation.call("DELETE", f"{REGION}/namespaces/{doomed}").status_code == 200
    is_gone = f"{REGION}/namespaces/{doomed}"
    wait_until(lambda: installation.call("GET", is_gone).status_code == 404, timeout=60)
    # and both start again
    installation.start()
    assert len(installation.compose("ps", "--quiet").stdout.split()) == 9


@pytest.fixture
def other(engine: DockerEngine, installation: Installation, tmp_path: Path) -> Iterator[Installation]:
    """An installation that containers of the first one reach at the machine's address in their network."""
    gateway = installation.gateway("egress")
    settings = {"STOWAGE_BIND": "0.0.0.0", "STOWAGE_REGISTRY_NAME": gateway}
    made = make_installation("two", tmp_path / "deploy", engine.client(), host=gateway, **settings)
    try:
        made.start()
        yield made
    finally:
        made.remove()


def replicate(installation: Installation, rule: str) -> dict[str, Any]:
    """Run a rule and return the execution at its end."""
    run = installation.call("POST", f"{REPLICATION}/rules/{rule}/run")
    assert run.status_code == 200, run.text
    execution = f"{REPLICATION}/executions/{run.json()['id']}"
    ends = ("succeeded", "failed", "cancelled")
    wait_until(lambda: installation.call("GET", execution).json()["status"] in ends, timeout=120)
    return dict(installation.call("GET", execution).json())


def test_two_installations_replicate(installation: Installation, other: Installation) -> None:
    # given an image here, and the other installation as a target
    space = namespace(installation, "source")
    namespace(other, "copies")
    with installation.client() as client:
        digest = client.push_image("source/app", "1", os.urandom(5_000_000))
    target = installation.call(
        "POST",
        f"{REPLICATION}/targets",
        name="other",
        url=f"https://{other.registry}",
        username="nologin",
        password=other.secret_key,
        insecure=True,  # its certificate is self-signed
    )
    assert target.status_code == 200, target.text
    rule = installation.call(
        "POST",
        f"{REPLICATION}/rules",
        name="copy",
        direction="push",
        target_id=target.json()["id"],
        namespace_id=space,
        repositories=["*"],
        destination="copies/{image}",
    )
    assert rule.status_code == 200, rule.text

    # when the rule runs, then the other one has the same image
    execution = replicate(installation, rule.json()["id"])
    assert (execution["status"], execution["images_done"]) == ("succeeded", 1), execution
    with other.client() as client:
        pulled = client.on("copies/app", "GET", "manifests/1")
        assert pulled.headers["docker-content-digest"] == digest
        assert (
            client.on("copies/app", "GET", f"blobs/{pulled.json()['layers'][0]['digest']}").status_code == 200
        )
    # and a second run sends nothing
    assert replicate(installation, rule.json()["id"])["bytes_done"] == 0
