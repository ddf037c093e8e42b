"""One connection for many questions: each gets its own answer, whatever happens to the others."""

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
    """The answer to the first question that there is a connection for."""
    for _ in range(1500):
        try:
            return await pipeline.ask("SELECT 1", ())
        except ConnectionUnavailable:
            await asyncio.sleep(0.02)
    raise AssertionError("no connection came")


def test_answers_come_to_those_who_asked(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        answers = await asyncio.gather(
            *(pipeline.ask("SELECT %s::int, %s::text", (n, str(n))) for n in range(500))
        )
        assert answers == [[(n, str(n))] for n in range(500)]

    with_pipeline(url, scenario)


def test_values_come_back_as_they_went(url: str) -> None:
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


def test_large_questions_and_answers_pass_each_other(url: str) -> None:
    # given more than any buffer between client and server holds, in both directions at once
    large = "x" * 4_000_000

    async def scenario(pipeline: Pipeline) -> None:
        answers = await asyncio.gather(*(pipeline.ask("SELECT %s::text", (large,)) for _ in range(8)))
        assert all(answer == [(large,)] for answer in answers)

    with_pipeline(url, scenario)


@pytest.mark.parametrize("wrong", ["SELECT no_such_column", "SELECT 1 / %s::int"])
def test_an_error_is_told_to_whom_it_concerns_and_the_next_ones_are_answered(url: str, wrong: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        for _ in range(3):
            before = pipeline.ask("SELECT 'before'", ())
            failing = pipeline.ask(wrong, (0,) * wrong.count("%s"))
            after = pipeline.ask("SELECT 'after'", ())
            assert await before == [("before",)]
            with pytest.raises((psycopg.errors.DivisionByZero, ConnectionUnavailable)):
                await failing
            with pytest.raises(ConnectionUnavailable):  # of the same turn
                await after
            assert await pipeline.ask("SELECT 'later'", ()) == [("later",)]

    with_pipeline(url, scenario)


def test_a_value_that_no_statement_can_have_is_refused_at_once(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        with pytest.raises(psycopg.DataError):
            pipeline.ask("SELECT %s::text", ("\0",))
        assert await pipeline.ask("SELECT %s::text", ("x",)) == [("x",)]

    with_pipeline(url, scenario)


def test_whoever_gave_up_disturbs_nobody(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        answers = [pipeline.ask("SELECT %s::int", (n,)) for n in range(10)]
        answers[3].cancel()
        rest = await asyncio.gather(*answers[:3], *answers[4:])
        assert [rows[0][0] for rows in rest] == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    with_pipeline(url, scenario)


def test_a_lost_connection_is_told_and_made_anew(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        waiting = pipeline.ask("SELECT pg_sleep(100)", ())
        await asyncio.sleep(0)
        with psycopg.connect(url, autocommit=True) as killer:
            await asyncio.to_thread(killer.execute, END)
        with pytest.raises(ConnectionUnavailable):
            await waiting
        assert await connected(pipeline) == [(1,)]

    with_pipeline(url, scenario)


def test_a_server_that_is_silent_for_long_counts_as_lost(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        waiting = [pipeline.ask("SELECT pg_sleep(100)", ()), pipeline.ask("SELECT 1", ())]
        for answer in waiting:
            with pytest.raises(ConnectionUnavailable):
                await asyncio.wait_for(answer, 60)
        assert await connected(pipeline) == [(1,)]

    with_pipeline(url, scenario)


def test_a_table_may_change_under_a_prepared_statement(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        await pipeline.ask("CREATE TABLE things (name varchar(5))", ())
        assert await pipeline.ask("SELECT * FROM things", ()) == []
        await pipeline.ask("ALTER TABLE things ADD size int", ())
        with pytest.raises(psycopg.Error):  # the plan does not fit any more
            await pipeline.ask("SELECT * FROM things", ())
        assert await pipeline.ask("SELECT * FROM things", ()) == []

    with_pipeline(url, scenario)


def test_without_a_server_there_is_no_answer(postgres: Postgres) -> None:
    async def scenario() -> None:
        with pipeline_to(postgres.url("no_such_database")) as pipeline:
            for _ in range(3):
                with pytest.raises(ConnectionUnavailable):
                    pipeline.ask("SELECT 1", ())
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_statements_that_the_server_has_forgotten_are_asked_elsewhere_and_made_anew(url: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        await pipeline.ask("DEALLOCATE ALL", ())
        with pytest.raises(ConnectionUnavailable):
            await pipeline.ask("SELECT 1", ())
        assert await connected(pipeline) == [(1,)]

    with_pipeline(url, scenario)


def test_a_process_without_descriptors_connects_when_it_has_some(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a process that can open nothing more just when it has connected
    duplicate, tries = os.dup, []

    def fails_once(descriptor: int) -> int:
        tries.append(descriptor)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return duplicate(descriptor)

    monkeypatch.setattr(os, "dup", fails_once)

    # then questions are answered as soon as it can
    async def scenario(pipeline: Pipeline) -> None:
        assert await pipeline.ask("SELECT 2", ()) == [(2,)]

    with_pipeline(url, scenario)
    assert len(tries) == 2
