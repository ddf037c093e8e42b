"""S3 servers: MinIO, and versitygw over a folder as an independent implementation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final
from urllib.parse import urlencode
from uuid import uuid4

import urllib3

from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.tools import require_tool

_START_TIMEOUT: Final = 30.0  # seconds
_ACCESS: Final = "stowage"
_SECRET: Final = "secret-of-the-tests"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server."""

    name: str
    port: int
    child: Child

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, bucket: str | None = None, **options: str) -> str:
        """A value for REGISTRY_STORAGE_URL. The bucket need not exist; by default its name is new."""
        query = urlencode({"secure": "0", **options})
        return f"s3://{_ACCESS}:{_SECRET}@{self.endpoint}/{bucket or f'b-{uuid4().hex[:12]}'}?{query}"

    def redirecting_url(self) -> str:
        """The same with redirects to the server, under another host name than the registry's."""
        return self.url(redirect="1", public=f"http://localhost:{self.port}")

    def answers(self) -> bool:
        """Whether it accepts requests. It responds 403 to this one, which is not signed."""
        try:
            response = urllib3.request("GET", f"http://{self.endpoint}/", retries=False, timeout=2)
        except urllib3.exceptions.HTTPError:
            return False
        return response.status in (200, 403)


@contextmanager
def running_minio(folder: Path, *, port: int | None = None) -> Iterator[S3Server]:
    """Start MinIO on one folder, new or used, and stop it at the end. Skips the test if it is not installed.

    Raises:
        ServiceError: it does not start.
    """
    environment = {"MINIO_ROOT_USER": _ACCESS, "MINIO_ROOT_PASSWORD": _SECRET, "HOME": str(folder)}
    with _running(
        "minio",
        lambda port: [
            "server",
            "--quiet",
            "--address",
            f"127.0.0.1:{port}",
            "--console-address",
            f"127.0.0.1:{free_port()}",
            str(folder / "data"),
        ],
        folder,
        environment,
        port or free_port(),
    ) as server:
        yield server


@contextmanager
def running_versitygw(folder: Path) -> Iterator[S3Server]:
    """Start versitygw on one folder, and stop it at the end. Skips the test if it is not installed.

    Raises:
        ServiceError: it does not start.
    """
    environment = {"ROOT_ACCESS_KEY": _ACCESS, "ROOT_SECRET_KEY": _SECRET}
    with _running(
        "versitygw",
        lambda port: [
            "--quiet",
            "--keep-alive",
            "--port",
            f"127.0.0.1:{port}",
            "posix",
            str(folder / "data"),
        ],
        folder,
        environment,
        free_port(),
    ) as server:
        yield server


@contextmanager
def _running(
    name: str,
    arguments: Callable[[int], list[str]],
    folder: Path,
    environment: Mapping[str, str],
    port: int,
) -> Iterator[S3Server]:
    program = require_tool(name)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    child = Child(
        [str(program), *arguments(port)],
        log=folder / f"{name}.log",
        stop_signal=Signals.SIGTERM,
        env=environment,
        cwd=folder,
    )
    server = S3Server(name, port, child)
    try:
        child.wait_until(server.answers, timeout=_START_TIMEOUT)
        yield server
    finally:
        child.stop()
