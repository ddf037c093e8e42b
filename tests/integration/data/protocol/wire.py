"""One TCP connection to the registry, for requests that no library would send."""

import base64
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPResponse
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Reply:
    """A final answer. Header names do not depend on case; a header may be there several times."""

    status: int
    headers: Message
    body: bytes

    @property
    def codes(self) -> list[str]:
        return [item["code"] for item in json.loads(self.body)["errors"]]


class Wire:
    """Sends what it is told; `secret` goes out as Basic, None sends no Authorization."""

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
        """Send a request's head, with Host and Authorization unless they are among the headers."""
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
        """A whole request and its answer; a body goes out with its length."""
        length = [] if body is None else [f"Content-Length: {len(body)}"]
        self.begin(method, path, *headers, *length)
        if body:
            self.send(body)
        return self.reply(method)

    def in_chunks(self, method: str, path: str, *headers: str, pieces: Iterable[bytes]) -> Reply:
        """A request whose body comes with `Transfer-Encoding: chunked`, and its answer."""
        self.begin(method, path, *headers, "Transfer-Encoding: chunked")
        for piece in pieces:
            self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.send(b"0\r\n\r\n")
        return self.reply(method)

    def reply(self, method: str = "GET") -> Reply:
        """The next final answer; `method` says whether it has a body."""
        with HTTPResponse(self._socket, method=method) as answer:
            answer.begin()
            return Reply(answer.status, answer.headers, answer.read())

    def first_line(self) -> bytes:
        """The next line, of an interim answer say, and nothing that follows its head."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                break
            head += byte
        return head.partition(b"\r\n")[0]

    def is_over(self) -> bool:
        """Whether the registry ends the connection, without another byte."""
        return self._socket.recv(1) == b""

    def hang_up(self) -> None:
        """End the sending side; what the registry still says can be read."""
        self._socket.shutdown(socket.SHUT_WR)
