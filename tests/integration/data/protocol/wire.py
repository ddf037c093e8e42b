"""A raw TCP connection to the registry, for requests that no library would send."""

import base64
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPResponse
from types import TracebackType
from typing import Final, Self

# Headers that differ in every response: `dict(headers) | PER_RESPONSE` can be compared.
PER_RESPONSE: Final = {"date": "", "x-request-id": ""}


@dataclass(frozen=True)
class Reply:
    """A final response. Header names are case-insensitive; a header may occur several times."""

    status: int
    headers: Message
    body: bytes

    @property
    def codes(self) -> list[str]:
        return [item["code"] for item in json.loads(self.body)["errors"]]


class Wire:
    """Sends raw requests; `secret` is sent as Basic, None sends no Authorization."""

    def __init__(self, host: str, secret: str | None) -> None:
        name, port = host.rsplit(":", 1)
        self._host = host
        self._secret = secret
        self._socket = socket.create_connection((name, int(port)), timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def begin(self, method: str, path: str, *headers: str) -> None:
        """Send the head of a request, with Host and Authorization unless given."""
        given = {header.partition(":")[0].lower() for header in headers}
        lines = [f"{method} {path} HTTP/1.1", *headers]
        if "host" not in given:
            lines.append(f"Host: {self._host}")
        if "authorization" not in given and self._secret is not None:
            pair = base64.b64encode(f"x:{self._secret}".encode()).decode()
            lines.append(f"Authorization: Basic {pair}")
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def request(self, method: str, path: str, *headers: str, body: bytes | None = None) -> Reply:
        """Send a request and return its response; a body is sent with its length."""
        length = [] if body is None else [f"Content-Length: {len(body)}"]
        self.begin(method, path, *headers, *length)
        if body:
            self.send(body)
        return self.reply(method)

    def in_chunks(self, method: str, path: str, *headers: str, pieces: Iterable[bytes]) -> Reply:
        """Send a request with `Transfer-Encoding: chunked` and return its response."""
        self.begin(method, path, *headers, "Transfer-Encoding: chunked")
        for piece in pieces:
            self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.send(b"0\r\n\r\n")
        return self.reply(method)

    def reply(self, method: str = "GET") -> Reply:
        """Read the next final response; a response to HEAD has no body."""
        with HTTPResponse(self._socket, method=method) as response:
            response.begin()
            return Reply(response.status, response.headers, response.read())

    def first_line(self) -> bytes:
        """Read the first line of the next response, such as 100 Continue, and its head."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                break
            head += byte
        return head.partition(b"\r\n")[0]

    def is_over(self) -> bool:
        """Whether the registry closes the connection without another byte."""
        return self._socket.recv(1) == b""

    def hang_up(self) -> None:
        """Close the sending side; responses can still be read."""
        self._socket.shutdown(socket.SHUT_WR)
