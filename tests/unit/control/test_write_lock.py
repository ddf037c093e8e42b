"""One writer at a time, over threads and processes; a turn ends with whoever has it."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from registry_control.db.sqlite.write_lock import WriteLock

HOLDER = """
import sys
from pathlib import Path
from registry_control.db.sqlite.write_lock import WriteLock

assert WriteLock(Path(sys.argv[1])).take(timeout=30)
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "a.sqlite3"


def test_the_next_one_waits_until_the_turn_is_given_back(database: Path) -> None:
    first, second = WriteLock(database), WriteLock(database)
    assert first.take(timeout=1)
    assert not second.take(timeout=0.01)
    first.give()
    first.give()
    assert second.take(timeout=1)
    second.give()


def test_another_database_has_turns_of_its_own(database: Path) -> None:
    first, other = WriteLock(database), WriteLock(database.with_name("b.sqlite3"))
    assert first.take(timeout=1)
    assert other.take(timeout=1)
    first.give()
    other.give()


def test_a_killed_process_gives_its_turn_back(database: Path) -> None:
    # given another process that has the turn
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"taken\n"
        turn = WriteLock(database)
        assert not turn.take(timeout=0.05)

        # when it is killed, then the turn is ours
        holder.kill()
    assert turn.take(timeout=30)
    turn.give()


def test_a_turn_that_cannot_be_taken_is_nobodys(database: Path) -> None:
    (database.parent / "a.sqlite3-turn").mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match="Is a directory"):
            WriteLock(database).take(timeout=1)


def test_many_threads_never_write_at_once(database: Path) -> None:
    inside, most, together = 0, 0, threading.Barrier(8)

    def write() -> None:
        nonlocal inside, most
        together.wait()
        for _ in range(50):
            turn = WriteLock(database)
            assert turn.take(timeout=60)
            inside += 1
            most = max(most, inside)
            inside -= 1
            turn.give()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_process_with_many_writers_lets_others_write(database: Path) -> None:
    # given threads of this process that never stop asking for turns
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            turn = WriteLock(database)
            assert turn.take(timeout=60)
            turn.give()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        # when another process asks, then its turn comes
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == b"taken\n"
            assert not WriteLock(database).take(timeout=0.05)
            holder.kill()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_who_waited_in_vain_leaves_the_turn_to_others(database: Path) -> None:
    """Whoever gives a turn keeps the file for a thread that waits, which may just be giving up."""
    for _ in range(300):
        first, second = WriteLock(database), WriteLock(database)
        assert first.take(timeout=1)
        waiting = threading.Thread(target=lambda turn=second: turn.take(timeout=0.001) and turn.give())
        waiting.start()
        first.give()
        waiting.join()
    with database.with_name("a.sqlite3-turn").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody of this process holds it
