"""Several nodes from requirements.txt alone, on PostgreSQL, Redis and MinIO."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.oci_client import OciClient
from tests.production.conftest import Installation
from tests.services.docker import DockerEngine, build_image
from tests.services.stack import Credentials, Stack
from tests.services.waiting import wait_until
from tests.tenants import REGION

pytestmark = [
    pytest.mark.production,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

MakeNode = Callable[[], Stack]


def launch_three(make_node: MakeNode) -> list[Stack]:
    """Three nodes that are started concurrently on an empty database."""
    nodes = [make_node() for _ in range(3)]
    for node in nodes:
        node.launch()
    return [node.wait_until_ready() for node in nodes]


def first_credentials(nodes: list[Stack]) -> Credentials:
    """The credentials, which exactly one of the nodes has written."""
    (writer,) = [node for node in nodes if (node.state_dir / "credentials.json").exists()]
    return writer.credentials


def call(node: Stack, key: str, method: str, path: str, **body: object) -> httpx.Response:
    """Call the management API of a node."""
    return httpx.request(
        method,
        f"http://{node.control_address}{REGION}{path}",
        headers={"X-Auth-Token": key},
        json=body or None,
        timeout=30,
    )


def namespace(node: Stack, key: str, name: str) -> str:
    response = call(node, key, "POST", "/namespaces", name=name)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def delete_namespace(node: Stack, key: str, namespace_id: str) -> None:
    response = call(node, key, "DELETE", f"/namespaces/{namespace_id}")
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "deleting"


def is_gone(node: Stack, key: str, namespace_id: str) -> bool:
    return call(node, key, "GET", f"/namespaces/{namespace_id}").status_code == 404


def test_three_nodes_start_concurrently_share_their_state_and_survive_the_loss_of_one(
    make_node: MakeNode, docker: DockerEngine, tmp_path: Path
) -> None:
    # given three nodes that are started in the same second on an empty database
    nodes = launch_three(make_node)
    key = first_credentials(nodes).secret_key
    doomed = namespace(nodes[0], key, "doomed")
    namespace(nodes[0], key, "kept")

    # when docker pushes to one node, then it pulls the same image from another
    engine = docker.client()
    names = [f"{node.data_address}/doomed/app:1" for node in nodes]
    for name in names:
        engine("login", name.partition("/")[0], "--username", "x", "--password-stdin", stdin=key)
    build_image(engine, names[0], context=tmp_path / "context")
    engine("push", names[0])
    engine("rmi", "--force", names[0])
    engine("pull", names[1])
    assert engine("run", "--rm", "--network=none", names[1]).stdout == "hello from stowage\n"
    engine("rmi", "--force", names[1])

    # when the namespace is deleted on one node, then it is deleted on all of them
    delete_namespace(nodes[0], key, doomed)
    wait_until(lambda: all(is_gone(node, key, doomed) for node in nodes), timeout=60)

    # when a node is killed, then the others serve
    nodes[0].kill()
    with OciClient(nodes[1].data_address, key) as second, OciClient(nodes[2].data_address, key) as third:
        digest = second.push_image("kept/app", "1", b"layer")
        assert third.on("kept/app", "GET", "manifests/1").headers["docker-content-digest"] == digest
    also_doomed = namespace(nodes[1], key, "also-doomed")
    delete_namespace(nodes[2], key, also_doomed)
    wait_until(lambda: is_gone(nodes[1], key, also_doomed), timeout=60)


def test_without_redis_every_request_succeeds(make_node: MakeNode, installation: Installation) -> None:
    # given two nodes whose Redis is stopped
    nodes = [make_node().start(), make_node().start()]
    key = first_credentials(nodes).secret_key
    before = namespace(nodes[0], key, "before")
    installation.stop_redis()

    for node in nodes:
        # when clients push, pull and list
        during = namespace(node, key, f"during-{nodes.index(node)}")
        with OciClient(node.data_address, key) as client:
            digest = client.push_image("before/app", "1", b"layer")
            pulled = client.on("before/app", "GET", "manifests/1")
            listed = client.on("before/app", "GET", "tags/list")
        # then each response is as usual
        assert pulled.headers["docker-content-digest"] == digest
        assert listed.json()["tags"] == ["1"]
        for address in (node.control_address, node.data_address):
            assert httpx.get(f"http://{address}/healthz", timeout=30).status_code == 200
        # also one that creates work for the worker
        delete_namespace(node, key, during)
    assert call(nodes[1], key, "GET", f"/namespaces/{before}").json()["name"] == "before"
