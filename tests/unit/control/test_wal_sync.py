"""Commits on SQLite are durable before they return, and wait for the disk after the write lock's release."""

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

from registry_control.db.sqlite import base
from registry_control.db.sqlite.base import DatabaseWrapper
from registry_control.db.sqlite.wal_sync import WalSync
from registry_control.db.sqlite.write_lock import WriteLock

THREADS = 8


class Disk:
    """Replaces os.fdatasync: records the synced files, and fails for the first `failures` calls."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.synced: list[str] = []  # file names
        self.inodes: list[int] = []
        self.failures = 0
        self.was_unlocked: list[bool] = []  # whether the write lock was free during the sync

    def fdatasync(self, descriptor: int) -> None:
        lock = WriteLock(self.database)
        self.was_unlocked.append(lock.acquire(timeout=0.05))
        lock.release()
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(descriptor)
        self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        self.inodes.append(os.fstat(descriptor).st_ino)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path / "a.sqlite3")
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


def _handler(database: Path) -> ConnectionHandler:
    options = {
        "timeout": 5,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
    settings = {"ENGINE": "registry_control.db.sqlite", "NAME": str(database), "OPTIONS": options}
    return ConnectionHandler({"default": settings})


@pytest.fixture
def database(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[DatabaseWrapper]:
    handler = _handler(disk.database)
    # transaction.atomic finds its connection by this function.
    monkeypatch.setattr(transaction, "get_connection", lambda using=None: handler["default"])
    connection = handler["default"]
    assert isinstance(connection, DatabaseWrapper)
    with django_db_blocker.unblock():  # pytest-django blocks every connection outside of database tests
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE a (n INTEGER)")
        yield connection
        connection.close()


def _write(connection: DatabaseWrapper, number: int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO a VALUES (%s)", [number])


def _content_without_wal(database: Path, tmp_path: Path) -> list[int]:
    """The rows in the database file alone, as after a crash that lost the WAL."""
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        return [number for (number,) in connection.execute("SELECT n FROM a ORDER BY n")]


def test_a_commit_syncs_the_wal_after_the_write_lock_was_released(
    database: DatabaseWrapper, disk: Disk
) -> None:
    _write(database, 1)
    assert disk.synced == ["a.sqlite3-wal"]
    assert disk.was_unlocked == [True]
    _write(database, 2)
    assert len(disk.synced) == 2


def test_the_wal_is_open_before_the_commit(database: DatabaseWrapper, disk: Disk) -> None:
    """A descriptor opened later could miss the write-back error of this commit."""
    wal = disk.database.with_name("a.sqlite3-wal")
    _write(database, 1)
    database.close()  # SQLite deletes the WAL with the last connection and creates another one later
    with transaction.atomic(), database.cursor() as cursor:
        cursor.execute("INSERT INTO a VALUES (2)")
        inode = wal.stat().st_ino
        assert base._wal(disk.database)._inode[1] == inode  # noqa: SLF001 - nothing else shows it
    assert disk.inodes[-1] == inode


def test_a_rollback_syncs_nothing(database: DatabaseWrapper, disk: Disk) -> None:
    def fail() -> None:
        with transaction.atomic(), database.cursor() as cursor:
            cursor.execute("INSERT INTO a VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not disk.synced


def test_an_unsynced_commit_becomes_durable_with_the_next_synced_one(
    database: DatabaseWrapper, disk: Disk
) -> None:
    database.sync_on_commit = False
    _write(database, 1)
    assert not disk.synced
    database.sync_on_commit = True
    _write(database, 2)
    assert len(disk.synced) == 1


def test_sqlite_itself_syncs_statements_outside_of_transactions(database: DatabaseWrapper) -> None:
    _write(database, 1)
    with database.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone() == (2,)


def test_a_commit_whose_sync_failed_is_checkpointed(
    database: DatabaseWrapper, disk: Disk, tmp_path: Path
) -> None:
    disk.failures = 1
    _write(database, 1)
    assert _content_without_wal(disk.database, tmp_path) == [1]
    _write(database, 2)  # syncing the WAL is enough again
    assert disk.synced == ["a.sqlite3-wal"]
    assert _content_without_wal(disk.database, tmp_path) == [1]


def test_commits_fail_from_a_failed_sync_until_a_checkpoint_succeeds(
    database: DatabaseWrapper, disk: Disk, tmp_path: Path
) -> None:
    database.cursor().execute("PRAGMA busy_timeout=50")
    _write(database, 0)
    with closing(sqlite3.connect(disk.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM a").fetchall()  # a checkpoint cannot truncate the WAL under a reader
        disk.failures = 1
        for number in (1, 2):
            with pytest.raises(OperationalError, match="disk I/O error"):
                _write(database, number)
    _write(database, 3)
    assert _content_without_wal(disk.database, tmp_path) == [0, 1, 2, 3]


class SlowDisk:
    """Replaces os.fdatasync: the first call returns when all other threads wait for a sync."""

    def __init__(self) -> None:
        self.calls = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.fails = False

    def fdatasync(self, descriptor: int) -> None:
        self.calls += 1
        self.has_begun.set()
        assert self.may_end.wait(20)
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


@pytest.fixture
def wal(tmp_path: Path) -> WalSync:
    tmp_path.joinpath("a-wal").touch()
    wal = WalSync(tmp_path / "a")
    wal.open()
    return wal


def _is_durable(wal: WalSync) -> bool:
    try:
        wal.sync(lambda: False)
    except OSError:
        return False
    return True


def _sync_in_threads(wal: WalSync, disk: SlowDisk) -> list[bool]:
    """Sync in one thread, and during its fdatasync in all others; whether each succeeded."""
    durable = list[bool]()
    arrived = threading.Semaphore(0)

    def sync() -> None:
        arrived.release()
        durable.append(_is_durable(wal))

    threads = [threading.Thread(target=sync) for _ in range(THREADS)]
    threads[0].start()
    assert disk.has_begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    for _ in threads:
        assert arrived.acquire(timeout=20)
    disk.may_end.set()
    for thread in threads:
        thread.join(20)
    return durable


def test_commits_during_a_sync_share_the_next_one(wal: WalSync, slow_disk: SlowDisk) -> None:
    assert _sync_in_threads(wal, slow_disk) == [True] * THREADS
    assert 2 <= slow_disk.calls < THREADS


def test_no_commit_that_waited_for_a_failed_sync_succeeds(wal: WalSync, slow_disk: SlowDisk) -> None:
    """Linux reports a lost write to one call only, so a second fdatasync would succeed."""
    slow_disk.fails = True
    assert _sync_in_threads(wal, slow_disk) == [False] * THREADS
    assert slow_disk.calls == 1


def test_a_child_process_opens_the_wal_itself(tmp_path: Path) -> None:
    wal = base._wal(tmp_path / "a")  # noqa: SLF001 - nothing else shows which object is used
    child = os.fork()
    if child == 0:
        os._exit(base._wal(tmp_path / "a") is wal)  # noqa: SLF001
    assert os.waitpid(child, 0)[1] == 0
