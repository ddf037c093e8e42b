"""What every test may ask for: the chosen database, running products, a docker engine."""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import pytest
from django.conf import settings

from tests.oci_client import OciClient
from tests.services.docker import DockerEngine, running_docker
from tests.services.minio import S3Server, running_minio, running_versitygw
from tests.services.nginx import TlsProxy, make_tls_proxy
from tests.services.plugin import BACKING, Backing
from tests.services.stack import Stack
from tests.tenants import Tenants

_SHOWN: Final = 6_000  # characters


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside what a failing test saw, show what the product said."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Stack):
                report.sections.append(("Output of the product", value.log[-_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def backing(pytestconfig: pytest.Config) -> Backing:
    """The servers and the folder of this run."""
    return pytestconfig.stash[BACKING]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(backing: Backing) -> None:
    """SQLite in a file, as users have it: Django's default for tests, memory, knows no two writers."""
    if backing.postgres is None:
        settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(backing.folder / "tests.sqlite3")


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The database goes with its server and folder; dropping it first would wait for open connections."""
    return True


@pytest.fixture(scope="session")
def stack(backing: Backing) -> Iterator[Stack]:
    """The product, running, shared by all tests: make your own namespaces, stop and kill nothing."""
    with Stack(backing.folder / "stack", environment=backing.fresh_environment()) as running:
        yield running


@pytest.fixture
def make_stack(backing: Backing, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Products of the test's own, `make_stack(REGISTRY_REGION="nl-ams").start()`, to kill at will."""
    with ExitStack() as cleanup:

        def make(**environment: str) -> Stack:
            folder = tmp_path / f"stack-{len(list(tmp_path.iterdir()))}"
            made = Stack(folder, environment={**backing.fresh_environment(), **environment})
            cleanup.push(made)  # stops it, if it still runs
            return made

        yield make


@pytest.fixture
def tls_proxy(tmp_path: Path) -> TlsProxy:
    """A proxy with TLS that does not run yet: start a product with its `environment`, then `forwarding()`."""
    return make_tls_proxy(tmp_path / "proxy")


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerEngine]:
    """A docker engine without images."""
    with running_docker() as engine:
        yield engine


@pytest.fixture(scope="session")
def minio(backing: Backing) -> Iterator[S3Server]:
    """A MinIO server: make a bucket of your own."""
    with running_minio(backing.folder / "minio") as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(backing: Backing) -> Iterator[S3Server]:
    """An S3 server by somebody else: make a bucket of your own."""
    with running_versitygw(backing.folder / "versitygw") as server:
        yield server


@pytest.fixture(scope="session")
def tenants(stack: Stack) -> Iterator[Tenants]:
    """An owner with the credentials of the first start, a stranger from elsewhere, and nobody."""
    credentials = stack.credentials
    created = stack.manage(
        "create_key", f"other-{uuid4().hex[:8]}", "robot", "--permission-set", "ContainerRegistryFullAccess"
    )
    host = credentials.registry_host
    with (
        httpx.Client(
            base_url=credentials.control_url, headers={"X-Auth-Token": credentials.secret_key}, timeout=30
        ) as control,
        OciClient(host, credentials.secret_key) as owner,
        OciClient(host, json.loads(created.stdout)["secret_key"]) as stranger,
        OciClient(host, None) as anonymous,
    ):
        yield Tenants(
            control=control,
            owner=owner,
            stranger=stranger,
            anonymous=anonymous,
            manage=lambda *arguments: stack.manage(*arguments).stdout,
            organization="default",
            organization_id=credentials.organization_id,
        )
