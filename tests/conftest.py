"""Fixtures for every test: the database, running products, MinIO, a docker engine; the groups of tests."""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from django.core.management.color import Style
from django.core.management.commands import flush
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from tests import groups
from tests.oci_client import OciClient
from tests.services.docker import DockerEngine, running_docker
from tests.services.minio import S3Server, running_minio, running_versitygw
from tests.services.nginx import TlsProxy, make_tls_proxy
from tests.services.plugin import BACKING, Backing, requested_database
from tests.services.stack import STATE, Stack
from tests.tenants import Tenants

_SHOWN: Final = 6_000  # characters
_KEPT: Final = ("auth_permission", "django_content_type")  # rows of the migrations; no test changes them


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that depend on no database, and deselect those of the other database."""
    kept, deselected = groups.select(items, database=requested_database())
    items[:] = kept
    config.hook.pytest_deselected(items=deselected)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    before = groups.overloaded_seconds()
    try:
        yield
    finally:
        item.stash[groups.OVERLOADED] = groups.overloaded_seconds() - before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is slow without the marker; add the product's output to the report of a failure."""
    report = yield
    if report.passed and report.when == "call" and (problem := groups.too_slow(item, report.duration)):
        report.outcome, report.longrepr = "failed", problem
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Stack):
                report.sections.append(("Output of the product", value.log[-_SHOWN:]))
    return report


@pytest.fixture(scope="session", autouse=True)
def _cheap_password_hasher() -> Iterator[None]:
    """In this process only: a running product hashes as in production. Argon2 would take 0.1 s per user."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session", autouse=True)
def _flush_keeps_permissions() -> Iterator[None]:
    """Django's flush after each transactional test would delete all permissions and create them again."""

    def own_tables(style: Style, connection: BaseDatabaseWrapper, **options: bool) -> list[str]:
        names = connection.introspection.django_table_names(only_existing=True, include_views=False)
        return connection.ops.sql_flush(style, [name for name in names if name not in _KEPT], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", own_tables)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_list_of_static_files() -> Iterator[None]:
    """Each test client loads the middleware, and WhiteNoise would list all static files each time."""
    with override_settings(WHITENOISE_AUTOREFRESH=True):
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_tls_context() -> Iterator[None]:
    """Each `httpx.get` would read all certificates of the system, which takes 20 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def backing(pytestconfig: pytest.Config) -> Backing:
    """The servers and the folder of this process."""
    return pytestconfig.stash[BACKING]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(backing: Backing) -> None:
    """Give Django a migrated database: for SQLite a file, because one in memory has no second writer."""
    name = "tests" if backing.postgres else str(backing.folder / "tests.sqlite3")
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = name
    if backing.postgres:
        backing.create_migrated_database(name)
    else:
        backing.copy_database(Path(name))


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Use the database that is there. It is deleted with its server or folder."""
    return True


@pytest.fixture(scope="session")
def stack(backing: Backing) -> Iterator[Stack]:
    """A running product that tests share: each makes its own namespaces, none stops it."""
    folder = backing.folder / "stack"
    with Stack(folder, environment=backing.migrated_environment(folder / STATE)) as running:
        yield running


@pytest.fixture
def make_stack(backing: Backing, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes products for one test, `make_stack(REGISTRY_REGION="nl-ams").start()`, on a migrated database."""
    with ExitStack() as cleanup:

        def make(**environment: str) -> Stack:
            folder = tmp_path / f"stack-{len(list(tmp_path.iterdir()))}"
            made = Stack(folder, environment=backing.migrated_environment(folder / STATE) | environment)
            cleanup.push(made)  # stops it if it still runs
            return made

        yield make


@pytest.fixture
def make_new_stack(backing: Backing, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """The same on an empty database, for tests of the very first start."""
    with ExitStack() as cleanup:

        def make(**environment: str) -> Stack:
            folder = tmp_path / f"stack-{len(list(tmp_path.iterdir()))}"
            made = Stack(folder, environment=backing.fresh_environment() | environment)
            cleanup.push(made)  # stops it if it still runs
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
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A MinIO server: each test makes its own bucket."""
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A second implementation of S3: each test makes its own bucket."""
    with running_versitygw(tmp_path_factory.mktemp("versitygw")) as server:
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
