"""Several nodes on one PostgreSQL, one Redis and one storage: concurrent starts and the loss of one node."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.integration.standalone.product import REGION, count
from tests.oci_client import OciClient
from tests.services.nodes import credentials_of, started_together
from tests.services.plugin import Backing
from tests.services.stack import Stack
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.only_on("postgresql")]
MakeNodes = Callable[[dict[str, str]], list[Stack]]

NODES = 3


@pytest.fixture
def make_nodes(tmp_path: Path) -> MakeNodes:
    """Create nodes of one installation, which share these servers; they are not started."""

    def make(servers: dict[str, str]) -> list[Stack]:
        shared = servers | {
            "REGISTRY_STORAGE_URL": f"file://{tmp_path}/blobs",
            "REGISTRY_SECRET_KEY": "a key that all nodes of this installation share",
        }
        return [Stack(tmp_path / f"node-{number}", environment=shared) for number in range(NODES)]

    return make


def test_nodes_that_start_concurrently_on_an_empty_database_all_serve(
    make_nodes: MakeNodes, backing: Backing
) -> None:
    # given nodes that start in the same second on an empty database
    nodes = make_nodes(backing.fresh_environment())
    with started_together(nodes):
        # then one of them has created the first credentials
        credentials = credentials_of(nodes)
        assert count(nodes[0], "identity_user") == count(nodes[0], "identity_apikey") == 1

        # and they are valid on every node: push to one, pull from the others
        control = [f"http://{node.environment['REGISTRY_CONTROL_ADDR']}{REGION}" for node in nodes]
        key = {"X-Auth-Token": credentials.secret_key}
        namespace = httpx.post(f"{control[0]}/namespaces", headers=key, json={"name": "shared"}).json()
        with OciClient(nodes[0].environment["REGISTRY_DATA_ADDR"], credentials.secret_key) as client:
            digest = client.push_image("shared/app", "latest", b"a layer")
        for node in nodes[1:]:
            with OciClient(node.environment["REGISTRY_DATA_ADDR"], credentials.secret_key) as client:
                pulled = client.on("shared/app", "GET", "manifests/latest")
            assert pulled.headers["docker-content-digest"] == digest

        # and when a node is killed, the others serve
        nodes[0].kill()
        deleted = httpx.delete(f"{control[1]}/namespaces/{namespace['id']}", headers=key)
        assert deleted.status_code == 200
        wait_until(lambda: count(nodes[1], "namespaces_namespace") == 0, timeout=60)


def test_nodes_that_start_concurrently_on_an_older_database_all_serve(
    make_nodes: MakeNodes, backing: Backing, tmp_path: Path
) -> None:
    # given a database of a release without rows of workers
    nodes = make_nodes(backing.migrated_environment(tmp_path))
    nodes[0].manage("migrate", "serving", "zero")

    # when all nodes are started, then they serve, and one has created the first credentials
    with started_together(nodes):
        credentials_of(nodes)
        assert count(nodes[0], "serving_installation") == 1


def test_a_node_with_another_secret_key_is_refused(
    make_nodes: MakeNodes, backing: Backing, tmp_path: Path
) -> None:
    # given a running node
    first, second, _ = make_nodes(backing.migrated_environment(tmp_path))
    with first:
        # when another one is started with another key, as a whole or as one role
        second.environment.pop("REGISTRY_SECRET_KEY")
        for command in (["up"], ["serve", "control"], ["serve", "data"], ["serve", "worker"]):
            done = second.manage(*command, check=False)

            # then it exits with one line
            assert done.returncode == 1
            assert done.stderr.startswith("stowage: REGISTRY_SECRET_KEY: this database was set up ")
            assert done.stderr.count("\n") == 1
        assert not (second.state_dir / "credentials.json").exists()

    # and an operator who has lost the key can replace it, and names the file that any command has generated
    refused = second.manage("replace_secret_key", check=False)
    assert refused.returncode == 1
    assert "REGISTRY_SECRET_KEY_FILE=" in refused.stderr
    second.environment["REGISTRY_SECRET_KEY_FILE"] = str(second.state_dir / "secret_key")
    second.manage("replace_secret_key")
    with second:
        assert "contains no valid key" in second.log
