"""A second registry, and an owner's key, namespace and target for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import override_settings

from registry_control.common import pace
from registry_control.common.store import blob_store
from registry_control.namespaces.models import Namespace
from registry_control.replication.models import Target
from registry_control.replication.remote import registries
from registry_data.client.egress import EgressPolicy
from registry_data.client.registry import RemoteRegistry
from registry_data.storage.base import BlobStore
from tests.factories import TestKey, make_key, make_namespace
from tests.integration.replication.scene import make_target
from tests.services.registries import running_registry

_HERE = Path(__file__).parent
LOCAL = EgressPolicy.parse("127.0.0.0/8")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a registry of another project, which `make tools` installs."""
    for item in items:
        if "peer" in getattr(item, "fixturenames", ()) and item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.clients)


@pytest.fixture(autouse=True)
def _local_targets() -> Iterator[None]:
    with override_settings(EGRESS=LOCAL):
        yield
    registries.close_idle()


@pytest.fixture(autouse=True)
def _no_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in this process does not give way: it is other tests that load the machine."""
    monkeypatch.setattr(pace, "pause", lambda seconds: None)


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a distribution registry; each test uses names of its own."""
    with running_registry("docker-registry", tmp_path_factory.mktemp("peer")) as host:
        yield host


@pytest.fixture
def remote(peer: str) -> Iterator[RemoteRegistry]:
    """A client of the second registry."""
    with RemoteRegistry(f"http://{peer}", egress=LOCAL) as registry:
        yield registry


@pytest.fixture
def store() -> BlobStore:
    store = blob_store()
    store.check()
    return store


@pytest.fixture
def owner() -> TestKey:
    return make_key()


@pytest.fixture
def namespace(owner: TestKey) -> Namespace:
    return make_namespace(owner)


@pytest.fixture
def target(owner: TestKey, peer: str) -> Target:
    return make_target(owner, f"http://{peer}")
