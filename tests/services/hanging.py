"""A server that accepts requests and never answers, from one of them on."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Final

from django.db import connection

from registry_data.storage.base import BlobStore
from registry_data.storage.factory import open_store
from tests.services.scripted import Exchange, Script

LONGEST: Final = 10.0
"""Seconds until an operation ends whose time-outs are a part of a second."""

_OF_CONNECTION: Final = ("Connection", "Content-Length", "Transfer-Encoding", "Date", "Server")


@dataclass
class Proxy:
    """Forwards requests to a server, and answers none from one of them on."""

    script: Script
    upstream: str  # host and port
    hangs_from: int | None = None  # the number of the first request without an answer
    received: int = 0
    requests: list[str] = field(default_factory=list)  # method and path of each
    hangs: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.script.on(".", self._answer)

    def store(self, url: str) -> BlobStore:
        """The store in a bucket of that server, reached through this proxy."""
        return open_store(url.replace(self.upstream, self.script.host))

    def _answer(self, exchange: Exchange) -> None:
        with self._lock:
            number, self.received = self.received, self.received + 1
            self.requests.append(f"{exchange.received.method} {exchange.received.path}")
        if self.hangs_from is None or number < self.hangs_from:
            self._forward(exchange)
            return
        self.hangs.set()
        self.is_over.wait(2 * LONGEST)
        exchange.cut()

    def _forward(self, exchange: Exchange) -> None:
        request = exchange.received
        upstream = HTTPConnection(self.upstream, timeout=20)
        try:
            upstream.request(request.method, request.path, request.body, request.headers)
            response = upstream.getresponse()
            headers = {name: value for name, value in response.getheaders() if name not in _OF_CONNECTION}
            body = response.read()
            if request.method == "HEAD":
                headers["Content-Length"] = response.headers["Content-Length"] or "0"
            exchange.reply(response.status, body, **headers)
        finally:
            upstream.close()


def run_beside_others(call: Callable[[], None], proxy: Proxy) -> Exception | None:
    """Run an operation in a thread; others can write to the database while the storage hangs.

    Returns the error of the operation.
    """
    outcome: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the outcome
            outcome.append(error)
        finally:
            connection.close()
            proxy.is_over.set()

    began = time.monotonic()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not proxy.hangs.wait(0.01) and thread.is_alive():
        pass
    with closing(sqlite3.connect(str(connection.settings_dict["NAME"]), timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")  # fails at once if the operation has a transaction open
        other.rollback()
    thread.join(LONGEST)
    assert not thread.is_alive(), f"the operation has not ended after {time.monotonic() - began:.0f} s"
    return outcome[0] if outcome else None
