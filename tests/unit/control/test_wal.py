"""SQLite's commits reach the disk before they return, after the turn at writing was given on."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.db import transaction
from django.db.utils import ConnectionHandler, OperationalError
from pytest_django import DjangoDbBlocker

from registry_control.common.sqlite import wal
from registry_control.common.sqlite.base import DatabaseWrapper
from registry_control.common.sqlite.turns import Turn


class Disk:
    """What was synced, by name; may refuse, as a disk does that fails."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.inodes: list[int] = []
        self.refuses = 0
        self.during: list[bool] = []  # whether somebody else could have written meanwhile
        self.database = Path()

    def fdatasync(self, descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        turn = Turn(self.database)
        self.during.append(turn.take(timeout=0.05))
        turn.give()
        if self.refuses:
            self.refuses -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(descriptor)
        self.synced.append(name)
        self.inodes.append(os.fstat(descriptor).st_ino)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    disk.database = tmp_path / "a.sqlite3"
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


def _handler(database: Path) -> ConnectionHandler:
    options = {
        "timeout": 5,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
    settings = {"ENGINE": "registry_control.common.sqlite", "NAME": str(database), "OPTIONS": options}
    return ConnectionHandler({"default": settings})


@pytest.fixture
def database(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[DatabaseWrapper]:
    handler = _handler(disk.database)
    # Django finds the connection of a transaction by its name.
    monkeypatch.setattr(transaction, "get_connection", lambda using=None: handler["default"])
    connection = handler["default"]
    assert isinstance(connection, DatabaseWrapper)
    with django_db_blocker.unblock():  # it knows one database, which is not this one
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE a (n INTEGER)")
        yield connection
        connection.close()


def _write(connection: DatabaseWrapper, number: int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO a VALUES (%s)", [number])


def _without_log(database: Path, tmp_path: Path) -> list[int]:
    """What the database file alone holds, as after a crash that lost the log."""
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        return [number for (number,) in connection.execute("SELECT n FROM a ORDER BY n")]


def test_a_commit_waits_for_the_log_while_others_may_write(database: DatabaseWrapper, disk: Disk) -> None:
    _write(database, 1)
    assert disk.synced == ["a.sqlite3-wal"]
    assert disk.during == [True]
    _write(database, 2)
    assert len(disk.synced) == 2


def test_a_rollback_waits_for_nothing(database: DatabaseWrapper, disk: Disk) -> None:
    def fail() -> None:
        with transaction.atomic(), database.cursor() as cursor:
            cursor.execute("INSERT INTO a VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not disk.synced


def test_where_nobody_waits_nothing_is_synced_until_the_next_who_does(
    database: DatabaseWrapper, disk: Disk
) -> None:
    database.waits_for_disk = False
    _write(database, 1)
    assert not disk.synced
    database.waits_for_disk = True
    _write(database, 2)
    assert len(disk.synced) == 1


def test_a_statement_outside_of_transactions_is_left_to_sqlite(database: DatabaseWrapper) -> None:
    _write(database, 1)
    with database.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone() == (2,)


def test_what_the_log_could_not_take_is_brought_into_the_database(
    database: DatabaseWrapper, disk: Disk, tmp_path: Path
) -> None:
    disk.refuses = 1
    _write(database, 1)
    assert _without_log(disk.database, tmp_path) == [1]
    _write(database, 2)  # the log can be believed again
    assert disk.synced == ["a.sqlite3-wal"]
    assert _without_log(disk.database, tmp_path) == [1]


def test_a_commit_that_can_be_made_durable_in_no_way_fails_and_so_do_later_ones(
    database: DatabaseWrapper, disk: Disk, tmp_path: Path
) -> None:
    database.cursor().execute("PRAGMA busy_timeout=50")
    _write(database, 0)
    with closing(sqlite3.connect(disk.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM a").fetchall()  # the log may not be begun anew while this is read
        disk.refuses = 1
        for number in (1, 2):
            with pytest.raises(OperationalError, match="disk I/O error"):
                _write(database, number)
    _write(database, 3)
    assert _without_log(disk.database, tmp_path) == [0, 1, 2, 3]


def test_a_log_that_was_made_anew_is_the_one_that_is_synced(disk: Disk, database: DatabaseWrapper) -> None:
    log = wal.Log(disk.database)
    _write(database, 1)
    log.sync(lambda: False)
    database.close()  # the last connection takes the log with it
    assert not disk.database.with_name("a.sqlite3-wal").exists()
    _write(database, 2)
    log.sync(lambda: False)
    assert disk.inodes[-1] == disk.database.with_name("a.sqlite3-wal").stat().st_ino


def test_threads_that_commit_at_once_are_all_synced(database: DatabaseWrapper, disk: Disk) -> None:
    _write(database, 1)
    for _ in range(20):
        disk.synced.clear()
        log = wal.Log(disk.database)  # not opened yet: whoever comes first does that for all
        together = threading.Barrier(8)

        def sync(log: wal.Log = log, together: threading.Barrier = together) -> None:
            together.wait()
            log.sync(lambda: False)

        threads = [threading.Thread(target=sync) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert disk.synced == ["a.sqlite3-wal"] * len(threads)
