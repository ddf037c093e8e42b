"""Retention beside pushes, pulls, deletions and new rules, on two real PostgreSQL connections."""

from uuid import UUID

import pytest

from registry_control.catalog.models import Image, Tag
from registry_control.catalog.services import manifests, tags
from registry_control.common.clock import now
from registry_control.gc.models import RetentionRun
from registry_control.gc.services import enforcement
from registry_control.namespaces.models import Namespace, Retention
from tests.factories import TestKey, make_manifest, make_namespace, push_blob
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction
from tests.integration.gc.retaining import (
    enforce,
    manifests_of,
    new_image,
    pulled,
    push,
    retag,
    set_rules,
    tags_of,
)

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]


def run_a_slice() -> bool:
    return enforcement.enforce(seconds=60)


def test_a_tag_that_a_push_moves_meanwhile_stays(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a pass that waits for a push, after it has planned to remove the tag
    push(owner, image_id, "old", days=9)
    push(owner, image_id, "older", days=10)
    set_rules(namespace, {"keep_days_since_tagged": 5})
    new = make_manifest([push_blob(owner, image_id, b"new")])
    with open_transaction():
        manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=["old"])
        enforcing = Other(run_a_slice)
        assert enforcing.waits

    # then the tag is decided again, with its new manifest
    enforcing.end()
    assert tags_of(image_id) == ["old"]
    assert Tag.objects.get(image=image_id).manifest.digest == new.digest


def test_a_tag_that_is_pulled_meanwhile_stays(owner: TestKey, namespace: Namespace, image_id: UUID) -> None:
    push(owner, image_id, "a", days=9)
    push(owner, image_id, "b", days=9)
    set_rules(namespace, {"keep_days_since_pulled": 5})
    with open_transaction():
        Image.objects.select_for_update().get(pk=image_id)
        enforcing = Other(run_a_slice)
        assert enforcing.waits
        pulled(image_id, tag="a", days=0)
    enforcing.end()
    assert tags_of(image_id) == ["a"]


def test_as_many_of_the_newest_tags_stay_when_one_of_them_is_deleted_meanwhile(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a pass that has planned to keep the newest two
    for number in range(4):
        push(owner, image_id, f"t{number}", days=number)
    set_rules(namespace, {"keep_newest": 2})
    with open_transaction():
        tags.untag(actor=owner.actor, image_id=image_id, name="t0")
        enforcing = Other(run_a_slice)
        assert enforcing.waits

    # when one of these is deleted before it removes the others, then it removes nothing by the old plan
    enforcing.end()
    assert {"t1", "t2"} <= set(tags_of(image_id))

    # and the next pass keeps two
    enforce(namespace)
    assert tags_of(image_id) == ["t1", "t2"]


def test_nothing_is_removed_by_rules_that_have_been_replaced(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a pass that waits for an image
    push(owner, image_id, "a", days=9)
    set_rules(namespace, {"keep_days_since_tagged": 5})
    with open_transaction():
        Image.objects.select_for_update().get(pk=image_id)
        enforcing = Other(run_a_slice)
        assert enforcing.waits

        # when other rules are stored, then it removes nothing afterwards
        Other(lambda: set_rules(namespace, {"tags": "b"})).end()
    enforcing.end()
    assert tags_of(image_id) == ["a"]


def test_other_rules_are_stored_when_the_removal_that_is_under_way_has_ended(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a pass in the middle of removing
    push(owner, image_id, "a", days=9)
    set_rules(namespace, {"keep_days_since_tagged": 5})
    with open_transaction():
        Tag.objects.select_for_update().get(image=image_id)
        enforcing = Other(run_a_slice)
        assert enforcing.waits
        storing = Other(lambda: set_rules(namespace, {"tags": "b"}))
        assert storing.waits
    enforcing.end()
    storing.end()
    assert tags_of(image_id) == []


def test_a_pass_that_has_planned_by_old_rules_removes_nothing(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "a", days=9)
    set_rules(namespace, {"keep_days_since_tagged": 5})
    with open_transaction():
        Retention.objects.filter(pk=namespace.pk).update(enabled=False, updated_at=now())
        enforcing = Other(run_a_slice)
        assert enforcing.waits
    assert enforcing.end()
    assert tags_of(image_id) == ["a"]


def test_a_manifest_that_is_tagged_meanwhile_stays_with_its_children(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    child = push(owner, image_id, days=9)
    index = push(owner, image_id, days=9, children=[child])
    set_rules(namespace, untagged_days=5)
    with open_transaction():
        retag(owner, image_id, index, "latest")
        enforcing = Other(run_a_slice)
        assert enforcing.waits
    enforcing.end()
    assert manifests_of(image_id) == {child, index}


def test_a_push_of_an_index_and_the_removal_of_its_child_exclude_each_other(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a child that was pushed long ago
    for _ in range(5):
        child = push(owner, image_id, days=9)
        set_rules(namespace, untagged_days=5)
        new = make_manifest(children=[child])

        # when an index that lists it is pushed at the moment of its removal
        def put(new: manifests.NewManifest = new) -> None:
            manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=["latest"])

        pushed, _ = at_once(put, run_a_slice)

        # then either the index is there with the child, or the push has failed
        assert (pushed is None) == (child in manifests_of(image_id))
        assert (pushed is None) == (new.digest in manifests_of(image_id))


def test_two_workers_share_the_namespaces(owner: TestKey) -> None:
    # given several namespaces
    found = []
    for _ in range(4):
        namespace = make_namespace(owner)
        image_id = new_image(owner, namespace)
        for number in range(3):
            push(owner, image_id, f"t{number}", days=number)
        set_rules(namespace, {"keep_newest": 1})
        found.append(image_id)

    # when two workers run, then each pass is run once
    def work() -> int:
        number = 0
        while enforcement.enforce(seconds=5):
            number += 1
        return number

    assert sum(at_once(work, work)) == 4
    assert [tags_of(image_id) for image_id in found] == [["t0"]] * 4


def test_an_image_that_is_deleted_meanwhile_is_left(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "a", days=9)
    set_rules(namespace, {"keep_days_since_tagged": 5})
    with open_transaction():
        Image.objects.filter(pk=image_id).update(status="deleting")
        enforcing = Other(run_a_slice)
        assert enforcing.waits
    enforcing.end()
    assert tags_of(image_id) == ["a"]
    assert RetentionRun.objects.get().skipped == []
