"""A clock that jumps makes nothing go early, and keeps nothing for ever."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.clock_watch import CONFIRMATION, TOLERANCE, Memory, Reading, Shared, assess

START = datetime(2026, 11, 30, tzinfo=UTC)
LONGEST = timedelta(days=2)
JUMPS = st.timedeltas(min_value=TOLERANCE * 2, max_value=timedelta(days=4000))
STEPS = st.lists(st.floats(0.0, 100_000.0), max_size=20)


class _Process:
    """A process that reads a clock which a test sets; `shared` stands for the row in the database."""

    def __init__(self, shared: Shared) -> None:
        self.shared, self.memory = shared, Memory()
        self.offset, self.ticks = timedelta(0), 1000.0

    def check(self, after: float = 3.0) -> str:
        self.ticks += after
        time = START + self.offset + timedelta(seconds=self.ticks)
        self.shared, self.memory, reason = assess(
            Reading(time, self.ticks), self.shared, self.memory, longest=LONGEST
        )
        return reason


def _started() -> _Process:
    process = _Process(Shared(START + timedelta(seconds=1000)))
    assert process.check() == ""
    return process


@given(STEPS)
def test_a_clock_that_agrees_with_the_ticks_stops_nothing_however_rarely_read(
    steps: list[float],
) -> None:
    process = _started()
    assert [process.check(step) for step in steps] == [""] * len(steps)


@given(JUMPS)
def test_after_a_jump_forward_nothing_goes_for_as_long_as_the_jump(jump: timedelta) -> None:
    # given a clock that jumps
    process = _started()
    process.offset += jump
    expected = min(jump, LONGEST).total_seconds()

    # then nothing goes until all content has waited its real time
    assert "jumped forward" in process.check()
    waited = 0.0
    while process.check(expected / 10):
        waited += expected / 10
        assert waited <= expected
    assert waited >= expected * 0.9 - 3

    # and that does not begin again
    assert process.check() == ""


@given(JUMPS)
def test_a_restart_does_not_end_the_wait(jump: timedelta) -> None:
    process = _started()
    process.offset += jump
    assert process.check()
    process.memory = Memory()
    assert process.check()


@given(JUMPS)
def test_a_jump_backward_stops_nothing_and_asks_for_a_repair(jump: timedelta) -> None:
    process = _started()
    process.offset -= jump
    assert process.check() == ""
    assert process.shared.needs_repair
    assert process.check() == ""


@given(JUMPS)
def test_a_jump_that_is_taken_back_ends_the_wait(jump: timedelta) -> None:
    process = _started()
    process.offset += jump
    assert process.check()
    process.offset -= jump
    assert process.check() == ""
    assert process.shared.held_until is None


@given(JUMPS, st.sampled_from([1, -1]))
def test_a_time_after_a_gap_is_taken_for_right_when_no_other_process_contradicts(
    gap: timedelta, sign: int
) -> None:
    process = _Process(Shared(START - sign * gap))
    assert "differs" in process.check()
    assert "differs" in process.check(CONFIRMATION / 2)
    assert process.check(CONFIRMATION) == ""
    assert process.shared.needs_repair is (sign < 0)


@given(JUMPS, st.sampled_from([1, -1]), st.integers(1, 30))
def test_a_process_with_another_clock_than_the_others_deletes_nothing(
    difference: timedelta, sign: int, checks: int
) -> None:
    process = _Process(Shared(START - sign * difference))
    for _ in range(checks):
        assert "differs" in process.check(CONFIRMATION)
        process.shared = replace(process.shared, seen=process.shared.seen + timedelta(seconds=CONFIRMATION))
