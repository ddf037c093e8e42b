"""Fixtures of the tests with real clients."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.clients.cutting import Line
from tests.oci_client import digest_of, image_manifest
from tests.services.docker import DockerClient, build_image
from tests.tenants import LAYER, Tenants

LARGE: Final = 8_000_000  # bytes of the layer `large`
HALF: Final = LARGE // 2
WRONG: Final = "00000000-0000-4000-8000-000000000000"  # no key's secret
Build = Callable[[DockerClient, str], None]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build an image of several layers that prints hello, from a static busybox only."""

    def run(docker: DockerClient, name: str) -> None:
        build_image(docker, name, context=tmp_path / "context")

    return run


@pytest.fixture
def line(tenants: Tenants) -> Iterator[Line]:
    """The registry behind a proxy that can cut connections."""
    with Line(tenants.owner.host) as line:
        yield line


@pytest.fixture
def large() -> bytes:
    """A layer that is large enough to be cut: a tar file of one file."""
    return tar(os.urandom(LARGE))


def tar(content: bytes) -> bytes:
    """A layer with this content in the file `file`."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def push_image(tenants: Tenants, repository: str, tag: str, layer: bytes) -> str:
    """Push an image that engines can unpack, because they compare it with its config; return its digest."""
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    for data in (config, layer):
        tenants.owner.push_blob(repository, data)
    pushed = tenants.owner.put_manifest(repository, tag, image_manifest(config, [layer]))
    return str(pushed.headers["docker-content-digest"])


@pytest.fixture
def hidden(tenants: Tenants) -> tuple[str, str]:
    """A private image of another tenant, and one that does not exist: a caller may not tell them apart."""
    repository = tenants.strangers_repository()
    tenants.stranger.push_image(repository, "1", LAYER)
    return f"{tenants.owner.host}/{repository}:1", f"{tenants.owner.host}/there-is-no-such/namespace:1"
