"""Rate limits of callers."""

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from registry_data.rates import Rates, anonymous_caller, wait

times = st.floats(0, 1e6, allow_nan=False)
limits = st.integers(1, 100_000)


@given(now=times, limit=st.integers(1, 300))
def test_the_requests_of_one_minute_may_be_a_burst_and_no_more(now: float, limit: int) -> None:
    due = 0.0
    for _ in range(limit):
        seconds, due = wait(now, due, limit)
        assert seconds == 0
    seconds, _ = wait(now, due, limit)
    assert 0 < seconds <= 60 / limit + 1e-6


@given(now=times, limit=limits)
def test_a_caller_that_waits_for_retry_after_is_not_limited(now: float, limit: int) -> None:
    seconds, due = wait(now, now + 60, limit)
    assert seconds > 0
    assert wait(now + seconds, due, limit)[0] == 0


@given(gaps=st.lists(st.floats(0, 2), min_size=1, max_size=300), limit=st.integers(1, 60))
def test_at_most_twice_the_limit_passes_in_any_minute(gaps: list[float], limit: int) -> None:
    due, passed = 0.0, []
    for now in itertools.accumulate(gaps, initial=1000.0):
        seconds, due = wait(now, due, limit)
        if not seconds:
            passed.append(now)
    for number, first in enumerate(passed):
        assert sum(1 for moment in passed[number:] if moment <= first + 60) <= 2 * limit + 1


@given(now=times, due=times, limit=limits)
def test_a_changed_clock_never_results_in_a_long_wait(now: float, due: float, limit: int) -> None:
    assert wait(now, due, limit)[0] <= 60 + 60 / limit + 1e-6


def test_processes_with_the_same_file_share_the_limits(tmp_path: Path) -> None:
    first, second = (Rates(tmp_path / "rates") for _ in range(2))
    assert first.take(b"a caller", 2) == second.take(b"a caller", 2) == 0
    assert first.take(b"a caller", 2) > 0
    assert second.take(b"a caller", 2) > 0


def test_callers_have_separate_limits(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "rates")
    assert [rates.take(b"caller %d" % number, 1) for number in range(1000)] == [0.0] * 1000
    assert all(rates.take(b"caller %d" % number, 1) > 0 for number in range(1000))


def test_the_addresses_of_an_ipv6_64_network_are_one_caller() -> None:
    first, other, neighbour = (
        anonymous_caller(f"2001:db8:0:{text}") for text in ("1::1", "1:ffff::2", "2::1")
    )
    assert first == other == "address 2001:db8:0:1::/64"
    assert neighbour != first
    assert anonymous_caller("203.0.113.5") == anonymous_caller("::ffff:203.0.113.5") == "address 203.0.113.5"
    assert anonymous_caller("unix:") == "address unix:"
