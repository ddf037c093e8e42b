"""Passes of retention: what they remove, what they keep, and that the preview says the same."""

from datetime import timedelta
from uuid import UUID

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.services import manifests, reachability, tags
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.gc.models import RetentionRun
from registry_control.gc.retention import NOTHING
from registry_control.gc.selectors.retention import policy_of
from registry_control.gc.services import enforcement
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey
from tests.integration.gc.retaining import (
    enforce,
    manifests_of,
    new_image,
    preview,
    pulled,
    push,
    retag,
    set_rules,
    sizes,
    tags_of,
)

pytestmark = pytest.mark.django_db


def test_the_newest_tags_of_each_image_stay(owner: TestKey, namespace: Namespace, image_id: UUID) -> None:
    # given two images with tags whose names and ages are in different orders
    other = new_image(owner, namespace, "team/other")
    for image in (image_id, other):
        for name, days in (("e", 1), ("b", 5), ("d", 2), ("a", 3), ("c", 4)):
            push(owner, image, name, days=days)
    set_rules(namespace, {"keep_newest": 2})

    # when the pass ends, then it has removed what the preview said, with the rule's number in the audit
    planned = [each["tag"] for each in preview(owner, namespace)["tags"] if each["action"] == "remove"]
    assert planned == ["a", "b", "c"] * 2
    run = enforce(namespace)
    assert tags_of(image_id) == tags_of(other) == ["d", "e"]
    assert (run.tags, run.manifests, run.skipped) == (6, 0, [])
    events = AuditEvent.objects.filter(verb="tag.delete", target_id=str(image_id))
    assert {(event.actor_kind, event.detail["rule"]) for event in events} == {("system", 1)}

    # and the manifests are there, untagged, which the API counts
    assert len(manifests_of(image_id)) == 5
    stored = Image.objects.get(pk=image_id)
    assert (stored.tag_rows, stored.untagged_size) == (2, 30)


def test_any_keep_of_the_first_rule_that_matches_holds_a_tag(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "pr-new", days=1)
    push(owner, image_id, "pr-old", days=9)
    push(owner, image_id, "pr-pulled", days=9)
    push(owner, image_id, "pr-pulled-long-ago", days=9)
    push(owner, image_id, "other", days=900)
    push(owner, image_id, "sha-1", days=900)
    pulled(image_id, tag="pr-pulled", days=2)
    pulled(image_id, tag="pr-pulled-long-ago", days=8)
    set_rules(
        namespace,
        {"images": "none/*", "tags": "*"},
        {"tags": "pr-*", "keep_days_since_tagged": 7, "keep_days_since_pulled": 7},
        {"tags": "pr-old"},
        {"tags": "sha-?"},
    )
    reasons = {each["tag"]: (each["action"], each["reason"]) for each in preview(owner, namespace)["tags"]}
    assert reasons["pr-new"] == ("keep", "rule 2 keeps it: it was tagged in the last 7 days")
    assert reasons["pr-pulled"] == ("keep", "rule 2 keeps it: it was pulled or pushed in the last 7 days")
    assert reasons["other"] == ("keep", "no rule matches it")
    assert reasons["pr-old"][0] == reasons["pr-pulled-long-ago"][0] == reasons["sha-1"][0] == "remove"
    assert reasons["pr-old"][1].startswith("rule 2 does not keep it: it was tagged at ")
    enforce(namespace)
    assert tags_of(image_id) == ["other", "pr-new", "pr-pulled"]


