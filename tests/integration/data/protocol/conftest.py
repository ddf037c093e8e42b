"""Fixtures of the protocol tests: repositories with content, and raw connections."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.integration.data.protocol.wire import Wire
from tests.oci_client import digest_of
from tests.tenants import LAYER, Tenants

CONFIG = b'{"architecture":"amd64","os":"linux"}'


@dataclass(frozen=True)
class Pushed:
    """A repository with the image `latest` of CONFIG and LAYER."""

    name: str
    manifest: str
    layer: str = digest_of(LAYER)
    config: str = digest_of(CONFIG)

    @property
    def base(self) -> str:
        return f"/v2/{self.name}"


@pytest.fixture(scope="module")
def image(tenants: Tenants) -> Pushed:
    """A shared image for reading; tests that change something push their own."""
    name = tenants.repository()
    return Pushed(name, tenants.owner.push_image(name, "latest", LAYER))


@pytest.fixture
def repository(tenants: Tenants) -> str:
    """A new repository that has the blobs CONFIG and `{}`."""
    name = tenants.repository()
    for data in (CONFIG, b"{}"):
        tenants.owner.push_blob(name, data)
    return name


@pytest.fixture
def wire(tenants: Tenants) -> Iterator[Callable[..., Wire]]:
    """Opens connections: `wire()` as the owner, `wire(None)` anonymously, `wire(secret)` with another key."""
    with ExitStack() as cleanup:
        yield lambda secret=tenants.owner.secret: cleanup.enter_context(Wire(tenants.owner.host, secret))
