"""What the real clients work with."""

import os
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile

import pytest

from tests.services.docker import DockerClient
from tests.services.tools import require_tool

Build = Callable[[DockerClient, str], None]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds an image of several layers that says hello, from nothing but a static busybox."""

    def run(docker: DockerClient, name: str) -> None:
        context = tmp_path / "context"
        context.mkdir(exist_ok=True)
        copyfile(require_tool("busybox"), context / "busybox")
        (context / "busybox").chmod(0o755)
        (context / "large").write_bytes(os.urandom(3_000_000))
        (context / "small").write_bytes(os.urandom(10))
        (context / "Dockerfile").write_text(
            "FROM scratch\nCOPY busybox /bin/busybox\nCOPY large /large\nCOPY small /small\n"
            'CMD ["/bin/busybox", "echo", "hello from stowage"]\n'
        )
        docker("build", "--quiet", "--network", "none", "--tag", name, str(context))

    return run
