"""The change feed applies every committed change exactly once, in any order of commits."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry_control.common.change_feed import MOST_AT_ONCE, PostgresChangeFeed, SqliteChangeFeed
from registry_control.common.changes import EVERYTHING
from registry_control.db.postgresql.pipeline import ConnectionUnavailable, Pipeline
from registry_data.scoped_cache import catch_up
from tests.services.postgres import Postgres

# As the migration creates it.
TABLE = """
CREATE TABLE IF NOT EXISTS common_change (
    id bigserial PRIMARY KEY, scope varchar(64) NOT NULL, transaction_id bigint NOT NULL
)
"""
SQLITE_TABLE = """
CREATE TABLE common_change (id integer PRIMARY KEY AUTOINCREMENT, scope text, transaction_id integer)
"""
RECORD = "INSERT INTO common_change (scope, transaction_id) VALUES (%s, pg_current_xact_id()::text::bigint)"
SQLITE_RECORD = "INSERT INTO common_change (scope, transaction_id) VALUES (?, 0)"


class Applied(list[Collection[str] | None]):
    """The scopes that a feed has applied; None is everything."""

    def drain(self) -> list[Collection[str] | None]:
        drained: list[Collection[str] | None]
        drained = [scopes if scopes is None else sorted(scopes) for scopes in self]
        self.clear()
        return drained


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "a database.sqlite3"


@pytest.fixture
def writer(database: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(SQLITE_TABLE)
    connection.execute("CREATE TABLE others (name text)")
    yield connection
    connection.close()


def test_sqlite_applies_committed_changes_only(database: Path, writer: sqlite3.Connection) -> None:
    applied = Applied()
    feed = SqliteChangeFeed(database, applied.append)

    async def drain() -> list[Collection[str] | None]:
        assert await catch_up(feed)
        return applied.drain()

    async def scenario() -> None:
        # given a feed that starts by evicting everything
        assert await drain() == [None]
        # when another table changes, then nothing is applied
        writer.execute("INSERT INTO others VALUES ('x')")
        assert await drain() == []
        # when changes are uncommitted, rolled back and committed, then only the commit is applied, once
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(SQLITE_RECORD, ("image:rolled-back",))
        assert await drain() == []
        writer.execute("ROLLBACK")
        assert await drain() == []
        writer.execute(SQLITE_RECORD, ("image:a",))
        writer.execute(SQLITE_RECORD, ("image:b",))
        assert await drain() == [["image:a", "image:b"]]
        assert await drain() == []
        # when everything changes
        writer.execute(SQLITE_RECORD, (EVERYTHING,))
        assert await drain() == [None]

    asyncio.run(scenario())
    feed.close()


def test_sqlite_evicts_everything_where_rows_were_pruned_before_they_were_read(
    database: Path, writer: sqlite3.Connection
) -> None:
    applied = Applied()
    feed = SqliteChangeFeed(database, applied.append)

    async def drain() -> list[Collection[str] | None]:
        assert await catch_up(feed)
        return applied.drain()

    async def scenario() -> None:
        await drain()
        # given a feed that has read row 1: pruning that row evicts nothing
        writer.execute(SQLITE_RECORD, ("image:a",))
        assert await drain() == [["image:a"]]
        writer.execute("DELETE FROM common_change")
        writer.execute(SQLITE_RECORD, ("pruned:1",))
        assert await drain() == []
        # when row 3 is pruned unread, then everything is evicted
        writer.execute(SQLITE_RECORD, ("image:b",))
        writer.execute("DELETE FROM common_change")
        writer.execute(SQLITE_RECORD, ("pruned:3",))
        assert await drain() == [None]

    asyncio.run(scenario())
    feed.close()


def test_more_changes_than_one_read_returns_evict_everything(
    database: Path, writer: sqlite3.Connection, url: str
) -> None:
    number = MOST_AT_ONCE + 1
    applied = Applied()
    feed = SqliteChangeFeed(database, applied.append)

    async def on_sqlite() -> None:
        await catch_up(feed)
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany(SQLITE_RECORD, ((f"image:{each}",) for each in range(number)))
        writer.execute("COMMIT")
        assert await catch_up(feed)
        assert applied.drain() == [None, None]
        writer.execute(SQLITE_RECORD, ("image:a",))
        assert await catch_up(feed)
        assert applied.drain() == [["image:a"]]

    asyncio.run(on_sqlite())
    feed.close()

    async def on_postgresql(feed: PostgresChangeFeed, applied: Applied) -> None:
        with psycopg.connect(url) as connection:
            connection.cursor().executemany(RECORD, [(f"image:{each}",) for each in range(number)])
            connection.commit()
            assert await catch_up(feed)
            assert applied.drain() == [None]
            connection.execute(RECORD, ("image:a",))
            connection.commit()
            assert await catch_up(feed)
            assert applied.drain() == [["image:a"]]

    with_feed(url, on_postgresql)


def test_a_request_after_a_commit_does_not_share_an_earlier_read(
    database: Path, writer: sqlite3.Connection
) -> None:
    applied = Applied()
    feed = SqliteChangeFeed(database, applied.append)

    async def scenario() -> None:
        await catch_up(feed)
        for number in range(5):
            await catch_up(feed)
            applied.clear()
            writer.execute(SQLITE_RECORD, (f"image:{number}",))
            # in the same turn of the event loop: the server reads from sockets between callbacks of a turn
            feed.when_current(lambda _: None)
            assert applied.drain() == [[f"image:{number}"]]

    asyncio.run(scenario())
    feed.close()


def with_feed(
    url: str,
    scenario: Callable[[PostgresChangeFeed, Applied], Coroutine[Any, Any, None]],
    pipeline: Pipeline | None = None,
) -> None:
    """Run a scenario with a connected feed."""

    async def run() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        applied = Applied()
        feed = PostgresChangeFeed(pipeline or Pipeline(lambda: psycopg.connect(url)), applied.append)
        await connected(feed)
        assert applied.drain() == [None]
        try:
            await scenario(feed, applied)
        finally:
            feed.close()

    asyncio.run(run())


async def connected(feed: PostgresChangeFeed) -> None:
    """Wait until the feed is connected."""
    for _ in range(1500):
        if await catch_up(feed):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the feed cannot query PostgreSQL")


def test_a_row_committed_after_rows_with_higher_ids_is_applied(url: str) -> None:
    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        with psycopg.connect(url) as early, psycopg.connect(url) as late:
            # given a transaction that records a change first
            early.execute(RECORD, ("image:early",))
            assert await catch_up(feed)
            assert applied.drain() == []
            # when a later transaction commits first, then each change is applied after its commit
            late.execute(RECORD, ("image:late",))
            late.commit()
            assert await catch_up(feed)
            assert applied.drain() == [["image:late"]]
            early.commit()
            assert await catch_up(feed)
            assert applied.drain() == [["image:early"]]
            assert await catch_up(feed)
            assert applied.drain() == []

    with_feed(url, scenario)


def test_changes_are_applied_from_savepoints_but_not_after_a_rollback(url: str) -> None:
    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(RECORD, ("image:rolled-back",))
            connection.rollback()
            assert await catch_up(feed)
            assert applied.drain() == []
            with connection.transaction():
                with connection.transaction():  # a savepoint has a transaction id of its own
                    connection.execute(RECORD, ("image:in-savepoint",))
                assert await catch_up(feed)
                assert applied.drain() == []
            assert await catch_up(feed)
            assert applied.drain() == [["image:in-savepoint"]]

    with_feed(url, scenario)


def test_postgresql_evicts_everything_where_rows_were_pruned_before_they_were_read(url: str) -> None:
    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for is_read in (True, False):
                row = connection.execute(RECORD + " RETURNING transaction_id", ("image:a",)).fetchone()
                assert row is not None
                if is_read:
                    assert await catch_up(feed)
                    applied.clear()
                with connection.transaction():
                    connection.execute("DELETE FROM common_change")
                    connection.execute(RECORD, (f"pruned:{row[0]}",))
                assert await catch_up(feed)
                assert applied.drain() == ([] if is_read else [None])

    with_feed(url, scenario)


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["record", "commit", "rollback", "read"])), max_size=25
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_interleaving_applies_each_committed_row_exactly_once(
    url: str, steps: list[tuple[int, str]]
) -> None:
    """Four connections record, commit and roll back in any order, while the feed reads in between."""

    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        pending: list[list[str]] = [[], [], [], []]
        committed: list[str] = []
        with ExitStack() as stack:
            writers = [stack.enter_context(psycopg.connect(url)) for _ in pending]
            for number, (which, step) in enumerate(steps):
                if step == "record":
                    writers[which].execute(RECORD, (f"image:{number}",))
                    pending[which].append(f"image:{number}")
                elif step == "read":
                    assert await catch_up(feed)
                    # then the feed has applied exactly the changes committed before the call
                    seen = [scope for scopes in applied for scope in scopes or ()]
                    assert sorted(seen) == sorted(committed)
                else:
                    if step == "commit":
                        writers[which].commit()
                        committed += pending[which]
                    else:
                        writers[which].rollback()
                    pending[which] = []
            assert await catch_up(feed)
            assert sorted(scope for scopes in applied for scope in scopes or ()) == sorted(committed)

    with_feed(url, scenario)


def test_a_cancelled_call_does_not_affect_concurrent_ones(url: str) -> None:
    async def scenario(feed: PostgresChangeFeed, _: Applied) -> None:
        calls = [asyncio.create_task(catch_up(feed)) for _ in range(50)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[20].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert sum(result is True for result in results) == 48

    with_feed(url, scenario)


def test_after_a_lost_connection_everything_is_evicted(url: str) -> None:
    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        terminate_feed(url)
        assert not await catch_up(feed)
        await connected(feed)
        assert applied.drain() == [None]

    with_feed(url, scenario, pipeline_of_feed(url))


def test_everything_is_evicted_if_another_query_has_replaced_the_lost_connection(url: str) -> None:
    pipeline = pipeline_of_feed(url)

    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        # given a connection that is lost while the feed is idle, and a query of a request that reconnects
        first = await backend_of(pipeline)
        terminate_feed(url)
        assert await backend_of(pipeline) != first
        assert applied.drain() == []

        # when the feed asks on the new connection, then it succeeds at once and evicts everything, once
        assert await catch_up(feed)
        assert applied.drain() == [None]
        assert await catch_up(feed)
        assert applied.drain() == []

    with_feed(url, scenario, pipeline)


def pipeline_of_feed(url: str) -> Pipeline:
    """A pipeline whose connections `terminate_feed` ends."""
    return Pipeline(lambda: psycopg.connect(url, application_name="feed"))


def terminate_feed(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as killer:
        killer.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'feed' AND datname = current_database()"
        )


async def backend_of(pipeline: Pipeline) -> int:
    """The process id of the server's end, after a new connection if there is none."""
    for _ in range(1500):
        try:
            return int((await pipeline.ask("SELECT pg_backend_pid()", ()))[0][0])
        except ConnectionUnavailable:
            await asyncio.sleep(0.02)
    raise AssertionError("the pipeline cannot query PostgreSQL")


