"""Background work gives way under load, never stops, and recovers."""

from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.pace import (
    LEAST_PROCESSOR,
    LEAST_SHARE,
    LONGEST_PAUSE,
    MOST_SHARE,
    Pace,
    ProcessorShare,
)

BATCHES = st.lists(
    st.tuples(st.floats(0.0001, 60.0), st.integers(0, 1000), st.floats(0.0, 1.0)), min_size=1, max_size=50
)


@given(BATCHES)
def test_a_pause_is_never_longer_than_the_longest(batches: list[tuple[float, int, float]]) -> None:
    pace = Pace()
    for seconds, rows, waited in batches:
        assert 0 <= pace.after(seconds=seconds, rows=rows, waited=waited) <= LONGEST_PAUSE
        assert LEAST_SHARE <= pace.share <= MOST_SHARE


@given(st.floats(0.001, 0.1), st.floats(2.0, 100.0))
def test_slow_batches_lead_to_the_least_share_and_fast_ones_to_the_most(fast: float, slowdown: float) -> None:
    pace = Pace()
    for _ in range(20):
        pace.after(seconds=fast, rows=200, waited=0.0)
    assert pace.share == MOST_SHARE
    for _ in range(5):
        pace.after(seconds=fast * slowdown, rows=200, waited=0.0)
    assert pace.share == LEAST_SHARE
    for _ in range(30):
        pace.after(seconds=fast, rows=200, waited=0.0)
    assert pace.share == MOST_SHARE


def test_a_thread_that_starts_under_load_notices_that_it_waits_for_a_processor() -> None:
    pace = Pace()
    for _ in range(5):
        pace.after(seconds=0.1, rows=200, waited=0.4)
    assert pace.share == LEAST_SHARE


def test_a_measured_batch_ends_with_a_pause_only_if_there_is_more_to_do() -> None:
    pace = Pace()
    with pace.batch() as batch:
        batch.rows = 10
    assert pace.fastest is None
    with pace.batch() as batch:
        batch.rows, batch.has_more = 10, True
    assert pace.fastest is not None


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 60.0)), max_size=50))
def test_a_transfer_is_never_paused_for_longer_than_the_longest(
    pieces: list[tuple[float, float, float]],
) -> None:
    processor = ProcessorShare()
    for ran, waited, idle in pieces:
        assert 0 <= processor.after(seconds=ran + waited + idle, ran=ran, waited=waited) <= LONGEST_PAUSE
        assert LEAST_PROCESSOR <= processor.share <= 1


def test_a_transfer_pauses_while_the_processors_are_busy_and_not_at_rest() -> None:
    processor = ProcessorShare()
    for _ in range(20):
        processor.after(seconds=0.05, ran=0.05, waited=0.0)
    assert processor.after(seconds=0.05, ran=0.05, waited=0.0) == 0
    for _ in range(5):
        processor.after(seconds=0.05, ran=0.025, waited=0.025)
    assert processor.after(seconds=0.05, ran=0.025, waited=0.025) > 0.15


def test_a_transfer_that_waits_for_the_network_is_not_slowed_down_by_busy_processors() -> None:
    processor = ProcessorShare()
    for _ in range(10):
        assert processor.after(seconds=1.0, ran=0.01, waited=0.02) == 0
