"""Collecting pulls in a process: what is noted is recorded, in bounded memory, whatever the database does."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from registry_control.catalog.services.pulls import Recorded
from registry_data.registry.pulls import CAPACITY, Pull, PullRecorder
from tests.services.waiting import wait_until

SOON = 0.005  # seconds between flushes
HOUR = 3600.0


def pull(number: int) -> Pull:
    return Pull(UUID(int=number), number, None)


@dataclass
class Database:
    """What batches contained; for the first `failures` ones it is away, and `locked` pulls fail once."""

    fresh_for: float = HOUR
    failures: int = 0
    locked: set[Pull] = field(default_factory=set)
    batches: list[dict[Pull, float]] = field(default_factory=list)  # to the times of the pulls (monotonic)

    def record(self, ages: Mapping[Pull, float]) -> Recorded:
        if self.failures:
            self.failures -= 1
            raise OSError("the database is away")
        at = time.monotonic()
        locked, self.locked = self.locked & ages.keys(), self.locked - ages.keys()
        self.batches.append({pull: at - age for pull, age in ages.items() if pull not in locked})
        return Recorded(dict.fromkeys(ages.keys() - locked, self.fresh_for), locked)

    @property
    def recorded(self) -> dict[Pull, float]:
        """The latest recorded time of each pull."""
        latest: dict[Pull, float] = {}
        for batch in self.batches:
            for each, at in batch.items():
                latest[each] = max(at, latest.get(each, 0.0))
        return latest


@contextmanager
def recording(database: Database, *, interval: float = SOON) -> Iterator[PullRecorder]:
    recorder = PullRecorder(database.record, interval=interval)
    yield recorder
    recorder.close()


def test_pulls_are_recorded_in_the_background_with_their_age() -> None:
    database = Database()
    with recording(database) as recorder:
        before = time.monotonic()
        recorder.note(pull(1))
        recorder.note(pull(2))
        wait_until(lambda: len(database.recorded) == 2)
    assert all(before <= at <= time.monotonic() for at in database.recorded.values())


def test_further_pulls_are_recorded_only_when_the_stored_times_are_no_longer_fresh() -> None:
    # given a pull whose time was just recorded
    database = Database()
    with recording(database) as recorder:
        recorder.note(pull(1))
        wait_until(lambda: bool(database.batches))

        # when it is pulled again and again, then nothing is recorded
        for _ in range(20):
            recorder.note(pull(1))
            time.sleep(SOON)
    assert len(database.batches) == 1

    # but when stored times age at once, then pulls are recorded again
    database.fresh_for = 0.0
    with recording(database) as recorder:
        for number in range(3):
            recorder.note(pull(1))
            wait_until(lambda count=number: len(database.batches) > count + 1)  # type: ignore[misc]


def test_a_stop_records_what_waits() -> None:
    database = Database()
    with recording(database, interval=HOUR) as recorder:
        for number in range(250):
            recorder.note(pull(number))
    assert len(database.recorded) == 250
    assert max(map(len, database.batches)) <= 100


def test_a_stop_tries_again_for_locked_rows() -> None:
    database = Database(locked={pull(1)})
    with recording(database, interval=HOUR) as recorder:
        recorder.note(pull(1))
        recorder.note(pull(2))
    assert database.recorded.keys() == {pull(1), pull(2)}


def test_a_stop_waits_for_the_database_for_a_limited_time() -> None:
    away, reached = threading.Event(), threading.Event()

    def record(_: Mapping[Pull, float]) -> Recorded:
        reached.set()
        away.wait(60)
        return Recorded({}, ())

    recorder = PullRecorder(record, interval=SOON, stop_time=0.5)
    recorder.note(pull(1))
    assert reached.wait(10)
    began = time.monotonic()
    recorder.close()
    assert time.monotonic() - began < 5
    away.set()


def test_pulls_are_kept_while_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    database = Database(failures=2)
    with caplog.at_level(logging.WARNING), recording(database) as recorder:
        noted = time.monotonic()
        recorder.note(pull(1))
        wait_until(lambda: bool(database.batches))
    assert database.failures == 0
    assert abs(database.recorded[pull(1)] - noted) < 0.05  # the time of the pull, not of the last attempt
    assert caplog.text.count("the database is away") == 2


def test_memory_is_bounded_while_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    # given many more different pulls than fit, while the database is away; the last of them is a known one
    database = Database(failures=1)
    with recording(database, interval=HOUR) as recorder:
        for number in range(CAPACITY * 2):
            recorder.note(pull(number))
        recorder.note(pull(7))

        # when it is back, then the first ones are recorded, and the number of the others is logged
        with caplog.at_level(logging.WARNING):
            recorder.close()
    assert database.recorded.keys() >= {pull(number) for number in range(CAPACITY // 2)}
    assert len(database.recorded) < CAPACITY * 2
    assert "were not recorded: too many different ones at once" in caplog.text


def test_no_pull_is_lost_between_the_event_loop_and_the_thread() -> None:
    # given pulls of few and of ever new manifests, noted as fast as possible while batches are recorded
    database, noted = Database(fresh_for=0.0), {}
    with recording(database, interval=0.0001) as recorder:
        for number in range(2_000):
            for each in (pull(number % 7), pull(number // 5)):
                recorder.note(each)
                noted[each] = time.monotonic()

    # then the last pull of each was recorded, with its time
    assert database.recorded.keys() == noted.keys()
    assert all(abs(database.recorded[each] - at) < 0.2 for each, at in noted.items())
