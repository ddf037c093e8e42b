"""Nodes that are started in the same second on an empty database, from requirements.txt alone."""

from collections.abc import Callable

import pytest

from tests.oci_client import OciClient
from tests.production.test_nodes import call, delete_namespace, namespace
from tests.services.nodes import credentials_of, started_together
from tests.services.stack import Stack
from tests.services.waiting import wait_until

pytestmark = [
    pytest.mark.production,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def test_three_nodes_push_pull_and_delete_and_one_is_killed(make_node: Callable[[], Stack]) -> None:
    # given three nodes that start together
    nodes = [make_node() for _ in range(3)]
    with started_together(nodes):
        key = credentials_of(nodes).secret_key
        shared = namespace(nodes[0], key, "shared")

        # when an image is pushed to one node, then the others serve it
        with OciClient(nodes[0].data_address, key) as client:
            digest = client.push_image("shared/app", "latest", b"a layer")
        for node in nodes[1:]:
            with OciClient(node.data_address, key) as client:
                pulled = client.on("shared/app", "GET", "manifests/latest")
            assert pulled.headers["docker-content-digest"] == digest

        # and when one is killed, then the others continue, and one of their workers deletes the namespace
        nodes[0].kill()
        delete_namespace(nodes[1], key, shared)
        wait_until(lambda: call(nodes[2], key, "GET", f"/namespaces/{shared}").status_code == 404, timeout=60)
        with OciClient(nodes[2].data_address, key) as client:
            assert client.on("shared/app", "GET", "manifests/latest").status_code == 401  # ADR 4
