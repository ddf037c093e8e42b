"""Retention with a recycle bin: what it removes can be restored, and stays then."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import override_settings

from bench.growth import plans
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Image, Manifest, ManifestChild, MissingChild, Tag
from registry_control.catalog.services import manifests, moves, reachability, tags
from registry_control.common.clock import now
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import emptying
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey
from tests.integration.control.api import Api
from tests.integration.gc.recycling import BIN, entry_id, expire, finish, restore
from tests.integration.gc.retaining import enforce, manifests_of, preview, push, set_rules, sizes, tags_of
from tests.integration.growth.watched import Statement, recording

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("recycle_bin")]


def test_removed_tags_and_manifests_are_in_the_recycle_bin(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given an old tag, and an old untagged index with a child, a signature and a plain manifest
    tagged = push(owner, image_id, "old", days=9)
    child = push(owner, image_id, days=9)
    index = push(owner, image_id, days=9, children=[child])
    signature = push(owner, image_id, days=9, subject=index)
    plain = push(owner, image_id, days=9)
    set_rules(namespace, {"keep_days_since_tagged": 5}, untagged_days=5)

    # when a pass runs, then it removes what the preview said, and all of that is in the bin
    planned = preview(owner, namespace)
    assert ([each["action"] for each in planned["tags"]], planned["manifests"]) == (["remove"], 4)
    assert enforce(namespace).manifests == 4
    assert preview(owner, namespace) == {"tags": [], "manifests": 0, "bytes": 0}
    assert (tags_of(image_id), manifests_of(image_id)) == ([], {tagged})
    found = RecycleBinEntry.objects.values_list("name", "deleted_by")
    image = Image.objects.get(pk=image_id)
    names = [f"{image}:old", *(f"{image}@{digest}" for digest in (index, child, signature, plain))]
    assert sorted(found) == sorted((name, "system") for name in names)


def restore_digest(owner: TestKey, digest: str) -> None:
    found = RecycleBinEntry.objects.get(digest=digest, kind="manifest")
    assert Api(owner).post(f"{BIN}/{found.pk}/restore").status == 200


@pytest.mark.parametrize("at_once", [500, 1])
def test_an_index_comes_back_with_what_rules_removed_with_it(
    owner: TestKey, namespace: Namespace, image_id: UUID, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(moves, "_AT_ONCE", at_once)
    # given two indexes with a common child, one of them in another index, and signatures at each level
    children = [push(owner, image_id, days=9) for _ in range(3)]
    inner = push(owner, image_id, days=9, children=children[:2])
    outer = push(owner, image_id, days=9, children=[inner])
    other = push(owner, image_id, days=9, children=children[1:])
    signatures = [push(owner, image_id, days=9, subject=each) for each in (outer, children[0])]
    plain = push(owner, image_id, days=9)
    listed = set(ManifestChild.objects.values_list("parent__digest", "child__digest"))
    before, bytes_before = manifests_of(image_id), sizes(image_id)
    set_rules(namespace, untagged_days=5)
    enforce(namespace)
    assert manifests_of(image_id) == set()

    # when the outer one is restored, then it is whole, and stays
    restore_digest(owner, outer)
    whole = {outer, inner, *children[:2], *signatures}
    assert manifests_of(image_id) == whole
    assert preview(owner, namespace)["manifests"] == 0
    assert enforce(namespace).manifests == 0
    left = RecycleBinEntry.objects.values_list("digest", flat=True)
    assert set(left) == {other, children[2], plain}

    # and the other index gets back what is left of it, and the common child
    restore_digest(owner, other)
    assert manifests_of(image_id) == before - {plain}
    restore_digest(owner, plain)
    assert (manifests_of(image_id), sizes(image_id)) == (before, bytes_before)
    assert set(ManifestChild.objects.values_list("parent__digest", "child__digest")) == listed
    assert not MissingChild.objects.exists()
    reachability.recount(image_id)
    assert sizes(image_id) == bytes_before
    assert Image.objects.count() == 1


def test_what_a_user_deleted_stays_in_the_bin_whatever_the_users_name_is(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given an application with the name that rules have, which deleted a tagged child and its index
    child = push(owner, image_id, "child")
    index = push(owner, image_id, "index", children=[child])
    named = replace(owner.actor, name=SYSTEM.name)
    for digest in (child, index):
        manifests.delete(actor=named, image_id=image_id, digest=digest)

    # when the index is restored, then the child can be restored by itself
    restore_digest(owner, index)
    assert manifests_of(image_id) == {index}
    restore_digest(owner, child)
    assert (manifests_of(image_id), tags_of(image_id)) == ({index, child}, ["child", "index"])


def test_a_restore_reads_only_entries_of_what_comes_back(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given an index with a child and a signature in a bin with thousands of other manifests of the image
    child = push(owner, image_id, days=9)
    index = push(owner, image_id, days=9, children=[child])
    signature = push(owner, image_id, days=9, subject=index)
    set_rules(namespace, untagged_days=5)
    enforce(namespace)
    (entry,) = RecycleBinEntry.objects.filter(digest=index)
    RecycleBinEntry.objects.bulk_create(
        replaced(entry, digest=f"sha256:{number}", subject_digest=f"sha512:{number}")
        for number in range(3000)
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE namespaces_recyclebinentry")

    # when it is restored
    statements: list[Statement] = []
    with recording(statements):
        assert Api(owner).post(f"{BIN}/{entry.pk}/restore").status == 200

    # then its child and its signature come back, and each statement finds entries by their digests or ids
    assert manifests_of(image_id) == {index, child, signature}
    reads = [each for each in statements if "FROM namespaces_recyclebinentry" in each.sql.replace('"', "")]
    reads += [each for each in statements if "JOIN namespaces_recyclebinentry" in each.sql]
    assert len(reads) > 2
    found = [way for each in reads for way in ways_to(each)]
    assert found
    assert [way for way in found if "digest" not in way and "id =" not in way and "(id=" not in way] == []


def replaced(entry: RecycleBinEntry, **fields: Any) -> RecycleBinEntry:
    """Another entry, which keeps nothing."""
    names = ("kind", "name", "namespace", "organization_id", "object_id", "image_id", "deleted_by")
    same = {name: getattr(entry, name) for name in (*names, "expires_at")}
    return RecycleBinEntry(**same, row_id=uuid4(), **fields)


def ways_to(statement: Statement) -> list[str]:
    """How the database finds the rows of the recycle bin for a statement."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)
            steps = [step for *_, step in cursor.fetchall()]
            return [step for step in steps if step.split()[1:2] in (["e"], ["namespaces_recyclebinentry"])]
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement.sql}", statement.parameters)
        nodes = list(plans.nodes_of(cursor.fetchone()[0]))
    reads = [node for node in nodes if node["Node Type"] != "ModifyTable"]
    ours = [node for node in reads if node.get("Relation Name") == "namespaces_recyclebinentry"]
    return [node.get("Index Cond") or node.get("Recheck Cond") or node["Node Type"] for node in ours]


