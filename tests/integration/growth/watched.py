"""Runs the data plane in the test process, with real storage, and records every SQL statement."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
from django.conf import settings
from django.db import connection

from registry_control.common.request_context import new, use
from registry_control.db.postgresql.pipeline import ConnectionUnavailable
from registry_data.config import Config
from registry_data.http.app import App
from registry_data.http.app_context import AppContext
from registry_data.http.bridge import Bridge
from registry_data.scoped_cache import ChangeTracker, Dependencies
from registry_data.storage.filesystem import FilesystemStore

T = TypeVar("T")

_OF_TRANSACTIONS = ("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT", "SET ", "PRAGMA ")


class Statement(NamedTuple):
    """A statement sent to the database, except those of transactions (BEGIN, SAVEPOINT)."""

    sql: str
    parameters: Any


@contextmanager
def recording(statements: list[Statement]) -> Iterator[None]:
    """Record the statements of this thread."""

    def note(execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(_OF_TRANSACTIONS):
            statements.append(Statement(sql, parameters))
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(note):
        yield


class InThreads:
    """Runs every read in a thread, as if the pipeline to PostgreSQL were not connected."""

    async def run(self, dependencies: Dependencies | None, call: Callable[[], T]) -> T:
        raise ConnectionUnavailable


class WatchedBridge(Bridge):
    """Records the statements of all calls. Each thread uses its own connection."""

    def __init__(self) -> None:
        super().__init__(database_threads=2, storage_threads=2, reads=InThreads())
        self.statements: list[Statement] = []

    async def _run_in(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await super()._run_in(pool, partial(self._watched, call))

    def _watched(self, call: Callable[[], T]) -> T:
        try:
            with recording(self.statements):
                return call()
        finally:
            connection.close()


class NoFeed:
    """Without a change log nothing is cached, so every request sends all of its queries."""

    def when_current(self, call: Callable[[bool], None]) -> None:
        call(False)

    def close(self) -> None:
        pass


@dataclass
class Watched:
    """A response and the SQL statements that it needed."""

    response: httpx.Response
    statements: list[Statement] = field(default_factory=list)


def request(folder: Path, method: str, path: str, **arguments: Any) -> Watched:
    """Send one request to a data plane with its storage in `folder`."""
    return asyncio.run(_request(folder, method, path, arguments))


async def _request(folder: Path, method: str, path: str, arguments: dict[str, Any]) -> Watched:
    store = FilesystemStore(folder)
    store.check()
    bridge = WatchedBridge()
    config = Config(
        public_host="registry.test",
        service="registry",
        blob_lease=settings.BLOB_LEASE,
    )
    transport = httpx.ASGITransport(
        App(AppContext(config, bridge, store, NoFeed(), ChangeTracker(), new_request=new, use_request=use))
    )
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://registry.test") as client:
            return Watched(await client.request(method, path, **arguments), bridge.statements)
    finally:
        bridge.close()
