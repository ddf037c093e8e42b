"""Stamps of the database's state: the same while nothing changes, another after every commit."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from registry_control.db.postgresql.pipeline import Pipeline
from registry_data.freshness import DatabaseVersion, PostgresVersionSource, SqliteVersionSource
from tests.oci_client import OCI_MANIFEST, OciClient, descriptor, image_manifest
from tests.services.postgres import Postgres
from tests.tenants import LAYER, Tenants

TABLE = "CREATE TABLE IF NOT EXISTS things (name TEXT)"
CHANGE = "INSERT INTO things VALUES ('x')"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "a database.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(TABLE)
    yield connection
    connection.close()


def test_a_commit_of_another_connection_changes_the_stamp_of_sqlite(
    tmp_path: Path, writer: sqlite3.Connection
) -> None:
    # given a database in use
    stamps = SqliteVersionSource(tmp_path / "a database.sqlite3")

    async def ask() -> DatabaseVersion | None:
        await asyncio.sleep(0)  # another turn of the event loop
        return await stamps.now()

    async def scenario() -> None:
        # when nothing happens, something is read, is written and not yet committed, and is committed
        before, again = await ask(), await ask()
        writer.execute("SELECT * FROM things").fetchall()
        after_read = await ask()
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(CHANGE)
        meanwhile = await ask()
        writer.execute("COMMIT")
        after = await ask()

        # then only the commit shows
        assert before is not None
        assert before == again == after_read == meanwhile != after

    asyncio.run(scenario())
    stamps.close()


def test_whoever_comes_after_a_commit_sees_it_whoever_else_has_just_asked(
    tmp_path: Path, writer: sqlite3.Connection
) -> None:
    stamps = SqliteVersionSource(tmp_path / "a database.sqlite3")

    async def after_commit() -> tuple[DatabaseVersion | None, DatabaseVersion | None]:
        before = await stamps.now()
        writer.execute(CHANGE)
        # as the server does it: a request that comes now is a task of its own
        return before, await asyncio.create_task(stamps.now())

    async def scenario() -> None:
        for _ in range(5):
            before, after = await after_commit()
            assert before != after

    asyncio.run(scenario())
    stamps.close()


def test_a_commit_of_another_connection_changes_the_stamp_of_postgresql(url: str) -> None:
    async def scenario() -> None:
        stamps = PostgresVersionSource(Pipeline(lambda: psycopg.connect(url)))
        with psycopg.connect(url) as writer:
            writer.execute(TABLE)
            writer.commit()
            before = await _first(stamps)
            writer.execute("SELECT * FROM things")
            assert await stamps.now() == before
            writer.commit()
            writer.execute(CHANGE)
            writer.commit()
            after = await stamps.now()
            assert after not in (before, None)
            assert await stamps.now() == after
        stamps.close()

    asyncio.run(scenario())


def test_many_ask_at_once_and_a_cancelled_one_disturbs_nobody(url: str) -> None:
    async def scenario() -> None:
        stamps = PostgresVersionSource(Pipeline(lambda: psycopg.connect(url)))
        await _first(stamps)
        asking = [asyncio.create_task(stamps.now()) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()
        asking[20].cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        stamps.close()
        assert isinstance(answers[0], asyncio.CancelledError)
        assert len({answer for answer in answers if isinstance(answer, str)}) == 1
        assert sum(isinstance(answer, str) for answer in answers) == 48

    asyncio.run(scenario())


def test_a_lost_connection_gives_no_stamp_and_is_made_anew(url: str) -> None:
    async def scenario() -> None:
        stamps = PostgresVersionSource(Pipeline(lambda: psycopg.connect(url, application_name="stamps")))
        await _first(stamps)
        with psycopg.connect(url, autocommit=True) as killer:
            killer.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'stamps' AND datname = current_database()"
            )
        assert await stamps.now() is None
        assert await _first(stamps) is not None
        stamps.close()

    asyncio.run(scenario())


def test_a_server_that_is_away_gives_no_stamp(postgres: Postgres) -> None:
    async def scenario() -> None:
        stamps = PostgresVersionSource(Pipeline(lambda: psycopg.connect(postgres.url("no_such_database"))))
        for _ in range(3):
            assert await stamps.now() is None
            await asyncio.sleep(0.05)
        stamps.close()

    asyncio.run(scenario())


async def _first(stamps: PostgresVersionSource) -> DatabaseVersion:
    """The first stamp there is; until the connection stands there is none."""
    for _ in range(1500):
        if (stamp := await stamps.now()) is not None:
            return stamp
        await asyncio.sleep(0.02)
    raise AssertionError("no stamp came")


def test_invariant_5_what_was_just_answered_does_not_outlive_a_change(tenants: Tenants) -> None:
    # given an image that all processes have sent again and again
    owner, stranger = tenants.owner, tenants.stranger
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    for number in range(6):
        # when the tag moves, then its old manifest is never seen again
        pushed = owner.push_image(repository, "latest", b"layer %d" % number)
        assert {_digest(owner, repository) for _ in range(10)} == {pushed}

        # when the image becomes private, then the very next pull of a stranger is refused
        assert _statuses(stranger, repository) == {200}
        tenants.set_image(repository, visibility="private")
        assert _statuses(stranger, repository) == {401}
        tenants.set_image(repository, visibility="inherit")

    # when the tag is deleted, then it is gone at once
    assert owner.on(repository, "DELETE", "manifests/latest").status_code == 202
    assert _statuses(owner, repository) == {404}


def test_invariant_5_a_revoked_key_sees_nothing_more_of_what_it_just_pulled(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    for _ in range(2):
        key = tenants.new_key("ContainerRegistryReadOnly")
        with OciClient(tenants.owner.host, key["secret_key"]) as robot:
            assert _statuses(robot, repository) == {200}
            tenants.manage("delete_key", key["access_key"])
            assert _statuses(robot, repository) == {401}


def test_invariant_5_a_list_that_was_just_answered_does_not_outlive_a_change(tenants: Tenants) -> None:
    # given lists that all processes have sent again and again
    repository = tenants.repository()
    subject = tenants.owner.push_image(repository, "first", LAYER)
    tags, referrers = "tags/list", f"referrers/{subject}"
    catalog = f"/v2/_catalog?n=1&last={repository[:-1]}"
    assert _lists(tenants.owner, repository, tags) == {("first",)}
    assert _lists(tenants.owner, repository, referrers) == {()}
    assert _lists(tenants.owner, repository, catalog) == {(repository,)}

    # when a tag, a referrer and a repository come, then each stands in the very next list
    signature = tenants.owner.put_manifest(
        repository, "signature", image_manifest(LAYER, [LAYER], subject=_subject(tenants.owner, repository))
    ).headers["docker-content-digest"]
    assert _lists(tenants.owner, repository, tags) == {("first", "signature")}
    assert _lists(tenants.owner, repository, referrers) == {(signature,)}
    tenants.owner.push_image(f"{repository[:-1]}a", "latest", LAYER)
    assert _lists(tenants.owner, repository, catalog) == {(f"{repository[:-1]}a",)}

    # when what they list goes, then so does its line
    assert tenants.owner.on(repository, "DELETE", f"manifests/{signature}").status_code == 202
    assert _lists(tenants.owner, repository, tags) == {("first",)}
    assert _lists(tenants.owner, repository, referrers) == {()}


def test_invariant_5_a_stranger_sees_a_list_only_while_the_image_is_public(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    for _ in range(3):
        assert _statuses(tenants.stranger, repository, "tags/list") == {200}
        tenants.set_image(repository, visibility="private")
        assert _statuses(tenants.stranger, repository, "tags/list") == {401}
        tenants.set_image(repository, visibility="inherit")


def _subject(client: OciClient, repository: str) -> dict[str, Any]:
    return descriptor(client.on(repository, "GET", "manifests/first").content, OCI_MANIFEST)


def _digest(client: OciClient, repository: str) -> str:
    return str(client.on(repository, "HEAD", "manifests/latest").headers["docker-content-digest"])


def _statuses(client: OciClient, repository: str, path: str = "manifests/latest") -> set[int]:
    return {answer.status_code for answer in _answers(client, repository, path)}


def _lists(client: OciClient, repository: str, path: str) -> set[tuple[str, ...]]:
    """What the list holds; one element when all processes agree."""
    found = set()
    for answer in _answers(client, repository, path):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        listed = body.get("tags", body.get("repositories"))
        found.add(tuple(listed if listed is not None else (each["digest"] for each in body["manifests"])))
    return found


def _answers(client: OciClient, repository: str, path: str) -> list[httpx.Response]:
    """A token made before, and each request on a connection of its own, so that all processes are met."""
    scope = f"repository:{repository}:pull"
    if path.startswith("/"):
        scope = "registry:catalog:*"
    else:
        path = f"/v2/{repository}/{path}"
    headers = {"Authorization": f"Bearer {client.token(scope)}", "Connection": "close"}
    return [client.http.get(path, headers=headers) for _ in range(10)]
