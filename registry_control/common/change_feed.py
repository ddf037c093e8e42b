"""How a data process reads the change log: all changes that were committed before a request came (ADR 43).

A feed calls `apply` with the changed scopes, or with None where everything must be evicted: at its first
read, after a change of `EVERYTHING`, and when it may have missed rows. It belongs to one event loop.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from registry_control.common.changes import EVERYTHING, pruned_up_to
from registry_control.db.postgresql.pipeline import ConnectionUnavailable, Pipeline, Rows

logger = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 5000
"""Rows that a feed reads at once; after more of them it evicts everything, in bounded time and memory."""

Apply: TypeAlias = Callable[[Collection[str] | None], None]


def _merge(scopes: Iterable[str], is_behind: Callable[[int], bool]) -> set[str] | None:
    """The changed scopes; None for everything. `is_behind`: whether rows up to a horizon were missed."""
    changed: set[str] = set()
    for scope in scopes:
        horizon = pruned_up_to(scope)
        if scope == EVERYTHING or (horizon is not None and is_behind(horizon)):
            return None
        if horizon is None:
            changed.add(scope)
    return changed


class SqliteChangeFeed:
    """Reads rows above the last id whenever `PRAGMA data_version` changes.

    Writers of SQLite take turns, so rows are committed in the order of their ids. The feed's own connection
    never writes, so every commit of any process changes its data_version, which is read from shared memory
    for every request.
    """

    def __init__(self, file: Path, apply: Apply) -> None:
        self._connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._cursor = self._connection.cursor()
        self._apply = apply
        self._data_version: int | None = None
        self._last_id: int | None = None

    def when_current(self, call: Callable[[bool], None]) -> None:
        """Call back at once: True if every change is applied, False while the database cannot be read."""
        call(self._read())

    def _read(self) -> bool:
        try:
            (version,) = self._cursor.execute("PRAGMA data_version").fetchone()
            if version != self._data_version:
                self._read_changes()  # sees at least the commits that `version` counts
                self._data_version = version
        except sqlite3.Error:  # the use case that follows reports what is wrong
            return False
        return True

    def _read_changes(self) -> None:
        last = self._last_id
        if last is None:
            (self._last_id,) = self._connection.execute(
                "SELECT COALESCE(MAX(id), 0) FROM common_change"
            ).fetchone()
            self._apply(None)
            return
        found = self._connection.execute(
            "SELECT id, scope FROM common_change WHERE id > ? ORDER BY id LIMIT ?", (last, MOST_AT_ONCE + 1)
        ).fetchall()
        if len(found) > MOST_AT_ONCE:
            self._last_id = None
            self._read_changes()
        elif found:
            self._last_id = found[-1][0]
            changed = _merge((scope for _, scope in found), lambda horizon: last < horizon)
            if changed is None or changed:
                self._apply(changed)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresChangeFeed:
    """Reads the rows that the last snapshot did not see whenever `pg_current_snapshot()` changes.

    Transactions become visible in another order than that of their ids. The rows that are new between two
    snapshots are those of transactions that the older one calls future (from its xmax on) or in progress (its
    list), so a row that is committed late is found in the snapshot that first sees it.

    Requests that come while a statement is on its way share the next one: a busy process sends one for many
    requests, and each of them gets a snapshot that was taken after it came.
    """

    # Two statements: the first costs the server little, and at rest it is the only one.
    _SNAPSHOT: Final = "SELECT pg_current_snapshot()::text"
    _CHANGES: Final = f"""
SELECT pg_current_snapshot()::text, ARRAY(
    SELECT scope FROM common_change WHERE transaction_id >= %s::text::bigint
    UNION ALL
    SELECT scope FROM common_change WHERE transaction_id = ANY(%s::text::bigint[])
    LIMIT {MOST_AT_ONCE + 1}
)
"""  # noqa: S608
    _NO_TRANSACTION: Final = (str(2**63 - 1), "{}")

    def __init__(self, pipeline: Pipeline, apply: Apply) -> None:
        self._pipeline = pipeline
        self._apply = apply
        self._snapshot: str | None = None  # the last one: xmin:xmax:ids in progress
        self._generation = pipeline.generation  # of the connection that the last statement was sent on
        self._asking: list[Callable[[bool], None]] = []
        self._waiting: list[Callable[[bool], None]] = []

    def when_current(self, call: Callable[[bool], None]) -> None:
        """Call back when every change committed before now is applied; False: PostgreSQL cannot be asked."""
        if not self._asking and not self._waiting:
            # Not at once: requests of one turn share a statement.
            asyncio.get_running_loop().call_soon(self._ask)
        self._waiting.append(call)

    def _ask(self) -> None:
        self._asking, self._waiting = self._waiting, []
        self._forget_other_connection()
        self._send(self._SNAPSHOT, (), self._compare)

    def _send(self, sql: str, parameters: tuple[str, ...], then: Callable[..., None]) -> None:
        try:
            answer = self._pipeline.ask(sql, parameters)
        except ConnectionUnavailable:
            self._finish(is_current=False)
        else:
            answer.add_done_callback(partial(self._answered, then))

    def _answered(self, then: Callable[..., None], answer: asyncio.Future[Rows]) -> None:
        if answer.exception() is not None:
            self._finish(is_current=False)
            return
        try:
            then(*answer.result()[0])
        except Exception:  # all requests would wait for ever
            logger.exception("changes could not be applied")
            self._finish(is_current=False)

    def _compare(self, snapshot: str) -> None:
        if snapshot == self._snapshot:
            self._finish(is_current=True)
        else:
            self._forget_other_connection()
            self._send(self._CHANGES, self._parameters(), self._advance)

    def _forget_other_connection(self) -> None:
        """Forget the snapshot of an earlier connection, which another query may have replaced meanwhile.

        The next connection may lead to another server, a replica that was promoted, with ids of its own.
        """
        if self._generation != self._pipeline.generation:
            self._generation, self._snapshot = self._pipeline.generation, None

    def _parameters(self) -> tuple[str, str]:
        if self._snapshot is None:
            return self._NO_TRANSACTION
        _, xmax, in_progress = self._snapshot.split(":")
        return xmax, f"{{{in_progress}}}"

    def _advance(self, snapshot: str, scopes: Sequence[str]) -> None:
        before, self._snapshot = self._snapshot, snapshot
        changed: Collection[str] | None = None
        if before is not None and _xmax(snapshot) >= _xmax(before) and len(scopes) <= MOST_AT_ONCE:
            changed = _merge(scopes, lambda horizon: _xmin(before) <= horizon)
        if changed is None or changed:
            self._apply(changed)
        self._finish(is_current=True)

    def _finish(self, *, is_current: bool) -> None:
        if not is_current:
            self._snapshot = None
        asked, self._asking = self._asking, []
        if self._waiting:
            self._ask()
        for call in asked:
            try:
                call(is_current)
            except Exception:  # of one request: the others go on
                logger.exception("a request failed after the look for changes")

    def close(self) -> None:
        """Close the connection."""
        self._pipeline.close()


def _xmin(snapshot: str) -> int:
    return int(snapshot.split(":")[0])


def _xmax(snapshot: str) -> int:
    return int(snapshot.split(":")[1])
