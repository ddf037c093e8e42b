"""An HTTP server whose responses a test defines, also those that no proper server sends."""

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, TypeAlias

_IDLE: Final = 20.0  # seconds until a connection without a request ends


@dataclass(frozen=True)
class Received:
    """A request that the server has read completely."""

    method: str
    path: str  # with the query string
    headers: dict[str, str]  # names in lower case
    body: bytes


class Exchange(BaseHTTPRequestHandler):
    """A request and the connection on which an answer writes the response."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    disable_nagle_algorithm = True
    server: "_Server"
    received: Received

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a response; underscores in header names stand for dashes."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        """Close the connection after this response."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Print nothing."""

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            self.received = Received(self.command, self.path, headers, self._body(headers))
            self.server.script.requests.append(self.received)
            self.server.script.answer(self)
        except ConnectionError:
            self.close_connection = True

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self._read(int(headers.get("content-length", "0")))
        body = bytearray()
        while size := int(self.rfile.readline() or b"0", 16):
            body += self._read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def _read(self, size: int) -> bytes:
        """Read so many bytes; raise ConnectionError if the client has cut the connection before."""
        found = self.rfile.read(size)
        if len(found) < size:
            raise ConnectionError("the request is incomplete")
        return found

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815


Answer: TypeAlias = Callable[[Exchange], None]


@dataclass
class Script:
    """The responses of one server, and the requests that it has received."""

    host: str = ""  # host:port
    requests: list[Received] = field(default_factory=list)
    _answers: list[tuple[re.Pattern[str], Answer]] = field(default_factory=list)

    def on(self, pattern: str, answer: Answer) -> None:
        """Define the answer to requests of which `METHOD /path?query` matches; the last definition counts."""
        self._answers.insert(0, (re.compile(pattern), answer))

    def answer(self, exchange: Exchange) -> None:
        line = f"{exchange.received.method} {exchange.received.path}"
        for pattern, answer in list(self._answers):
            if pattern.match(line):
                answer(exchange)
                return
        exchange.reply(404)

    def lines(self) -> list[str]:
        """`METHOD /path?query` of each request."""
        return [f"{request.method} {request.path}" for request in self.requests]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    script: Script

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing when a client closes its connection."""


@contextmanager
def running_script(
    address: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Script]:
    """Run a server on an address, by default on a free port."""
    server = _Server((address, port), Exchange)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.script = Script(host=f"{address}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def replying(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer that is always the same."""
    return lambda exchange: exchange.reply(status, body, **headers)
