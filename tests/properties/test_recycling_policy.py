"""Properties of the rules of the recycle bin, for any facts and times."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from registry_control.gc.policy import Action, Facts, Rules, judge
from registry_control.recycling.policy import Needs, Presence, last_part, obstacle
from tests.properties.test_gc_policy import FACTS, RULES, TIMES

NEEDS = st.builds(Needs, *[st.none() | st.sampled_from(Presence)] * 3)
NAMES = st.text("abc/:", min_size=1)
RECYCLED = st.builds(
    lambda facts, until: replace(facts, is_deleting=False, is_linked=True, recycled_until=until), FACTS, TIMES
)


@given(NEEDS)
def test_a_restore_is_possible_exactly_when_all_that_it_needs_is_there(needs: Needs) -> None:
    found = [each for each in (needs.namespace, needs.image, needs.manifest) if each is not None]
    assert (obstacle(needs) is None) == (set(found) <= {Presence.THERE})


@given(NEEDS)
def test_the_reason_names_the_outermost_obstacle_and_the_way_out(needs: Needs) -> None:
    for what in ("namespace", "image", "manifest"):
        presence = getattr(needs, what)
        if presence in (None, Presence.THERE):
            continue
        reason = obstacle(needs) or ""
        assert f"its {what}" in reason
        assert (f"restore the {what} first" in reason) == (presence is Presence.RECYCLED)
        return


@given(NAMES, NAMES, st.sampled_from("/:"))
def test_the_full_name_and_its_last_part_mean_the_same(within: str, name: str, separator: str) -> None:
    assert last_part(f"{within}{separator}{name}", within=within, separator=separator) == name


@given(RECYCLED, RULES)
def test_what_the_bin_keeps_goes_with_its_end_and_the_grace_period(facts: Facts, rules: Rules) -> None:
    verdict = judge(facts, rules)
    until = facts.recycled_until
    assert until is not None
    if rules.ignore_grace:
        assert verdict.action is (Action.COLLECT if facts.leased_until is None else Action.KEEP)
    elif facts.leased_until is None or facts.leased_until < until:
        is_over = until <= rules.now and not rules.grace
        expected = Action.COLLECT if is_over else Action.RECYCLED
        assert (verdict.action, verdict.goes_at) == (expected, max(until, rules.now) + rules.grace)
        assert (until.isoformat() in verdict.reason) == (until > rules.now)
    else:
        assert (verdict.action, verdict.goes_at) == (Action.KEEP, facts.leased_until + rules.grace)
