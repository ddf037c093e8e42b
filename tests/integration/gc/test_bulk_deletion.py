"""Many tags or manifests of an image are deleted at once, as if one after the other."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import (
    BlobLease,
    BlobLink,
    Image,
    Manifest,
    ManifestChild,
    MissingChild,
    Tag,
)
from registry_control.catalog.services import images, manifests, reachability, tags
from registry_control.catalog.services.tags import DoomedTag
from registry_control.gc.services import enforcement
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import restoring
from tests.factories import TestKey, make_manifest, push_blob
from tests.integration.gc.recycling import PERIOD
from tests.integration.gc.retaining import enforce, manifests_of, new_image, push, set_rules, tags_of

pytestmark = pytest.mark.django_db

BIN = pytest.mark.parametrize("bin_period", [PERIOD, timedelta()], ids=["bin", "no-bin"])


def two_equal_images(owner: TestKey, namespace: Namespace) -> tuple[UUID, UUID]:
    """Images with tags on one manifest, shared layers, indexes with a common child, and signatures."""
    a, b = (new_image(owner, namespace, name) for name in "ab")
    pushed = {each: [push_blob(owner, each, bytes(10 + n)) for n in range(7)] for each in (a, b)}
    digests = pushed[a]
    plain = [make_manifest([digests[0], digests[n]]) for n in range(1, 6)]
    first = make_manifest([digests[6]], children=[plain[0].digest, plain[1].digest])
    second = make_manifest(children=[plain[1].digest, plain[2].digest])
    signature = make_manifest(subject=first.digest)
    for image_id in (a, b):
        for new, names in (
            *((each, ()) for each in plain[:3]),
            (plain[3], ("x", "y")),
            (plain[4], ("keep",)),
            (first, ("multi", "z")),
            (second, ("other",)),
            (signature, ()),
        ):
            manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=names)
    return a, b


def state(image_id: UUID) -> dict[str, Any]:
    """All that a deletion changes, by digests; the sizes are those of a recount."""
    image = Image.objects.get(pk=image_id)
    reachability.recount(image_id)
    counted = Image.objects.get(pk=image_id)
    assert (image.size, image.untagged_size) == (counted.size, counted.untagged_size)
    assert not image.size_is_stale
    entries = RecycleBinEntry.objects.filter(image_id=image_id)
    return {
        "sizes": (image.size, image.untagged_size, image.tag_rows),
        "tags": sorted(Tag.objects.filter(image=image_id).values_list("name", "manifest__digest")),
        "manifests": sorted(Manifest.objects.filter(image=image_id).values_list("digest", "is_reachable")),
        "links": sorted(
            BlobLink.objects.filter(image=image_id).values_list(
                "manifest__digest", "blob__digest", "is_reachable"
            )
        ),
        "leases": sorted(BlobLease.objects.filter(image=image_id).values_list("blob__digest", flat=True)),
        "children": sorted(
            ManifestChild.objects.filter(child__image=image_id).values_list("parent__digest", "child__digest")
        ),
        "missing": sorted(
            MissingChild.objects.filter(image=image_id).values_list("parent__digest", "digest")
        ),
        "entries": sorted((each.name.partition("/")[2][1:], each.digest) for each in entries),
        "bytes in the bin": sum(each.size for each in entries),
        "audit": Counter(
            (each.verb, str(each.detail))
            for each in AuditEvent.objects.filter(target_id=str(image_id), verb__endswith=".delete")
        ),
    }


def doomed_tags(image_id: UUID, names: Sequence[str]) -> list[DoomedTag]:
    found = Tag.objects.filter(image=image_id, name__in=names)
    return [DoomedTag(each.pk, each.name, each.manifest_id) for each in found]


@transaction.atomic
def untag_at_once(image_id: UUID, owner: TestKey, names: Sequence[str]) -> None:
    tags.untag_locked(images.get_for_update(image_id), doomed_tags(image_id, names), actor=owner.actor)


@transaction.atomic
def delete_at_once(image_id: UUID, owner: TestKey, digests: Sequence[str]) -> None:
    image = images.get_for_update(image_id)
    found = list(Manifest.objects.filter(image=image, digest__in=digests))
    manifests.delete_locked(image, found, actor=owner.actor)


@BIN
def test_tags_are_deleted_at_once_as_one_after_the_other(
    owner: TestKey, namespace: Namespace, bin_period: timedelta
) -> None:
    a, b = two_equal_images(owner, namespace)
    assert state(a) == state(b)
    names = ("x", "y", "multi", "z", "other")
    with override_settings(RECYCLE_BIN=bin_period):
        for name in names:
            tags.untag(actor=owner.actor, image_id=a, name=name)
        untag_at_once(b, owner, names)
    assert state(a) == state(b)
    assert tags_of(b) == ["keep"]


@BIN
@pytest.mark.parametrize("untagged", [True, False], ids=["untagged", "tagged"])
def test_manifests_are_deleted_at_once_as_one_after_the_other_and_restored(
    owner: TestKey, namespace: Namespace, bin_period: timedelta, untagged: bool
) -> None:
    a, b = two_equal_images(owner, namespace)
    if untagged:
        for image_id in (a, b):
            untag_at_once(image_id, owner, ("x", "y", "multi", "z", "other"))
    before = state(b)
    kept = Tag.objects.get(image=b, name="keep").manifest.digest
    digests = [digest for digest, _ in before["manifests"] if digest != kept]
    with override_settings(RECYCLE_BIN=bin_period):
        for digest in digests:
            manifests.delete(actor=owner.actor, image_id=a, digest=digest)
        delete_at_once(b, owner, digests)
        assert state(a) == state(b)
        assert manifests_of(b) == {kept}
        if not bin_period:
            return
        for entry_id in list(RecycleBinEntry.objects.values_list("pk", flat=True)):
            restoring.restore_entry(entry_id, name=None, actor=owner.actor)
    for image_id in (a, b):
        after = state(image_id)
        for key in ("sizes", "tags", "manifests", "links", "children", "missing"):
            assert after[key] == before[key], key


def test_tags_that_reach_many_manifests_are_evaluated_in_parts(
    owner: TestKey, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a limit that each tag keeps by itself, and all together do not
    a, b = two_equal_images(owner, namespace)
    monkeypatch.setattr(reachability, "MAX_AFFECTED", 4)
    names = ("x", "y", "multi", "z", "other")
    untag_at_once(a, owner, names)
    monkeypatch.undo()
    untag_at_once(b, owner, names)
    assert state(a) == state(b)


@BIN
def test_the_number_of_statements_does_not_depend_on_the_number_of_objects(
    owner: TestKey, namespace: Namespace, bin_period: timedelta
) -> None:
    used = []
    for number in (2, 20):
        image_id = new_image(owner, namespace, f"i{number}")
        digests = [push(owner, image_id, f"t{n}") for n in range(number)]
        with override_settings(RECYCLE_BIN=bin_period), CaptureQueriesContext(connection) as untagging:
            untag_at_once(image_id, owner, tags_of(image_id))
        with override_settings(RECYCLE_BIN=bin_period), CaptureQueriesContext(connection) as deleting:
            delete_at_once(image_id, owner, digests)
        used.append((len(untagging), len(deleting)))
        assert manifests_of(image_id) == set()
    assert used[0] == used[1]


def test_nothing_that_must_go_first_is_left_when_it_does_not_fit_into_a_transaction(
    owner: TestKey, namespace: Namespace, image_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an old index with children and new signatures, which are signed themselves
    children = [push(owner, image_id, days=9) for _ in range(5)]
    index = push(owner, image_id, days=9, children=children)
    for _ in range(6):
        push(owner, image_id, subject=push(owner, image_id, subject=index))
    push(owner, image_id, subject=push(owner, image_id))
    set_rules(namespace, untagged_days=5)

    # when transactions remove less than an index has of each
    monkeypatch.setattr(enforcement, "_MANIFESTS_AT_ONCE", 2)
    run = enforce(namespace)

    # then no signature has lost its subject before, which would have made it any other new manifest
    assert run.manifests == 5 + 1 + 12
    assert len(manifests_of(image_id)) == 2
    assert not MissingChild.objects.exists()
