"""Read-only use cases as greenlets: waiting for rows does not block the event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DataError

from registry_control.db.postgresql.pipeline import Pipeline
from registry_control.db.sql import row, rows, use_query_executor
from registry_control.identity.models import Organization
from registry_data.http.read_executor import DependsOn, GreenletReads
from registry_data.scoped_cache import ChangeTracker, ConnectionUnavailable, Dependencies


def with_reads(
    url: str, scenario: Callable[[GreenletReads, ChangeTracker], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        pipeline, tracker = Pipeline(lambda: psycopg.connect(url)), ChangeTracker()
        reads = GreenletReads(use_query_executor, pipeline, tracker)
        try:
            await connected(reads)
            await scenario(reads, tracker)
        finally:
            pipeline.close()

    asyncio.run(run())


async def connected(reads: GreenletReads) -> None:
    for _ in range(1500):
        with suppress(ConnectionUnavailable):
            await reads.run(None, lambda: rows("SELECT 1", []))
            return
        await asyncio.sleep(0.02)
    raise AssertionError("PostgreSQL cannot be queried")


def test_many_use_cases_wait_concurrently_in_one_thread(url: str) -> None:
    def several(number: int) -> tuple[int, int, int]:
        first = row("SELECT %s::int", [number])
        second = row("SELECT %s::int + 1", [number])
        assert first is not None
        assert second is not None
        return first[0], second[0], threading.get_ident()

    async def scenario(reads: GreenletReads, _: ChangeTracker) -> None:
        results = await asyncio.gather(*(reads.run(None, lambda n=n: several(n)) for n in range(100)))  # type: ignore[misc]
        assert results == [(n, n + 1, threading.get_ident()) for n in range(100)]

    with_reads(url, scenario)


def test_errors_of_the_database_reach_the_use_case_and_its_caller(url: str) -> None:
    def careful() -> None:
        try:
            rows("SELECT 1 / %s::int", [0])
        except (DataError, psycopg.DataError) as error:  # Django's, where Django itself uses PostgreSQL
            raise LookupError("seen") from error

    async def scenario(reads: GreenletReads, _: ChangeTracker) -> None:
        with pytest.raises(LookupError, match="seen"):
            await reads.run(None, careful)

    with_reads(url, scenario)


def test_a_cancelled_use_case_is_cancelled_at_its_query(url: str) -> None:
    ended: list[str] = []

    def long() -> None:
        try:
            rows("SELECT pg_sleep(2)", [])
        finally:
            ended.append("cleaned up")

    async def scenario(reads: GreenletReads, _: ChangeTracker) -> None:
        task = asyncio.create_task(reads.run(None, long))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["cleaned up"]
        assert await reads.run(None, lambda: rows("SELECT 1", [])) == [(1,)]

    with_reads(url, scenario)


def test_rows_are_cached_until_a_scope_changes_that_they_depend_on(url: str) -> None:
    statement = "SELECT count(*)::int FROM things"

    async def scenario(reads: GreenletReads, tracker: ChangeTracker) -> None:
        async def read(depends_on: DependsOn | None, version: int | None) -> tuple[int, Dependencies]:
            dependencies = Dependencies(version)
            found = await reads.run(dependencies, lambda: rows(statement, [], depends_on=depends_on))
            return found[0][0], dependencies

        def of_image(_: object) -> tuple[str, ...]:
            return ("image:a",)

        with psycopg.connect(url, autocommit=True) as writer:
            writer.execute("CREATE TABLE things (name text)")
            # given rows that were read once
            number, dependencies = await read(of_image, tracker.version)
            assert (number, dependencies.scopes, dependencies.is_cacheable) == (0, {"image:a"}, True)
            writer.execute("INSERT INTO things VALUES ('x')")
            # then what is returned without a recorded change shows that they are cached
            number, dependencies = await read(of_image, tracker.version)
            assert (number, dependencies.scopes, dependencies.is_cacheable) == (0, {"image:a"}, True)
            # but not to a request that could not read the change log
            assert (await read(of_image, None))[0] == 1
            tracker.apply({"image:b"})
            assert (await read(of_image, tracker.version))[0] == 0
            tracker.apply({"image:a"})
            assert (await read(of_image, tracker.version))[0] == 1

            # when a query has unknown dependencies, then the response cannot be cached
            number, dependencies = await read(None, tracker.version)
            assert not dependencies.is_cacheable

    with_reads(url, scenario)


def test_a_use_case_sees_the_context_variables_of_its_request(url: str) -> None:
    name: ContextVar[str] = ContextVar("name")

    def several() -> tuple[str, str]:
        before = name.get()
        rows("SELECT 1", [])
        return before, name.get()

    async def scenario(reads: GreenletReads, _: ChangeTracker) -> None:
        async def request(number: int) -> tuple[str, str]:
            name.set(f"request {number}")
            return await reads.run(None, several)

        seen = await asyncio.gather(*(asyncio.create_task(request(number)) for number in range(20)))
        assert seen == [(f"request {number}",) * 2 for number in range(20)]

    with_reads(url, scenario)


def test_a_query_of_the_orm_on_the_event_loop_is_an_error(url: str) -> None:
    async def scenario(reads: GreenletReads, _: ChangeTracker) -> None:
        with pytest.raises(SynchronousOnlyOperation):
            await reads.run(None, lambda: Organization.objects.count())

    with_reads(url, scenario)
