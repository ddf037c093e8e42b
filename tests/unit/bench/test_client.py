"""The load generator of `make bench`: it must count every unexpected response as an error."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat

from bench.client import Connection, Operation, Outcome, Steps, drive
from bench.content import fixed, unique


@contextmanager
def server(response: bytes) -> Iterator[str]:
    """Sends `response` for every received request, on one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, response), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listening: socket.socket, response: bytes) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            while connection.recv(65536):
                connection.sendall(response)


def operation_of(method: str, seen: list[tuple[int, str, bytes]]) -> Operation:
    def send(connection: Connection) -> Steps:
        response = yield from connection.call(method, "/", "", expect=200)
        seen.append((response.length, response.location, response.body))

    return send


def send(method: str, response: bytes, times: int = 2) -> tuple[Outcome, list[tuple[int, str, bytes]]]:
    seen: list[tuple[int, str, bytes]] = []
    with server(response) as host:
        outcome = drive(host, repeat(operation_of(method, seen), times), 1, seconds=30)
    return outcome, seen


def test_a_response_is_read_completely_and_the_connection_is_reused() -> None:
    outcome, seen = send(
        "GET", b"HTTP/1.1 200 OK\r\nlocation: http://x:1/a?b\r\ncontent-length: 3\r\n\r\nabc"
    )
    assert seen == [(3, "/a?b", b"abc")] * 2
    assert (len(outcome.latencies), outcome.calls, outcome.errors) == (2, 2, 0)


def test_the_response_to_a_head_has_no_body() -> None:
    outcome, seen = send("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    assert seen == [(1000000, "", b"")] * 2
    assert outcome.errors == 0


def test_an_unexpected_status_is_an_error_followed_by_a_new_connection() -> None:
    outcome, seen = send("GET", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert seen == []
    assert (len(outcome.latencies), outcome.errors) == (0, 2)
    assert "404 Not Found" in outcome.first_error


def test_unique_content_has_the_digest_of_its_bytes_and_correct_slices() -> None:
    first, second = unique(10_000), unique(10_000)
    assert first.digest != second.digest
    whole = b"".join(first.parts)
    assert first.digest == f"sha256:{hashlib.sha256(whole).hexdigest()}"
    pieces = [b"".join(first.slice(start, start + 3000)) for start in range(0, 10_000, 3000)]
    assert b"".join(pieces) == whole
    assert [len(piece) for piece in pieces] == [3000, 3000, 3000, 1000]


def test_fixed_content_is_the_same_in_every_run() -> None:
    assert fixed(1024).digest == "sha256:2e9d68955aeaba2c012b1b2fec7fb2df1bebad5f71a9523e9092266399403eac"
