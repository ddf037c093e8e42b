"""Background work gives way under load, never stops, and recovers."""

from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.pace import LEAST_SHARE, LONGEST_PAUSE, MOST_SHARE, Pace

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
