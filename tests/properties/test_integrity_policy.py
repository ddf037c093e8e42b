"""The pace of scrubbing and reconciling, and the rules about errors, for all numbers."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from registry_control.integrity import policy

counts = st.integers(0, 10**9)
sizes = st.integers(0, 10**16)
periods = st.timedeltas(timedelta(seconds=1), timedelta(days=365))
gaps = st.timedeltas(timedelta(0), timedelta(days=30))
attempts = st.integers(0, 10**6)


@given(blobs=counts, size=sizes, period=periods)
def test_everything_is_read_in_half_of_the_period_unless_that_needs_more_than_the_fastest_rate(
    blobs: int, size: int, period: timedelta
) -> None:
    speed = policy.rate(blobs=blobs, size=size, period=period)
    assert policy.SLOWEST <= speed <= policy.FASTEST
    if speed < policy.FASTEST:
        needed = size + blobs * policy.BLOB_OVERHEAD
        # Content is due after half of the period, and the other half is left to read it.
        assert (speed + 1) * period.total_seconds() / policy.HEADROOM >= needed * 0.999


@given(speed=st.integers(policy.SLOWEST, policy.FASTEST), gap=gaps)
def test_a_slice_never_makes_up_for_more_than_the_longest_gap(speed: int, gap: timedelta) -> None:
    assert 0 < policy.budget(speed, gap) <= speed * policy.LONGEST_GAP.total_seconds()


@given(number=counts, period=periods, gap=gaps)
def test_a_pass_always_advances_and_stays_below_the_fastest_pace(
    number: int, period: timedelta, gap: timedelta
) -> None:
    looks = policy.looks(number=number, period=period, since_last=gap)
    assert policy.SLOWEST_LOOKS <= looks <= policy.FASTEST_LOOKS * policy.LONGEST_GAP.total_seconds()


@given(missing=counts, examined=counts)
def test_a_few_missing_objects_and_a_minority_of_them_are_plausible(missing: int, examined: int) -> None:
    suspicious = policy.is_suspicious(missing=missing, examined=examined)
    assert suspicious == (missing >= policy.FEWEST_SUSPICIOUS and missing > examined / 2)


@given(first=attempts, second=attempts)
def test_intervals_grow_and_have_a_limit(first: int, second: int) -> None:
    few, many = sorted((first, second))
    for interval, limit in (
        (policy.retry_after, timedelta(hours=1)),
        (policy.recheck_after, timedelta(days=1)),
    ):
        assert timedelta(0) < interval(few) <= interval(many) <= limit
