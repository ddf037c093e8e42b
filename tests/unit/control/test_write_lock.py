"""The write lock of SQLite: one owner among threads and processes, released when its owner dies."""

import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry_control.db.sqlite.write_lock import WriteLock

OWNER = """
import sys
from pathlib import Path
from registry_control.db.sqlite.write_lock import WriteLock

assert WriteLock(Path(sys.argv[1])).acquire(timeout=30)
print("acquired", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "a.sqlite3"


@contextmanager
def owning_process(database: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that owns the lock until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"acquired\n"
        yield owner


def test_the_second_waits_until_the_first_releases(database: Path) -> None:
    first, second = WriteLock(database), WriteLock(database)
    assert first.acquire(timeout=1)
    assert not second.acquire(timeout=0.01)
    first.release()
    first.release()
    assert second.acquire(timeout=1)
    second.release()


def test_databases_have_separate_locks(database: Path) -> None:
    first, other = WriteLock(database), WriteLock(database.with_name("b.sqlite3"))
    assert first.acquire(timeout=1)
    assert other.acquire(timeout=1)
    first.release()
    other.release()


def test_the_lock_of_a_killed_process_is_released(database: Path) -> None:
    # given another process that owns the lock
    lock = WriteLock(database)
    with owning_process(database) as owner:
        assert not lock.acquire(timeout=0.05)

        # when it is killed, then the lock can be acquired
        owner.kill()
    assert lock.acquire(timeout=30)
    lock.release()


def test_an_error_leaves_the_lock_free(database: Path) -> None:
    database.with_name("a.sqlite3-write-lock").mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match="Is a directory"):
            WriteLock(database).acquire(timeout=1)


def test_many_threads_never_own_the_lock_at_once(database: Path) -> None:
    inside, most, barrier = 0, 0, threading.Barrier(8)

    def write() -> None:
        nonlocal inside, most
        barrier.wait()
        for _ in range(50):
            lock = WriteLock(database)
            assert lock.acquire(timeout=60)
            inside += 1
            most = max(most, inside)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_process_with_many_writers_does_not_starve_others(database: Path) -> None:
    # given threads of this process that acquire the lock again and again
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            lock = WriteLock(database)
            assert lock.acquire(timeout=60)
            lock.release()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        # when another process waits for the lock, then it acquires it
        with owning_process(database) as owner:
            assert not WriteLock(database).acquire(timeout=0.05)
            owner.kill()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_thread_whose_wait_timed_out_releases_the_file_lock(database: Path) -> None:
    """A release leaves the file lock to a waiting thread of the process, whose wait may be timing out."""
    for _ in range(300):
        first, second = WriteLock(database), WriteLock(database)
        assert first.acquire(timeout=1)
        waiting = threading.Thread(target=lambda lock=second: lock.acquire(timeout=0.001) and lock.release())
        waiting.start()
        first.release()
        waiting.join()
    with database.with_name("a.sqlite3-write-lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if a thread of this process owns it
