"""A clock that jumps makes nothing go early, and keeps nothing for ever."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.clock_watch import CONFIRMATION, TOLERANCE, Memory, Reading, Shared, assess, held

START = datetime(2026, 11, 30, tzinfo=UTC)
LONGEST = timedelta(days=2)
JUMPS = st.timedeltas(min_value=TOLERANCE * 2, max_value=timedelta(days=4000))
STEPS = st.lists(st.floats(0.0, 100_000.0), max_size=20)


class _Process:
    """A process that reads a clock which a test sets; `shared` stands for the row in the database."""

    def __init__(self, shared: Shared) -> None:
        self.shared, self.memory = shared, Memory()
        self.offset, self.ticks = timedelta(0), 1000.0

    def check(self, after: float = 3.0, *, longest: timedelta = LONGEST) -> str:
        self.ticks += after
        time = START + self.offset + timedelta(seconds=self.ticks)
        self.shared, self.memory, doubt = assess(Reading(time, self.ticks), self.shared, self.memory)
        return doubt or held(time, self.shared, longest=longest)


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


@given(JUMPS, st.timedeltas(min_value=timedelta(hours=1), max_value=timedelta(days=4000)))
def test_what_is_deleted_at_a_greater_age_waits_for_longer(jump: timedelta, longest: timedelta) -> None:
    process = _started()
    process.offset += jump
    process.check()
    needed = min(jump, longest).total_seconds()
    assert process.check(needed - 10.0, longest=longest)
    assert process.check(20.0, longest=longest) == ""


@given(JUMPS, JUMPS, st.floats(0.0, 1.0))
def test_content_waits_for_the_sum_of_two_jumps(first: timedelta, second: timedelta, when: float) -> None:
    # given a second jump at any time of the wait after the first one
    process, longest = _started(), first + second
    process.offset += first
    process.check()
    waited = first.total_seconds() * when
    process.check(waited, longest=longest)
    process.offset += second
    process.check(0.0)

    # then content from before both has waited its real time at the end, and not much longer
    left = longest.total_seconds() - waited
    assert process.check(left - 100.0, longest=longest)
    assert process.check(200.0, longest=longest) == ""


@given(JUMPS, st.floats(0.1, 0.9))
def test_a_jump_that_is_taken_back_in_part_shortens_the_wait(jump: timedelta, share: float) -> None:
    process, back = _started(), jump * share
    process.offset += jump
    process.check(longest=jump)
    process.offset -= back
    process.check(longest=jump)
    left = (jump - back).total_seconds()
    if back > TOLERANCE and left > 100.0:
        assert process.shared.needs_repair
        assert process.check(left - 100.0, longest=jump)
        assert process.check(200.0, longest=jump) == ""


@given(JUMPS, st.sampled_from([1, -1]))
def test_a_jump_that_two_processes_notice_counts_once(jump: timedelta, sign: int) -> None:
    # given a wait after an earlier jump, and two processes
    one = _started()
    one.offset += timedelta(days=5000)
    one.check()
    other = _Process(one.shared)
    other.ticks, other.offset = one.ticks, one.offset
    other.check(0.0)

    # when both notice the same jump
    one.offset += sign * jump
    other.offset = one.offset
    one.check()
    other.shared = one.shared
    other.check(5.0)

    # then the second one changes nothing
    assert replace(other.shared, seen=one.shared.seen) == one.shared