def test_a_push_counts_as_a_pull_and_old_namespaces_have_no_earlier_pulls_recorded(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given tags that were never pulled, in a namespace that is older than the records of pulls
    push(owner, image_id, "new", days=1)
    push(owner, image_id, "old", days=10)
    set_rules(namespace, {"keep_days_since_pulled": 5})
    Namespace.objects.filter(pk=namespace.pk).update(pulls_recorded_from=now() - timedelta(days=3))
    enforce(namespace)
    assert tags_of(image_id) == ["new", "old"]

    # when the records are long enough, then the tag goes
    Namespace.objects.filter(pk=namespace.pk).update(pulls_recorded_from=now() - timedelta(days=6))
    enforce(namespace)
    assert tags_of(image_id) == ["new"]


def test_a_push_of_the_digest_that_a_tag_has_counts_as_a_push(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given tags that got their digests long ago and were never pulled; a build pushes one of them every night
    nightly = push(owner, image_id, "nightly", days=100)
    push(owner, image_id, "old", days=100)
    Namespace.objects.filter(pk=namespace.pk).update(pulls_recorded_from=now() - timedelta(days=100))
    set_rules(namespace, {"keep_days_since_pulled": 14})
    for _ in range(2):
        retag(owner, image_id, nightly, "nightly")
    enforce(namespace)
    assert tags_of(image_id) == ["nightly"]

    # when the build ends, then the tag goes
    Tag.objects.update(pushed_at=now() - timedelta(days=15))
    enforce(namespace)
    assert tags_of(image_id) == []


def test_a_repeated_push_counts_although_it_is_not_recorded_within_an_hour(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given tags whose digests were pushed again less than an hour after they got them
    past = {"day": 1 - 59 / 24 / 60, "two": 1 + 59 / 24 / 60, "three": 1 + 61 / 24 / 60}
    Namespace.objects.filter(pk=namespace.pk).update(pulls_recorded_from=now() - timedelta(days=100))
    for name, days in past.items():
        retag(owner, image_id, push(owner, image_id, name, days=59 / 24 / 60), name)
        Tag.objects.filter(name=name).update(updated_at=now() - timedelta(days=days))
    set_rules(namespace, {"keep_days_since_pulled": 1})
    enforce(namespace)
    assert tags_of(image_id) == ["day", "two"]


def test_protected_tags_stay(owner: TestKey, namespace: Namespace, image_id: UUID) -> None:
    for name in ("v1", "v1-rc1", "x"):
        push(owner, image_id, name, days=100)
    set_rules(namespace, {"keep_days_since_tagged": 1}, protected_tags=["v*"], protected_except=["*-rc*"])
    found = {each["tag"]: each["reason"] for each in preview(owner, namespace)["tags"]}
    assert found["v1"] == 'protected by "v*"'
    enforce(namespace)
    assert tags_of(image_id) == ["v1"]


def test_untagged_manifests_go_with_their_children_and_referrers(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given an old index with a child and signatures, some of them new
    child = push(owner, image_id, days=50)
    index = push(owner, image_id, days=50, children=[child])
    signature = push(owner, image_id, days=50, subject=index)
    push(owner, image_id, subject=signature)
    # and what is kept: by a tag, by being new, by having been pulled, by a new index or a kept subject
    tagged_child = push(owner, image_id, days=50)
    tagged = push(owner, image_id, "latest", days=50, children=[tagged_child])
    new_child = push(owner, image_id, days=50)
    used = push(owner, image_id, days=50)
    pulled(image_id, digest=used, days=1)
    kept = {
        tagged_child,
        tagged,
        push(owner, image_id, days=50, subject=tagged),
        new_child,
        push(owner, image_id, children=[new_child]),
        used,
        push(owner, image_id, days=50, subject=used),
        push(owner, image_id, subject=f"sha256:{'0' * 64}"),
    }
    alone = push(owner, image_id, days=50, layers=3)
    before = sizes(image_id)
    set_rules(namespace, untagged_days=30)

    # when the pass ends, then the preview has said how much goes
    planned = preview(owner, namespace)
    assert [planned["manifests"], planned["bytes"]] == [5, 4 * 10 + 30]
    run = enforce(namespace)
    assert (run.manifests, run.tags) == (5, 0)
    assert manifests_of(image_id) == kept
    assert alone not in kept
    assert sizes(image_id) == before - planned["bytes"]
    events = AuditEvent.objects.filter(verb="manifest.delete", actor_kind="system")
    assert events.count() == 5
    assert preview(owner, namespace)["manifests"] == 0


def test_a_manifest_is_untagged_only_since_its_tag_left_it(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given an old manifest whose tag has just been moved
    old = push(owner, image_id, "latest", days=100)
    push(owner, image_id, "latest")
    set_rules(namespace, untagged_days=30)
    enforce(namespace)
    assert old in manifests_of(image_id)

    # when that was long ago, then it goes
    Manifest.objects.filter(digest=old).update(untagged_at=now() - timedelta(days=31))
    enforce(namespace)
    assert old not in manifests_of(image_id)


def test_an_untagged_manifest_that_is_pushed_again_stays(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    """A client pushes the children of an index by their digests, even if they exist, and then the index."""
    child = push(owner, image_id, days=100)
    push(owner, image_id, days=100)
    set_rules(namespace, untagged_days=30)
    retag(owner, image_id, child)
    enforce(namespace)
    assert manifests_of(image_id) == {child}


def test_times_do_not_come_from_the_clock_of_the_node_that_takes_a_push(
    owner: TestKey, namespace: Namespace, image_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a node whose clock is two days behind
    for module in (manifests, tags, reachability):
        monkeypatch.setattr(module, "now", lambda: now() - timedelta(days=2), raising=False)
    untagged = push(owner, image_id)
    push(owner, image_id, "moved")
    push(owner, image_id, "moved")
    monkeypatch.undo()

    # when rules remove what is older than a day, then what it has just taken stays
    set_rules(namespace, {"keep_days_since_tagged": 1}, untagged_days=1)
    enforce(namespace)
    assert tags_of(image_id) == ["moved"]
    assert len(manifests_of(image_id)) == 3
    assert untagged in manifests_of(image_id)


def test_a_tag_on_an_index_ends_the_untagged_time_of_its_children(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    child = push(owner, image_id, days=9)
    index = push(owner, image_id, "latest", days=9, children=[child])

    # when the tag is moved away and back, then the times are set for both, and removed
    push(owner, image_id, "latest")
    both = Manifest.objects.filter(digest__in=(child, index))
    assert both.filter(untagged_at__gt=now() - timedelta(minutes=1)).count() == 2
    retag(owner, image_id, index, "latest")
    assert both.filter(untagged_at=None).count() == 2

    # and a recount sets the same
    retag(owner, image_id, child, "latest")
    since = both.get(digest=index).untagged_at
    Manifest.objects.filter(digest=index).update(is_reachable=True)
    reachability.recount(image_id)
    assert both.filter(digest=index, untagged_at__gt=since).exists()
    assert both.get(digest=child).untagged_at is None


def test_disabled_rules_and_locked_images_are_left_alone(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "a", days=9)
    rule = {"keep_days_since_tagged": 1}
    set_rules(namespace, rule, enabled=False)
    assert not enforcement.enforce(seconds=1)
    assert not RetentionRun.objects.exists()
    assert preview(owner, namespace)["tags"][0]["action"] == "remove"

    set_rules(namespace, rule)
    Image.objects.filter(pk=image_id).update(status=Status.LOCKED)
    assert enforce(namespace).skipped == [f"{namespace}/app is locked by an administrator"]
    (shown,) = preview(owner, namespace)["tags"]
    assert (shown["action"], shown["reason"]) == ("keep", "an administrator has locked the image")
    Namespace.objects.filter(pk=namespace.pk).update(status=Status.LOCKED)
    assert enforce(namespace).skipped == [f"{namespace} is locked by an administrator"]
    assert tags_of(image_id) == ["a"]


def test_a_namespace_in_the_recycle_bin_is_left_alone_until_it_is_restored(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "a", days=9)
    set_rules(namespace, {"keep_days_since_tagged": 1})
    Namespace.objects.filter(pk=namespace.pk).update(status=Status.RECYCLED)
    assert enforce(namespace).tags == 0
    Namespace.objects.filter(pk=namespace.pk).update(status=Status.READY)
    assert enforce(namespace).tags == 1


def test_a_preview_uses_the_rules_of_its_body_and_changes_nothing(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    digest = push(owner, image_id, "a")
    kept = {"image": "app", "tag": "a", "digest": digest, "action": "keep", "reason": "no rule matches it"}
    assert preview(owner, namespace) == {"tags": [kept], "manifests": 0, "bytes": 0}
    (tag,) = preview(owner, namespace, {"rules": [{"images": "a??", "tags": "a"}]})["tags"]
    assert tag["action"] == "remove"
    assert policy_of(namespace.pk) == NOTHING
    assert tags_of(image_id) == ["a"]

    # and an empty object has no rules, whatever is stored; no body stands for what is stored
    set_rules(namespace, {"images": "*", "tags": "a"})
    assert preview(owner, namespace, {})["tags"] == [kept]
    assert preview(owner, namespace)["tags"][0]["action"] == "remove"


def test_a_pass_continues_where_its_slice_ended(owner: TestKey, namespace: Namespace, image_id: UUID) -> None:
    # given more than a slice of no time can do, in several images
    others = [new_image(owner, namespace, f"other-{number}") for number in range(3)]
    for image in (image_id, *others):
        for number in range(4):
            push(owner, image, f"t{number}", days=10 + number)
        push(owner, image, days=90)
    set_rules(namespace, {"keep_newest": 1}, untagged_days=30)

    # when it runs in such slices, then all is done in the end, and counted
    run = enforce(namespace, seconds=0)
    assert (run.tags, run.manifests) == (12, 4)
    for image in (image_id, *others):
        assert tags_of(image) == ["t0"]
    assert run.due_at > now() + timedelta(minutes=50)


def test_new_rules_begin_a_new_pass_at_once_and_an_old_claim_ends(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "a", days=5)
    set_rules(namespace, {"keep_days_since_tagged": 9})
    enforce(namespace)
    run = RetentionRun.objects.get()
    assert run.due_at > now()

    # given a worker that was killed with the claim
    RetentionRun.objects.update(claim=namespace.pk, claimed_until=now() + timedelta(minutes=4), due_at=now())
    assert not enforcement.enforce(seconds=1)

    # when other rules are stored, then the next worker works by them
    set_rules(namespace, {"keep_days_since_tagged": 1})
    assert enforcement.enforce(seconds=1)
    assert tags_of(image_id) == []


@pytest.mark.parametrize("field", ["due_at", "claimed_until"])
def test_a_time_that_a_wrong_clock_has_planned_does_not_stop_retention(
    owner: TestKey, namespace: Namespace, image_id: UUID, field: str
) -> None:
    push(owner, image_id, "a", days=5)
    set_rules(namespace, {})
    RetentionRun.objects.update(**{field: now() + timedelta(days=400)})
    assert enforcement.enforce(seconds=1)
    assert tags_of(image_id) == []