def test_catching_up_fails_without_a_server_or_the_table(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    async def scenario(url: str) -> None:
        applied = Applied()
        feed = PostgresChangeFeed(Pipeline(lambda: psycopg.connect(url)), applied.append)
        for _ in range(3):
            assert not await catch_up(feed)
            await asyncio.sleep(0.05)
        assert applied == []
        feed.close()

    asyncio.run(scenario(postgres.url("no_such_database")))
    asyncio.run(scenario(url))

    async def on_sqlite() -> None:
        sqlite3.connect(tmp_path / "empty.sqlite3").close()
        feed = SqliteChangeFeed(tmp_path / "empty.sqlite3", Applied().append)
        assert not await catch_up(feed)
        feed.close()

    asyncio.run(on_sqlite())


def test_changes_that_cannot_be_applied_let_no_request_wait_and_are_not_lost(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(feed: PostgresChangeFeed, applied: Applied) -> None:
        def fail(_: Collection[str] | None) -> None:
            raise RuntimeError("a fault of this process")

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(RECORD, ("image:a",))

        # when a change cannot be applied, then the requests go on without the cache
        with monkeypatch.context() as faulty:
            faulty.setattr(feed, "_apply", fail)
            outcomes = await asyncio.wait_for(asyncio.gather(catch_up(feed), catch_up(feed)), timeout=5)
        assert not any(outcomes)

        # and the next look evicts everything
        assert await catch_up(feed)
        assert applied.drain() == [None]

    with_feed(url, scenario)