def test_an_index_that_a_user_deleted_comes_back_with_children_that_a_rule_removed_meanwhile(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a deleted index, one of whose children a user has deleted as well
    children = [push(owner, image_id, days=9) for _ in range(3)]
    index = push(owner, image_id, days=9, children=children)
    manifests.delete(actor=owner.actor, image_id=image_id, digest=index)
    manifests.delete(actor=owner.actor, image_id=image_id, digest=children[0])
    set_rules(namespace, untagged_days=5)
    assert enforce(namespace).manifests == 2

    # when it is restored after another one was removed twice, then nothing comes back that a user deleted
    restore_digest(owner, children[1])
    Manifest.objects.update(restored_at=None)
    assert enforce(namespace).manifests == 1
    restore_digest(owner, index)
    assert manifests_of(image_id) == {index, *children[1:]}
    restore_digest(owner, children[0])
    assert manifests_of(image_id) == {index, *children}


@pytest.mark.parametrize("period", [timedelta(0), timedelta(days=1)], ids=["off", "a day"])
def test_after_the_bin_was_shortened_a_rule_leaves_what_an_older_entry_needs(
    owner: TestKey, namespace: Namespace, image_id: UUID, period: timedelta
) -> None:
    # given a deleted index with a signature, and a deleted tag, in a bin that keeps them for a week
    child = push(owner, image_id, days=9)
    index = push(owner, image_id, days=9, children=[child])
    signature = push(owner, image_id, days=9, subject=index)
    tagged = push(owner, image_id, "v1", days=9)
    manifests.delete(actor=owner.actor, image_id=image_id, digest=index)
    tags.untag(actor=owner.actor, image_id=image_id, name="v1")
    Manifest.objects.filter(digest=tagged).update(untagged_at=now() - timedelta(days=9))

    # when rules remove what is untagged while the bin is shorter, then all of it can still be restored
    set_rules(namespace, untagged_days=5)
    with override_settings(RECYCLE_BIN=period):
        assert preview(owner, namespace)["manifests"] == 0
        assert enforce(namespace).manifests == 0
    restore_digest(owner, index)
    assert manifests_of(image_id) == {child, index, signature, tagged}
    assert restore(owner).status == 200
    assert tags_of(image_id) == ["v1"]


@pytest.mark.parametrize("ended_by", ["time", "purge", "command"])
def test_the_children_go_when_the_index_has_left_a_bin_that_was_turned_off(
    owner: TestKey, namespace: Namespace, image_id: UUID, store: FilesystemStore, ended_by: str
) -> None:
    # given a deleted index with children of two levels, in a bin that was turned off since
    child = push(owner, image_id, days=9)
    inner = push(owner, image_id, days=9, children=[child])
    index = push(owner, image_id, days=9, children=[inner])
    manifests.delete(actor=owner.actor, image_id=image_id, digest=index)
    set_rules(namespace, untagged_days=5)
    with override_settings(RECYCLE_BIN=timedelta(0)):
        enforce(namespace)
        finish(store)
        assert manifests_of(image_id) == {child, inner}
        assert Api(owner).get(BIN).body["entries"][0]["name"].endswith(index)

        # when its time is over, or somebody empties the bin, then the next pass removes them for good
        if ended_by == "time":
            expire()
        elif ended_by == "purge":
            assert Api(owner).delete(f"{BIN}/{entry_id(owner)}").status == 200
        else:
            emptying.empty(limit=10)
        finish(store)
        assert enforce(namespace).manifests == 2
    assert manifests_of(image_id) == set()
    assert not RecycleBinEntry.objects.exists()


def restore_after(owner: TestKey, *, days: float) -> None:
    """Restore the only entry, and let the restore be some days ago."""
    assert restore(owner).status == 200
    for model in (Namespace, Image, Manifest, Tag):
        restored = model._default_manager.filter(restored_at__isnull=False)
        restored.update(restored_at=now() - timedelta(days=days))


def shown(owner: TestKey, namespace: Namespace) -> tuple[str, str]:
    """Action and reason of the only tag."""
    (tag,) = preview(owner, namespace)["tags"]
    return tag["action"], tag["reason"]


@pytest.mark.parametrize("keep", ["keep_days_since_tagged", "keep_days_since_pulled"])
def test_the_days_of_a_restored_tag_count_from_the_restore(
    owner: TestKey, namespace: Namespace, image_id: UUID, keep: str
) -> None:
    # given a tag that a rule has removed
    push(owner, image_id, "old", days=90)
    before = Api(owner).get(f"/images/{image_id}/tags").body
    set_rules(namespace, {keep: 30})
    enforce(namespace)
    assert tags_of(image_id) == []

    # when it is restored, then the rule keeps it for as many days, and the API shows the times it had
    restore_after(owner, days=29)
    assert Api(owner).get(f"/images/{image_id}/tags").body == before
    assert shown(owner, namespace) == ("keep", "rule 1 keeps it: it was restored in the last 30 days")
    assert enforce(namespace).tags == 0

    # and not for longer
    Tag.objects.update(restored_at=now() - timedelta(days=31))
    action, reason = shown(owner, namespace)
    assert action == "remove"
    assert ", and it was restored at 20" in reason
    assert enforce(namespace).tags == 1


@pytest.mark.parametrize(
    ("rule", "kept"),
    [({}, ["old"]), ({"keep_newest": 1}, ["new", "old"]), ({"keep_days_since_tagged": 1}, ["old"])],
)
def test_a_restored_tag_stays_for_the_period_of_the_bin_whatever_the_rule_says(
    owner: TestKey, namespace: Namespace, image_id: UUID, rule: dict[str, int], kept: list[str]
) -> None:
    push(owner, image_id, "old", days=90)
    push(owner, image_id, "new", days=80)
    tags.untag(actor=owner.actor, image_id=image_id, name="old")
    restore_after(owner, days=6.5)
    set_rules(namespace, rule)
    found = {each["tag"]: each["reason"] for each in preview(owner, namespace)["tags"]}
    assert found["old"].startswith("it was restored at 20")
    assert ", and stays until 20" in found["old"]
    enforce(namespace)
    assert tags_of(image_id) == kept

    # and goes when that period is over
    Tag.objects.update(restored_at=now() - timedelta(days=7))
    enforce(namespace)
    assert "old" not in tags_of(image_id)


def test_a_tag_that_was_moved_since_its_restore_counts_as_any_other(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    push(owner, image_id, "old", days=90)
    tags.untag(actor=owner.actor, image_id=image_id, name="old")
    restore_after(owner, days=4)
    push(owner, image_id, "old", days=2)
    set_rules(namespace, {"keep_days_since_tagged": 1})
    assert enforce(namespace).tags == 1


@pytest.mark.parametrize("kind", ["manifest", "image", "namespace"])
def test_what_belonged_to_a_restored_object_stays_as_well(
    owner: TestKey, namespace: Namespace, image_id: UUID, kind: str
) -> None:
    # given old content that was deleted and restored
    digest = push(owner, image_id, "old", days=90)
    untagged = push(owner, image_id, days=90)
    api = Api(owner)
    if kind == "manifest":
        manifests.delete(actor=owner.actor, image_id=image_id, digest=untagged)
        restore_after(owner, days=5)
        manifests.delete(actor=owner.actor, image_id=image_id, digest=digest)
    elif kind == "image":
        assert api.delete(f"/images/{image_id}").status == 200
    else:
        assert api.delete(f"/namespaces/{namespace.pk}").status == 200
    restore_after(owner, days=5)
    set_rules(namespace, {"keep_days_since_tagged": 9}, untagged_days=9)
    planned = preview(owner, namespace)
    assert planned["tags"][0]["reason"] == "rule 1 keeps it: it was restored in the last 9 days"
    assert planned["manifests"] == 0
    run = enforce(namespace)
    assert (run.tags, run.manifests) == (0, 0)

    # and what is pushed later does not count as restored
    push(owner, image_id, "later", days=3)
    set_rules(namespace, {"tags": "later", "keep_days_since_tagged": 2}, untagged_days=1)
    assert enforce(namespace).tags == 1
    assert manifests_of(image_id) >= {digest, untagged}


def test_a_restored_signature_stays_when_its_subject_goes(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    subject = push(owner, image_id, days=90)
    signature = push(owner, image_id, days=90, subject=subject)
    manifests.delete(actor=owner.actor, image_id=image_id, digest=signature)
    restore_after(owner, days=5)
    set_rules(namespace, untagged_days=1)
    assert preview(owner, namespace)["manifests"] == 1
    enforce(namespace)
    assert manifests_of(image_id) == {signature}
