"""Use cases that only read, in turns in one thread: the core waits, the event loop does not."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DataError

from registry_control.db.postgresql.pipeline import Pipeline
from registry_control.db.sql import row, rows, use_query_executor
from registry_control.identity.models import Organization
from registry_data.freshness import DatabaseVersion, PostgresVersionSource
from registry_data.http.read_executor import GreenletReads


def with_reads(
    url: str, scenario: Callable[[GreenletReads, PostgresVersionSource], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        pipeline = Pipeline(lambda: psycopg.connect(url))
        stamps = PostgresVersionSource(pipeline)
        for _ in range(1500):
            if await stamps.now() is not None:
                break
            await asyncio.sleep(0.02)
        try:
            await scenario(GreenletReads(use_query_executor, pipeline), stamps)
        finally:
            pipeline.close()

    asyncio.run(run())


def test_many_wait_at_once_in_one_thread(url: str) -> None:
    def several(number: int) -> tuple[int, int, int]:
        first = row("SELECT %s::int", [number])
        second = row("SELECT %s::int + 1", [number])
        assert first is not None
        assert second is not None
        return first[0], second[0], threading.get_ident()

    async def scenario(reads: GreenletReads, _: PostgresVersionSource) -> None:
        results = await asyncio.gather(*(reads.run(None, lambda n=n: several(n)) for n in range(100)))  # type: ignore[misc]
        assert results == [(n, n + 1, threading.get_ident()) for n in range(100)]

    with_reads(url, scenario)


def test_errors_go_through_the_core_to_the_caller(url: str) -> None:
    def careful() -> None:
        try:
            rows("SELECT 1 / %s::int", [0])
        except (DataError, psycopg.DataError) as error:  # Django's, where Django itself uses PostgreSQL
            raise LookupError("seen") from error

    async def scenario(reads: GreenletReads, _: PostgresVersionSource) -> None:
        with pytest.raises(LookupError, match="seen"):
            await reads.run(None, careful)

    with_reads(url, scenario)


def test_a_cancelled_use_case_ends_where_it_waits(url: str) -> None:
    ended: list[str] = []

    def long() -> None:
        try:
            rows("SELECT pg_sleep(2)", [])
        finally:
            ended.append("cleaned up")

    async def scenario(reads: GreenletReads, _: PostgresVersionSource) -> None:
        task = asyncio.create_task(reads.run(None, long))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["cleaned up"]
        assert await reads.run(None, lambda: rows("SELECT 1", [])) == [(1,)]

    with_reads(url, scenario)


def test_rows_are_kept_while_the_database_is_what_it_was(url: str) -> None:
    statement = "SELECT count(*)::int FROM things"

    async def scenario(reads: GreenletReads, stamps: PostgresVersionSource) -> None:
        async def read(stamp: DatabaseVersion | None) -> list[tuple[Any, ...]]:
            return await reads.run(stamp, lambda: rows(statement, []))

        with psycopg.connect(url, autocommit=True) as writer:
            writer.execute("CREATE TABLE things (name text)")
            before = await stamps.now()
            assert await read(before) == [(0,)]
            writer.execute("INSERT INTO things VALUES ('x')")
            # the same stamp, though it has passed, shows that what was kept is what is given
            assert await read(before) == [(0,)]
            assert await read(None) == [(1,)]
            after = await stamps.now()
            assert after != before
            assert await read(after) == [(1,)]

    with_reads(url, scenario)


def test_a_query_of_the_orm_cannot_block_the_event_loop_unseen(url: str) -> None:
    async def scenario(reads: GreenletReads, _: PostgresVersionSource) -> None:
        with pytest.raises(SynchronousOnlyOperation):
            await reads.run(None, lambda: Organization.objects.count())

    with_reads(url, scenario)
