"""Properties of the rules of garbage collection and of promises, for any facts and times."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from registry_control.catalog.selectors.resolve import ANSWER_TIME, BlobRecord
from registry_control.gc.policy import FIRST_RETRY, LAST_RETRY, Action, Facts, Rules, judge, retry_after

TIMES = st.integers(1_577_836_800, 2_208_988_800).map(lambda second: datetime.fromtimestamp(second, UTC))
GRACES = st.timedeltas(timedelta(0), timedelta(days=400))
FACTS = st.builds(
    Facts,
    is_deleting=st.booleans(),
    is_linked=st.booleans(),
    leased_until=st.none() | TIMES,
    unreferenced_since=st.none() | TIMES,
    retry_at=st.none() | TIMES,
)
RULES = st.builds(Rules, now=TIMES, grace=GRACES, ignore_grace=st.booleans())
LEASES = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


@given(FACTS, RULES)
def test_invariant_2_no_linked_or_leased_blob_is_collected(facts: Facts, rules: Rules) -> None:
    verdict = judge(facts, rules)
    if not facts.is_deleting and (facts.is_linked or facts.leased_until is not None):
        assert verdict.action is Action.KEEP


@given(FACTS, RULES)
def test_a_live_blob_is_collected_only_when_its_grace_period_is_over_or_ignored(
    facts: Facts, rules: Rules
) -> None:
    verdict = judge(facts, rules)
    if verdict.action is Action.COLLECT:
        assert facts.unreferenced_since is not None
        assert verdict.goes_at == facts.unreferenced_since + rules.grace
        assert facts.unreferenced_since <= rules.now
        assert rules.ignore_grace or verdict.goes_at <= rules.now


@given(FACTS, RULES)
def test_every_unreferenced_blob_goes_in_the_end(facts: Facts, rules: Rules) -> None:
    verdict = judge(facts, rules)
    if verdict.action is Action.WAIT:
        assert verdict.goes_at is not None
        later = Rules(verdict.goes_at, rules.grace)
        assert judge(facts, later).action is Action.COLLECT


@given(FACTS, RULES)
def test_a_deletion_that_has_begun_is_never_given_up(facts: Facts, rules: Rules) -> None:
    assert (judge(facts, rules).action is Action.DELETE) == facts.is_deleting


@given(FACTS, RULES)
def test_a_later_time_and_ignoring_the_grace_period_never_keep_more(facts: Facts, rules: Rules) -> None:
    if judge(facts, rules).action is Action.COLLECT:
        assert judge(facts, replace(rules, now=rules.now + timedelta(1))).action is Action.COLLECT
        assert judge(facts, Rules(rules.now, rules.grace, ignore_grace=True)).action is Action.COLLECT


@given(st.integers(0, 10_000))
def test_retries_come_later_and_later_and_never_rarely(attempts: int) -> None:
    assert FIRST_RETRY <= retry_after(attempts) <= retry_after(attempts + 1) <= LAST_RETRY


@given(TIMES, st.none() | TIMES, LEASES, st.booleans())
def test_invariant_2_a_promise_that_writes_no_lease_holds_for_three_quarters_of_one(
    moment: datetime, leased_until: datetime | None, lease: timedelta, linked: bool
) -> None:
    blob = BlobRecord(id=1, size=1, storage_key="", leased_until=leased_until, linked=linked, read_at=moment)
    if not linked and not blob.needs_lease(lease):
        assert leased_until is not None
        assert leased_until - (moment + ANSWER_TIME) >= lease * 0.75


@given(TIMES, LEASES)
def test_a_new_lease_need_not_be_renewed_in_its_first_quarter(moment: datetime, lease: timedelta) -> None:
    def read(after: timedelta) -> BlobRecord:
        until = moment + lease + ANSWER_TIME
        return BlobRecord(1, 1, "", leased_until=until, linked=False, read_at=moment + after)

    assert not read(lease * 0.2).needs_lease(lease)
    assert read(lease * 0.3).needs_lease(lease)
