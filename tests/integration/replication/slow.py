"""A registry that reads the bytes of uploads slowly, or not at all."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from registry_data.oci.digest import Digest

_PIECE: Final = 64 * 1024  # bytes


class SlowRegistry:
    """What the server has, and how fast it reads."""

    def __init__(self, *, rate: int) -> None:
        self.host = ""
        self.received = 0  # bytes of uploads
        self.open = 0  # requests with a body that are being read
        self.stored: set[str] = set()
        self.uploaded = 0  # bytes of the upload under way
        self._rate = rate  # bytes per second; 0: nothing is read

    def set_rate(self, rate: int) -> None:
        self._rate = rate

    def wait(self, size: int) -> None:
        """Take the time that reading so many bytes should take."""
        while not self._rate:
            time.sleep(0.1)
        time.sleep(size / self._rate)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        registry = self.server.registry
        if "/uploads/" in self.path:
            self._reply(204, Location=self.path, Range=f"0-{max(registry.uploaded - 1, 0)}")
        elif self.path == "/v2/":
            self._reply(200)
        else:
            self._reply(404)

    def do_HEAD(self) -> None:
        digest = self.path.rpartition("/")[2]
        sizes = self.server.sizes
        if digest in self.server.registry.stored:
            length = {"Content-Length": str(sizes.get(digest, 0)), "Docker-Content-Digest": digest}
            self._reply(200, **length)
        else:
            self._reply(404)

    def do_POST(self) -> None:
        self.server.registry.uploaded = 0
        self._reply(202, Location=f"{self.path.partition('?')[0]}1")

    def do_PATCH(self) -> None:
        registry = self.server.registry
        registry.uploaded += self._body()
        self._reply(202, Location=self.path, Range=f"0-{max(registry.uploaded - 1, 0)}")

    def do_PUT(self) -> None:
        registry = self.server.registry
        if found := re.search(r"digest=(.+)$", self.path):
            digest = found[1].replace("%3A", ":")
            self.server.sizes[digest] = registry.uploaded + self._body()
        else:
            payload = self.rfile.read(int(self.headers["Content-Length"]))
            digest = str(Digest.of(payload))
            self.server.sizes[digest] = len(payload)
        registry.stored.add(digest)
        self._reply(201, Docker_Content_Digest=digest)

    def _body(self) -> int:
        """Read a body slowly; returns its length, or what came before the connection was closed."""
        registry, total = self.server.registry, 0
        left = int(self.headers.get("Content-Length", "0"))
        registry.open += 1
        try:
            while left:
                registry.wait(min(left, _PIECE))
                piece = self.rfile.read(min(left, _PIECE))
                if not piece:
                    raise ConnectionError
                left -= len(piece)
                total += len(piece)
                registry.received += len(piece)
        finally:
            registry.open -= 1
        return total

    def _reply(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    registry: SlowRegistry
    sizes: dict[str, int]

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing when a client closes its connection."""


@contextmanager
def running_slow_registry(*, rate: int) -> Iterator[SlowRegistry]:
    """Run a server that reads so many bytes per second."""
    server = _Server(("127.0.0.1", 0), _Handler)
    registry = server.registry = SlowRegistry(rate=rate)
    server.sizes = {}
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
