"""Several nodes from requirements.txt alone, on PostgreSQL, Redis and MinIO."""

from collections.abc import Callable

import httpx
import pytest

from tests.oci_client import OciClient
from tests.production.conftest import Installation
from tests.services.stack import Credentials, Stack
from tests.tenants import REGION

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(600)]

MakeNode = Callable[[], Stack]


def first_credentials(nodes: list[Stack]) -> Credentials:
    """The credentials that exactly one of the nodes has written."""
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
    answer = call(node, key, "POST", "/namespaces", name=name)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def delete_namespace(node: Stack, key: str, namespace_id: str) -> None:
    answer = call(node, key, "DELETE", f"/namespaces/{namespace_id}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "deleting"


def test_without_redis_every_request_is_answered(make_node: MakeNode, installation: Installation) -> None:
    # given two nodes that have lost their Redis
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
        # then each request is answered as always
        assert pulled.headers["docker-content-digest"] == digest
        assert listed.json()["tags"] == ["1"]
        for address in (node.control_address, node.data_address):
            assert httpx.get(f"http://{address}/healthz", timeout=30).status_code == 200
        # also one that gives the worker something to do
        delete_namespace(node, key, during)
    assert call(nodes[1], key, "GET", f"/namespaces/{before}").json()["name"] == "before"
