"""The PostgreSQL pipeline: each query gets its own result, independent of the others."""

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from registry_control.db.postgresql.pipeline import ConnectionUnavailable, Pipeline, Rows
from tests.services.postgres import Postgres

ID = UUID("c0ffee00-0000-4000-8000-000000000000")
END = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE application_name = 'pipeline' AND datname = current_database()"
)


@contextmanager
def pipeline_to(url: str) -> Iterator[Pipeline]:
    pipeline = Pipeline(lambda: psycopg.connect(url, application_name="pipeline"))
    try:
        yield pipeline
    finally:
        pipeline.close()


def with_pipeline(url: str, scenario: Callable[[Pipeline], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with pipeline_to(url) as pipeline:
            await connected(pipeline)
            await scenario(pipeline)

    asyncio.run(run())


async def connected(pipeline: Pipeline) -> Rows:
    """Query until there is a connection."""
    for _ in range(1500):
        try:
            return await pipeline.ask("SELECT 1", ())
        except ConnectionUnavailable:
            await asyncio.sleep(0.02)
    raise AssertionError("the pipeline did not connect")


def test_each_query_gets_its_own_result(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        results = await asyncio.gather(
            *(pipeline.ask("SELECT %s::int, %s::text", (n, str(n))) for n in range(500))
        )
        assert results == [[(n, str(n))] for n in range(500)]

    with_pipeline(url, scenario)


def test_values_survive_the_round_trip(url: str) -> None:
    values = [
        ("text", "ä\n%"),
        ("uuid", ID),
        ("bytea", b"\0x"),
        ("bigint", 2**40),
        ("bool", True),
        ("text", None),
    ]

    async def scenario(pipeline: Pipeline) -> None:
        for kind, value in values * 2:
            assert await pipeline.ask(f"SELECT %s::{kind}", (value,)) == [(value,)]
        assert await pipeline.ask("SELECT 1 WHERE false", ()) == []
        assert len(await pipeline.ask("SELECT * FROM generate_series(1, 1000)", ())) == 1000

    with_pipeline(url, scenario)


def test_large_queries_and_results_are_sent_at_the_same_time(url: str) -> None:
    # given more bytes than the socket buffers hold, in both directions at once
    large = "x" * 4_000_000

    async def scenario(pipeline: Pipeline) -> None:
        results = await asyncio.gather(*(pipeline.ask("SELECT %s::text", (large,)) for _ in range(8)))
        assert all(result == [(large,)] for result in results)

    with_pipeline(url, scenario)


@pytest.mark.parametrize("wrong", ["SELECT no_such_column", "SELECT 1 / %s::int"])
def test_an_error_fails_its_own_query_and_later_queries_succeed(url: str, wrong: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        for _ in range(3):
            before = pipeline.ask("SELECT 'before'", ())
            failing = pipeline.ask(wrong, (0,) * wrong.count("%s"))
            after = pipeline.ask("SELECT 'after'", ())
            assert await before == [("before",)]
            with pytest.raises((psycopg.errors.DivisionByZero, ConnectionUnavailable)):
                await failing
            with pytest.raises(ConnectionUnavailable):  # of the same transaction
                await after
            assert await pipeline.ask("SELECT 'later'", ()) == [("later",)]

    with_pipeline(url, scenario)


def test_a_value_without_representation_is_rejected_at_once(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        with pytest.raises(psycopg.DataError):
            pipeline.ask("SELECT %s::text", ("\0",))
        assert await pipeline.ask("SELECT %s::text", ("x",)) == [("x",)]

    with_pipeline(url, scenario)


def test_a_cancelled_query_does_not_affect_others(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        results = [pipeline.ask("SELECT %s::int", (n,)) for n in range(10)]
        results[3].cancel()
        rest = await asyncio.gather(*results[:3], *results[4:])
        assert [rows[0][0] for rows in rest] == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    with_pipeline(url, scenario)


def test_a_lost_connection_fails_its_queries_and_is_replaced(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        waiting = pipeline.ask("SELECT pg_sleep(100)", ())
        await asyncio.sleep(0)
        with psycopg.connect(url, autocommit=True) as killer:
            await asyncio.to_thread(killer.execute, END)
        with pytest.raises(ConnectionUnavailable):
            await waiting
        assert await connected(pipeline) == [(1,)]

    with_pipeline(url, scenario)


def test_a_connection_without_results_times_out_and_is_replaced(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        waiting = [pipeline.ask("SELECT pg_sleep(100)", ()), pipeline.ask("SELECT 1", ())]
        for result in waiting:
            with pytest.raises(ConnectionUnavailable):
                await asyncio.wait_for(result, 60)
        assert await connected(pipeline) == [(1,)]

    with_pipeline(url, scenario)


def test_a_statement_is_prepared_again_after_its_table_changed(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        await pipeline.ask("CREATE TABLE things (name varchar(5))", ())
        assert await pipeline.ask("SELECT * FROM things", ()) == []
        await pipeline.ask("ALTER TABLE things ADD size int", ())
        with pytest.raises(psycopg.Error):  # the prepared plan is out of date
            await pipeline.ask("SELECT * FROM things", ())
        assert await pipeline.ask("SELECT * FROM things", ()) == []

    with_pipeline(url, scenario)


def test_queries_fail_at_once_without_a_server(postgres: Postgres) -> None:
    async def scenario() -> None:
        with pipeline_to(postgres.url("no_such_database")) as pipeline:
            for _ in range(3):
                with pytest.raises(ConnectionUnavailable):
                    pipeline.ask("SELECT 1", ())
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_a_statement_that_the_server_deallocated_is_prepared_again(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        await pipeline.ask("DEALLOCATE ALL", ())
        with pytest.raises(ConnectionUnavailable):
            await pipeline.ask("SELECT 1", ())
        assert await connected(pipeline) == [(1,)]

    with_pipeline(url, scenario)


def test_a_connection_that_failed_for_lack_of_descriptors_is_retried(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a process that runs out of file descriptors when it has just connected
    duplicate, attempts = os.dup, []

    def fails_once(descriptor: int) -> int:
        attempts.append(descriptor)
        if len(attempts) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return duplicate(descriptor)

    monkeypatch.setattr(os, "dup", fails_once)

    # then queries succeed after the retry
    async def scenario(pipeline: Pipeline) -> None:
        assert await pipeline.ask("SELECT 2", ()) == [(2,)]

    with_pipeline(url, scenario)
    assert len(attempts) == 2
