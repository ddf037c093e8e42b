"""The pure rules of retention: what is kept, what goes, and in which order rules decide."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.errors import InvalidArgument
from registry_control.common.globs import matches
from registry_control.gc.retention import (
    ACCURACY,
    ImageRules,
    Newest,
    Policy,
    Rule,
    Tag,
    Times,
    Untagged,
    is_over,
    last_use,
    parse,
    removable,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC)
GLOBS = st.sampled_from(["*", "a*", "?", "b", "a?", "v*"])
KEEPS = st.none() | st.integers(1, 5)
RULES = st.builds(Rule, GLOBS, GLOBS, KEEPS, KEEPS, KEEPS)
TIMES = st.integers(0, 10 * 24).map(lambda hours: NOW - timedelta(hours=hours))
NAMES = st.text(alphabet="abv", min_size=1, max_size=2)
TAGS = st.builds(Tag, NAMES, TIMES, st.none() | TIMES, st.none() | TIMES)
TIMES_OF_IMAGE = st.builds(
    Times,
    st.just(NOW),
    st.none() | TIMES,
    st.none() | TIMES,
    st.integers(0, 5).map(lambda days: timedelta(days=days)),
)
POLICIES = st.builds(
    Policy,
    st.booleans(),
    st.lists(RULES, max_size=4).map(tuple),
    KEEPS,
    st.lists(GLOBS, max_size=2).map(tuple),
    st.lists(GLOBS, max_size=2).map(tuple),
)


@given(POLICIES)
def test_what_is_shown_can_be_stored_again(policy: Policy) -> None:
    assert parse(policy.as_json()) == policy


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["rules", "images", "tags", "enabled", "x"]), inner)
        ),
    )
)
def test_any_document_is_stored_or_refused(document: object) -> None:
    with suppress(InvalidArgument):
        assert isinstance(parse(document), Policy)


@given(POLICIES, st.lists(TAGS, unique_by=lambda tag: tag.name), TIMES_OF_IMAGE)
def test_decisions_are_those_of_the_definition(policy: Policy, tags: list[Tag], times: Times) -> None:
    rules = ImageRules(policy, "a", times)
    newest = Newest(rules.limits())
    for tag in tags:
        newest.add(rules.rule_for(tag.name), tag)
    chosen = newest.chosen()
    for tag in tags:
        number = rules.rule_for(tag.name)
        is_newest = number is not None and tag.name in chosen.get(number, ())
        decision = rules.decide(tag, number=number, is_newest=is_newest)
        assert decision.keep == expected(policy, tags, tag, times), decision
        assert decision.reason
        assert decision.keep or decision.rule == number


def first_rule(policy: Policy, tag: Tag) -> int | None:
    return next(
        (
            number
            for number, rule in enumerate(policy.rules)
            if matches(rule.images, "a") and matches(rule.tags, tag.name)
        ),
        None,
    )


def expected(policy: Policy, tags: list[Tag], tag: Tag, times: Times) -> bool:
    """The definition, one sentence after the other."""
    protected = any(matches(glob, tag.name) for glob in policy.protected_tags)
    if protected and not any(matches(glob, tag.name) for glob in policy.protected_except):
        return True
    number = first_rule(policy, tag)
    if number is None:
        return True
    rule = policy.rules[number]
    rivals = sorted(
        (each for each in tags if first_rule(policy, each) == number),
        key=lambda each: (each.tagged_at, each.name),
        reverse=True,
    )
    restores = [each for each in (tag.restored_at, times.restored_at) if each and each > tag.tagged_at]
    used_at = last_use(tag.tagged_at, tag.pulled_at, pulls_since=times.pulls_since)
    return (
        any(NOW - each < times.restored_stays for each in restores)
        or (rule.keep_newest is not None and tag in rivals[: rule.keep_newest])
        or (
            rule.keep_days_since_tagged is not None
            and NOW - max([tag.tagged_at, *restores]) < timedelta(days=rule.keep_days_since_tagged)
        )
        or (
            rule.keep_days_since_pulled is not None
            and NOW - max([used_at, *restores]) < timedelta(days=rule.keep_days_since_pulled)
        )
    )


@given(TIMES, st.none() | TIMES, st.none() | TIMES)
def test_content_counts_as_used_at_least_until_its_push_and_its_last_pull(
    pushed_at: datetime, pulled_at: datetime | None, pulls_since: datetime | None
) -> None:
    used_at = last_use(pushed_at, pulled_at, pulls_since=pulls_since)
    assert used_at >= pushed_at
    assert pulled_at is None or used_at >= pulled_at + ACCURACY
    assert pulled_at is not None or pulls_since is None or used_at >= pulls_since


def test_a_huge_number_of_days_is_never_over() -> None:
    assert not is_over(datetime(1970, 1, 1, tzinfo=UTC), 2**31 - 1, NOW)


IDS = st.integers(0, 7)
GRAPHS = st.dictionaries(
    IDS,
    st.builds(Untagged, st.booleans(), st.booleans(), st.lists(IDS, max_size=2).map(tuple), st.none() | IDS),
)


def closed(graph: Mapping[int, Untagged]) -> dict[int, Untagged]:
    """The graph without references to manifests that it does not have."""
    return {
        id_: Untagged(
            each.is_kept,
            each.is_over,
            tuple(parent for parent in each.parents if parent in graph),
            each.subject if each.subject in graph else None,
        )
        for id_, each in graph.items()
    }


@given(GRAPHS)
def test_what_stays_keeps_its_children_and_referrers_and_needs_a_reason(found: dict[int, Untagged]) -> None:
    graph = closed(found)
    going = removable(graph)
    for id_, each in graph.items():
        holders = {*each.parents, *({each.subject} if each.subject is not None else ())}
        if id_ in going:
            # nothing goes that is kept, that is in use without a subject, or that something needs which stays
            assert not each.is_kept
            assert each.is_over or each.subject is not None
            assert holders <= going
        else:
            # and nothing stays without a reason
            assert each.is_kept or holders - going or (not each.is_over and each.subject is None)


def test_a_cycle_goes_as_a_whole() -> None:
    # an index whose subject is its own child
    cycle = {1: Untagged(False, True, subject=2), 2: Untagged(False, True, parents=(1,))}
    assert removable(cycle) == {1, 2}
    assert removable({**cycle, 2: Untagged(False, False, parents=(1,))}) == set()


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_as_many_of_the_newest_are_chosen_as_the_rule_keeps(limit: int) -> None:
    newest = Newest({1: limit})
    for number in range(1000):
        newest.add(1, Tag(f"t{number}", NOW - timedelta(hours=(number * 7) % 1000), None))
    assert len(newest.chosen()[1]) == limit
