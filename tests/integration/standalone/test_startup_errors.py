"""A start that cannot succeed exits at once, with one line that names the setting and what to do."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client

from tests.services.ports import free_port
from tests.services.redis import Redis, running_redis
from tests.services.stack import ROOT

PASSWORD = "hunter2-hunter2"


def up(state_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py up` where it must exit with an error; a start that continues fails the test."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    addresses = {
        "REGISTRY_CONTROL_ADDR": f"127.0.0.1:{free_port()}",
        "REGISTRY_DATA_ADDR": f"127.0.0.1:{free_port()}",
    }
    return subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=ROOT,
        env={**own, "REGISTRY_STATE_DIR": str(state_dir), **addresses, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def error_of(state_dir: Path, **variables: str) -> str:
    """The error line; every test checks that there is no other output."""
    done = up(state_dir, **variables)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("stowage: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert PASSWORD not in done.stderr
    return done.stderr.removeprefix("stowage: ").rstrip("\n")


@pytest.fixture
def port_in_use() -> Iterator[str]:
    """An address on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("variable", ["REGISTRY_CONTROL_ADDR", "REGISTRY_DATA_ADDR"])
def test_a_port_in_use(tmp_path: Path, port_in_use: str, variable: str) -> None:
    assert error_of(tmp_path, **{variable: port_in_use}) == (
        f"{variable}: {port_in_use} is in use already: stop the program that listens there,"
        f" or set {variable} to another host:port"
    )


def test_a_port_that_another_program_uses_with_reuseport(tmp_path: Path) -> None:
    # given a listener with SO_REUSEPORT, such as a server of ours that was not stopped
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        error = error_of(tmp_path, REGISTRY_DATA_ADDR=address)
    assert error.startswith(f"REGISTRY_DATA_ADDR: {address} is in use already")


def test_the_same_address_for_both_planes(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    error = error_of(tmp_path, REGISTRY_CONTROL_ADDR=address, REGISTRY_DATA_ADDR=address)
    assert error.startswith(f"REGISTRY_DATA_ADDR: {address} is in use already")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("198.51.100.1:5000", "is not an address of this machine"),
        ("no-such-host.invalid:5000", "no-such-host.invalid is not a known host"),
    ],
)
def test_an_address_of_another_machine(tmp_path: Path, address: str, reason: str) -> None:
    error = error_of(tmp_path, REGISTRY_DATA_ADDR=address)
    assert error.startswith("REGISTRY_DATA_ADDR: ")
    assert reason in error


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REGISTRY_CONTROL_ADDR", "8000"),
        ("REGISTRY_DATA_ADDR", "5000"),
        ("REGISTRY_DATA_WORKERS", "none"),
        ("REGISTRY_DATABASE_URL", f"mysql://stowage:{PASSWORD}@127.0.0.1/stowage"),
        ("REGISTRY_DATABASE_URL", "sqlite:///:memory:"),
        ("REGISTRY_PUBLIC_HOST", "http://registry.example"),
        ("REGISTRY_PUBLIC_SCHEME", "ftp"),
        ("REGISTRY_REDIS_URL", f"http://:{PASSWORD}@127.0.0.1"),
        ("REGISTRY_REGION", "Paris"),
        ("REGISTRY_SECRET_KEY_FILE", "/does/not/exist"),
        ("REGISTRY_SECRET_KEY", "k" * 31),
        ("REGISTRY_ALLOWED_HOSTS", "registry.example:8443"),
        ("REGISTRY_STORAGE_URL", "relative/folder"),
    ],
)
def test_an_invalid_value(tmp_path: Path, variable: str, value: str) -> None:
    assert error_of(tmp_path, **{variable: value}).startswith(variable)


def test_a_state_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = error_of(tmp_path / "file", REGISTRY_SECRET_KEY="k" * 32)
    assert error.startswith(f"REGISTRY_STATE_DIR: cannot use {tmp_path}/file: ")


def test_a_blob_store_that_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = error_of(tmp_path / "state", REGISTRY_STORAGE_URL=f"file://{tmp_path}/file/storage")
    assert error.startswith("REGISTRY_STORAGE_URL: the blob store cannot be used: ")


def test_a_redis_that_does_not_respond(tmp_path: Path) -> None:
    port = free_port()
    error = error_of(tmp_path, REGISTRY_REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
    assert error.startswith(f"REGISTRY_REDIS_URL: Redis at 127.0.0.1:{port} cannot be used: ")


def test_a_redis_that_rejects_the_user(tmp_path: Path, redis: Redis) -> None:
    error = error_of(tmp_path, REGISTRY_REDIS_URL=f"redis://nobody:{PASSWORD}@127.0.0.1:{redis.port}/0")
    assert error.startswith(f"REGISTRY_REDIS_URL: Redis at 127.0.0.1:{redis.port} cannot be used: ")


def test_a_redis_without_free_memory(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as server:
        with redis_client.Redis.from_url(server.url()) as client:
            client.config_set("maxmemory", "1")
        error = error_of(tmp_path / "state", REGISTRY_REDIS_URL=server.url())
    assert error.startswith(f"REGISTRY_REDIS_URL: Redis at 127.0.0.1:{server.port} cannot be used: ")


def test_a_postgresql_that_does_not_respond(tmp_path: Path) -> None:
    port = free_port()
    url = f"postgresql://stowage:{PASSWORD}@127.0.0.1:{port}/stowage"
    error = error_of(tmp_path, REGISTRY_DATABASE_URL=url)
    assert error.startswith(f"REGISTRY_DATABASE_URL: PostgreSQL 127.0.0.1:{port}/stowage cannot be used: ")


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing that SQLite could read\n" * 100, encoding="utf-8")
    error = error_of(tmp_path, REGISTRY_DATABASE_URL=f"sqlite:///{file}")
    assert error.startswith(f"REGISTRY_DATABASE_URL: SQLite {file} cannot be used: ")


def test_a_database_in_a_missing_folder(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "registry.sqlite3"
    error = error_of(tmp_path, REGISTRY_DATABASE_URL=f"sqlite:///{file}")
    assert error.startswith(f"REGISTRY_DATABASE_URL: SQLite {file} cannot be used: ")


def test_a_database_of_a_newer_release(tmp_path: Path) -> None:
    # given a database with a migration of a later release
    file = tmp_path / "registry.sqlite3"
    with sqlite3.connect(file) as database:
        database.execute(
            "CREATE TABLE django_migrations"
            " (id integer PRIMARY KEY, app varchar(255), name varchar(255), applied datetime)"
        )
        database.execute("INSERT INTO django_migrations VALUES (1, 'catalog', '9999_later', '2030-01-01')")
    database.close()

    # when this release starts on it
    error = error_of(tmp_path, REGISTRY_DATABASE_URL=f"sqlite:///{file}")

    # then it does not change it
    assert "was made by a newer release (it has catalog.9999_later)" in error
    with sqlite3.connect(file) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    database.close()
    assert tables == [("django_migrations",)]
