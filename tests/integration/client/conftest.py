"""A registry that a test scripts, and a service of the internal network that nothing may connect to."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from registry_data.client.egress import EgressPolicy
from registry_data.client.registry import RemoteRegistry
from tests.services.scripted import Script, running_script

REGISTRY: Final = "127.0.0.2"  # the only address that the client may connect to
STORAGE: Final = "127.0.0.3"  # another origin to which it may


@pytest.fixture
def registry() -> Iterator[Script]:
    with running_script(REGISTRY) as script:
        yield script


@pytest.fixture
def storage() -> Iterator[Script]:
    with running_script(STORAGE) as script:
        yield script


@pytest.fixture
def internal() -> Iterator[Script]:
    """A service that must not receive a request: its address is not allowed."""
    with running_script("127.0.0.1") as script:
        yield script
        assert script.lines() == []


@pytest.fixture
def connect(registry: Script) -> Iterator[Callable[..., RemoteRegistry]]:
    """Creates a client of the registry: `connect(username="u", password="p")`."""
    with ExitStack() as cleanup:

        def create(username: str = "", password: str = "") -> RemoteRegistry:
            return cleanup.enter_context(
                RemoteRegistry(
                    f"http://{registry.host}",
                    username=username,
                    password=password,
                    egress=EgressPolicy.parse(f"{REGISTRY}, {STORAGE}"),
                )
            )

        yield create


@pytest.fixture
def remote(connect: Callable[..., RemoteRegistry]) -> RemoteRegistry:
    """An anonymous client of the registry."""
    return connect()
