"""SQLite's commits reach the disk before they return, after the turn at writing was given on."""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.db import transaction
from django.db.utils import ConnectionHandler, OperationalError
from pytest_django import DjangoDbBlocker

from registry_control.db.sqlite import base, wal_sync
from registry_control.db.sqlite.base import DatabaseWrapper
from registry_control.db.sqlite.write_lock import WriteLock


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
        turn = WriteLock(self.database)
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
    settings = {"ENGINE": "registry_control.db.sqlite", "NAME": str(database), "OPTIONS": options}
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
    database.sync_on_commit = False
    _write(database, 1)
    assert not disk.synced
    database.sync_on_commit = True
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
    log = wal_sync.WalSync(disk.database)
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
        log = wal_sync.WalSync(disk.database)  # not opened yet: whoever comes first does that for all
        together = threading.Barrier(8)

        def sync(log: wal_sync.WalSync = log, together: threading.Barrier = together) -> None:
            together.wait()
            log.sync(lambda: False)

        threads = [threading.Thread(target=sync) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert disk.synced == ["a.sqlite3-wal"] * len(threads)


class Kernel:
    """Loses what it was to write, and tells of it once to each who had the file open then, as Linux does."""

    def __init__(self) -> None:
        self.lost = False
        self.told: set[int] = set()  # descriptors
        self.waiting: Callable[[], object] = lambda: None  # done while the disk is waited for

    def fdatasync(self, descriptor: int) -> None:
        self.waiting()
        if self.lost and descriptor not in self.told:
            self.told.add(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(os, "fdatasync", kernel.fdatasync)
    return kernel


@pytest.fixture
def log(tmp_path: Path) -> wal_sync.WalSync:
    tmp_path.joinpath("a-wal").touch()
    return wal_sync.WalSync(tmp_path / "a")


def _believe(log: wal_sync.WalSync, *, checkpoint: bool = False) -> bool:
    """Whether a commit is said to be on the disk."""
    try:
        log.sync(lambda: checkpoint)
    except OSError:
        return False
    return True


def test_all_threads_that_wait_when_the_disk_fails_are_told(log: wal_sync.WalSync, kernel: Kernel) -> None:
    # given threads that have committed before, and do so again at the same time
    together, believed = threading.Barrier(4), list[bool]()

    def commit() -> None:
        log.sync(lambda: False)
        together.wait()
        kernel.lost, kernel.waiting = True, together.wait
        believed.append(_believe(log))

    threads = [threading.Thread(target=commit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    # then none of them is told that its commit is on the disk
    assert believed == [False] * 4


def test_a_thread_that_comes_after_an_error_of_which_another_has_not_said_yet_is_told(
    log: wal_sync.WalSync, kernel: Kernel
) -> None:
    # given a thread that the kernel has told of an error, and which has not gone on yet
    log.sync(lambda: False)
    believed = list[bool]()

    def late() -> None:
        kernel.waiting = lambda: None
        believed.extend(_believe(log) for _ in range(2))

    def somebody_comes() -> None:
        kernel.lost = True
        opened_later = threading.Thread(target=late)
        opened_later.start()
        opened_later.join(20)

    kernel.waiting = somebody_comes

    # when another one comes that has never waited for this log, then neither is told of success
    assert not _believe(log)
    assert believed == [False, False]

    # and all are when the log has been brought into the database
    assert _believe(log, checkpoint=True)
    assert _believe(log)


def test_an_error_that_is_told_during_a_checkpoint_is_not_mended_by_it(
    log: wal_sync.WalSync, kernel: Kernel
) -> None:
    # given a thread that waits for the disk until another one has begun with a checkpoint
    ready, told = threading.Event(), threading.Event()

    def wait() -> None:
        if threading.current_thread() is slow:
            ready.set()
            told.wait(20)

    def commit() -> None:
        log.sync(lambda: False)
        kernel.waiting = wait
        _believe(log)

    def checkpoint() -> bool:
        told.set()
        slow.join(20)
        return True

    log.sync(lambda: False)
    slow = threading.Thread(target=commit)
    slow.start()
    assert ready.wait(20)
    kernel.lost = True

    # when the checkpoint succeeds, then that does not make up for what the thread was told meanwhile
    log.sync(checkpoint)
    assert not _believe(log)
    assert _believe(log, checkpoint=True)


def test_a_child_process_opens_the_log_for_itself(tmp_path: Path) -> None:
    log = base._log(tmp_path / "a")  # noqa: SLF001 - there is no other way to see whose it is
    child = os.fork()
    if child == 0:
        os._exit(base._log(tmp_path / "a") is log)  # noqa: SLF001
    assert os.waitpid(child, 0)[1] == 0
