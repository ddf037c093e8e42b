"""A running product whose database has been filled, and one connection to each of its planes."""

import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.growth.tables import Size
from tests.services.stack import ROOT, Stack

_ROBOT: Final = ("create_key", "default", "growth", "--permission-set", "ContainerRegistryFullAccess")


@dataclass(frozen=True, slots=True)
class Call:
    """A request. Paths of the management API begin with /registry/, all others are the data plane's."""

    method: str
    path: str
    body: bytes = b""
    content_type: str = "application/octet-stream"
    expected: int = 200


@dataclass(frozen=True, slots=True)
class Response:
    """A response, and the time from the first byte sent to the last one received."""

    seconds: float
    body: bytes
    headers: Mapping[str, str]


class Side:
    """One of the two registries that are compared."""

    def __init__(self, stack: Stack, secret: str, size: Size) -> None:
        self.size: Final = size
        credentials = stack.credentials
        basic = b64encode(f"growth:{secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "X-Auth-Token": secret}
        self._data = HTTPConnection(credentials.registry_host, timeout=300)
        self._control = HTTPConnection(urlsplit(credentials.control_url).netloc, timeout=300)

    def call(self, call: Call) -> Response:
        """Send one request.

        Raises:
            RuntimeError: another status than expected.
        """
        connection = self._control if call.path.startswith("/registry/") else self._data
        headers = {**self._headers, "Content-Type": call.content_type}
        began = time.perf_counter()
        connection.request(call.method, call.path, call.body or None, headers)
        received = connection.getresponse()
        body = received.read()
        seconds = time.perf_counter() - began
        if received.status != call.expected:
            raise RuntimeError(f"{call.method} {call.path}: {received.status} {body[:300]!r}")
        return Response(seconds, body, {name.lower(): value for name, value in received.getheaders()})


@contextmanager
def filled(folder: Path, size: Size, environment: Mapping[str, str]) -> Iterator[tuple[Side, float]]:
    """Start a product and fill its database while it is stopped; also return the seconds that this took."""
    with Stack(folder, environment=environment) as stack:
        robot = json.loads(stack.manage(*_ROBOT).stdout)
        stack.stop()
        began = time.monotonic()
        command = [sys.executable, "-m", "bench.growth.load", robot["access_key"]]
        command += [str(size.manifests), str(size.giant_tags)]
        subprocess.run(command, check=True, cwd=ROOT, env=stack.environment)
        seconds = time.monotonic() - began
        stack.start()
        yield Side(stack, robot["secret_key"], size), seconds
