"""Deleted tags and manifests in the recycle bin, and the history of tags."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.test import override_settings

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import BlobLease, Image, Manifest, Tag, TagHistory
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.content import payload
from registry_control.catalog.services import manifests, reachability, tags
from registry_control.common.clock import now
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, make_key, make_manifest, push_image
from tests.integration.control.api import Api
from tests.integration.gc.recycling import BIN, V1BETA1, entry_id, expire, finish, restore
from tests.integration.gc.steps import collect

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("recycle_bin")]


def sizes(pushed: Pushed) -> tuple[int, int, int]:
    """Size, untagged size and number of tags of an image, after checking them against a recount."""
    before = pushed.image
    reachability.recount(pushed.image_id)
    after = pushed.image
    assert (before.size, before.untagged_size) == (after.size, after.untagged_size)
    assert before.tag_rows == Tag.objects.filter(image=pushed.image_id).count()
    return before.size, before.untagged_size, before.tag_rows


@pytest.mark.parametrize("by", ["management API", "data plane"])
def test_a_deleted_tag_comes_back_as_it_was(owner: TestKey, namespace: Namespace, by: str) -> None:
    api, pushed = Api(owner), push_image(owner, namespace, tags=("v1",))
    tag, pulled_at = pushed.tag("v1"), now() - timedelta(days=1)
    Tag.objects.update(last_pulled_at=pulled_at)
    before = api.get(f"/tags/{tag.pk}").body
    if by == "data plane":
        tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v1")
    else:
        assert api.delete(f"/tags/{tag.pk}").body["status"] == "deleting"
    assert api.get(f"/tags/{tag.pk}").status == 404
    assert api.get(f"/images/{pushed.image_id}/tags").body["total_count"] == 0
    assert sizes(pushed) == (0, pushed.size, 0)
    (entry,) = api.get(BIN).body["entries"]
    assert (entry["kind"], entry["name"]) == ("tag", f"{namespace.name}/app:v1")
    assert (entry["size"], entry["object_id"]) == (pushed.size, str(tag.pk))

    restored = restore(owner)
    assert (restored.status, restored.body) == (200, before)
    assert pushed.tag("v1").last_pulled_at == pulled_at
    assert sizes(pushed) == (pushed.size, 0, 1)
    assert resolve.manifest_by_tag(namespace.name, "app", "v1")[1] is not None


def test_a_tag_whose_name_is_taken_comes_back_under_another(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace)
    tag = pushed.tag("latest")
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="latest")
    push_image(owner, namespace, layers=[b"newer"])
    refused = restore(owner)
    assert (refused.status, refused.body["type"]) == (409, "already_exists")
    assert "under another name" in refused.body["help_message"]
    assert restore(owner, "not a tag").status == 400
    assert restore(owner, "half of a pair \ud800").status == 400
    assert restore(owner, f"{namespace.name}/other:v1").status == 400
    restored = restore(owner, f"{namespace.name}/app:previous")
    assert (restored.status, restored.body["id"], restored.body["name"]) == (200, str(tag.pk), "previous")
    assert restored.body["digest"] == pushed.digest


def test_a_tag_waits_for_its_manifest_and_its_image(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    api, pushed = Api(owner), push_image(owner, namespace, store=store)
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="latest")
    of_tag = entry_id(owner)
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    refused = api.post(f"{BIN}/{of_tag}/restore")
    assert (refused.status, refused.body["type"]) == (409, "precondition_failed")
    assert "restore the manifest first" in refused.body["message"]
    of_manifest = RecycleBinEntry.objects.get(kind="manifest")
    api.delete(f"/images/{pushed.image_id}")
    for each in (of_tag, of_manifest.pk):
        assert "restore the image first" in api.post(f"{BIN}/{each}/restore").body["message"]
    of_image = RecycleBinEntry.objects.get(kind="image")
    assert api.post(f"{BIN}/{of_image.pk}/restore").status == 200
    assert api.delete(f"{BIN}/{of_manifest.pk}").status == 200
    assert "deleted for good" in api.post(f"{BIN}/{of_tag}/restore").body["message"]
    push_image(owner, namespace, tags=())  # the same content
    assert api.post(f"{BIN}/{of_tag}/restore").status == 200


def test_a_deleted_manifest_comes_back_with_its_bytes_tags_and_links(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    api, pushed = Api(owner), push_image(owner, namespace, tags=("a", "b"), store=store)
    push_image(owner, namespace, tags=("other",), layers=[b"a layer", b"another"], store=store)
    row = Manifest.objects.get(image=pushed.image_id, digest=pushed.digest)
    before, ids, bytes_before = sizes(pushed), dict(row.tags.values_list("name", "pk")), payload(row.pk)
    images_before = api.get("/images").body["total_count"]
    path = f"{V1BETA1}/manifests/{UUID(int=row.pk)}"
    shown = api.get(path).body
    assert api.delete(path).status == 200

    assert api.get(path).status == 404
    assert resolve.manifest_by_digest(namespace.name, "app", pushed.digest)[1] is None
    assert [tag["name"] for tag in api.get(f"/images/{pushed.image_id}/tags").body["tags"]] == ["other"]
    assert api.get("/images").body["total_count"] == images_before
    sizes(pushed)
    BlobLease.objects.all().delete()
    finish(store)
    assert collect(store).removed == 0
    explained = api.get(f"{V1BETA1}/gc/explain", digest=pushed.digest).body
    assert (explained["state"], explained["kept_by"]) == (
        "recycled",
        [f"recycle bin: manifest of image {namespace.name}/app"],
    )

    restored = restore(owner)
    assert (restored.status, restored.body) == (200, shown)
    assert sizes(pushed) == before
    assert (payload(row.pk), dict(row.tags.values_list("name", "pk"))) == (bytes_before, ids)
    assert Image.objects.count() == 1


def test_a_manifest_that_was_pushed_again_gets_its_tags_back(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    pushed = push_image(owner, namespace, tags=("a", "b", "c"))
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    push_image(owner, namespace, tags=("b",))
    newer = push_image(owner, namespace, tags=("c",), layers=[b"newer"])
    refused = restore(owner)
    assert (refused.status, refused.body["resource_id"]) == (409, f"{namespace.name}/app:c")
    assert restore(owner, "c").status == 409
    restored = restore(owner, "was-c")
    assert (restored.status, restored.body["tags"]) == (200, ["a", "b", "was-c"])
    assert pushed.tag("c").manifest.digest == newer.digest
    sizes(pushed)
    finish(store)
    assert Image.objects.count() == 1


def test_tags_that_others_have_stay_in_the_bin_when_their_manifest_is_restored(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a deleted manifest, of whose tags another one has two meanwhile
    api, pushed = Api(owner), push_image(owner, namespace, tags=("v1", "v2", "v3"))
    ids = {name: str(pushed.tag(name).pk) for name in ("v1", "v2", "v3")}
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    newer = push_image(owner, namespace, tags=("v1", "v2"), layers=[b"newer"])
    (entry,) = api.get(BIN).body["entries"]

    # when it is restored, then the error names both
    refused = restore(owner)
    assert (refused.status, refused.body["type"]) == (409, "already_exists")
    assert "the tags v1, v2 now: restore it under another name" in refused.body["help_message"]

    # and under another name it comes back, with the third tag, and the other two stay in the bin
    with override_settings(RECYCLE_BIN=timedelta(0)):
        restored = restore(owner, "old")
    assert (restored.status, sorted(restored.body["tags"])) == (200, ["old", "v3"])
    assert str(pushed.tag("v3").pk) == ids["v3"]
    left = api.get(BIN, order_by="name_asc").body["entries"]
    same = ("deleted_at", "deleted_by", "expires_at", "namespace_id")
    assert [(each["kind"], each["name"], each["object_id"]) for each in left] == [
        ("tag", f"{namespace.name}/app:{name}", ids[name]) for name in ("v1", "v2")
    ]
    assert all(each[name] == entry[name] for each in left for name in same)
    sizes(pushed)

    # where each can be restored, with its id and times
    of_v1, of_v2 = (f"{BIN}/{each['id']}/restore" for each in left)
    assert api.post(of_v1).status == 409
    v1 = api.post(of_v1, name="old-v1").body
    assert (v1["id"], v1["digest"]) == (ids["v1"], pushed.digest)
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v2")
    assert api.post(of_v2).body["id"] == ids["v2"]
    assert pushed.tag("v1").manifest.digest == newer.digest
    sizes(pushed)
    finish(store)
    assert Image.objects.count() == 1


def test_another_name_for_a_manifest_is_a_further_tag_unless_one_of_its_tags_is_taken(
    owner: TestKey, namespace: Namespace
) -> None:
    # given a deleted manifest whose tags are free
    pusher, api = make_key(organization=owner.organization), Api(owner)
    pushed = push_image(pusher, namespace, tags=("v1", "v2"))
    ids = {name: pushed.tag(name).pk for name in ("v1", "v2")}
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)

    # then another name is a further tag, of whom restores it
    assert sorted(restore(owner, "more").body["tags"]) == ["more", "v1", "v2"]
    history = api.get(f"{V1BETA1}/tags/{pushed.tag('more').pk}/history").body["history"]
    assert [each["by"] for each in history] == [owner.actor.name]
    sizes(pushed)

    # and if another manifest has one, the other name replaces that
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    push_image(owner, namespace, tags=("v1",), layers=[b"newer"])
    assert restore(owner).body["help_message"].startswith("another manifest has the tag v1 now")
    assert sorted(restore(owner, "old-v1").body["tags"]) == ["more", "old-v1", "v2"]
    found = pushed.tag("old-v1")
    assert (found.pk, found.set_by) == (ids["v1"], pusher.actor.name)
    assert api.get(BIN).body["total_count"] == 0
    sizes(pushed)

    # and if the name is one of its own, the taken one stays in the bin
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    push_image(owner, namespace, tags=("old-v1",), layers=[b"newer"])
    assert sorted(restore(owner, "v2").body["tags"]) == ["more", "v2"]
    (left,) = api.get(BIN).body["entries"]
    assert left["object_id"] == str(ids["v1"])
    sizes(pushed)


def test_an_index_and_its_children_come_back_in_any_order(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace, tags=())
    index = make_manifest(children=[pushed.digest])
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=index, tag_names=["multi"])
    before = sizes(pushed)
    for order in ([index.digest, pushed.digest], [pushed.digest, index.digest]):
        for back in (order, order[::-1]):
            for digest in order:
                manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=digest)
            for digest in back:
                entry = RecycleBinEntry.objects.get(digest=digest)
                assert Api(owner).post(f"{BIN}/{entry.pk}/restore").status == 200
            assert sizes(pushed) == before


def test_an_expired_manifest_is_collected_and_its_image_stays(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    pushed = push_image(owner, namespace, store=store)
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="latest")
    manifests.delete(actor=SYSTEM, image_id=pushed.image_id, digest=pushed.digest)
    BlobLease.objects.all().delete()
    expire()
    finish(store)
    assert not RecycleBinEntry.objects.exists()
    assert not Manifest.objects.exists()
    namespace.refresh_from_db()
    assert (Image.objects.count(), namespace.image_rows) == (1, 1)
    assert collect(store).removed == len(pushed.blobs)


def test_an_image_that_goes_for_good_takes_what_was_deleted_in_it_along(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    pushed = push_image(owner, namespace, tags=("a",), store=store)
    index = make_manifest(children=[pushed.digest])
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=index, tag_names=["multi"])
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="a")
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=index.digest)
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    Api(owner).delete(f"/images/{pushed.image_id}")
    RecycleBinEntry.objects.filter(kind="image").update(expires_at=now())
    finish(store)
    for model in (RecycleBinEntry, Image, Manifest, Tag):
        assert not model._default_manager.exists()
    namespace.refresh_from_db()
    assert namespace.image_rows == 0


def test_the_history_of_a_tag_has_every_manifest_that_it_named(owner: TestKey, namespace: Namespace) -> None:
    api, robot = Api(owner), make_key(organization=owner.organization)
    digests = [
        push_image(key, namespace, layers=[bytes([number])]).digest
        for number, key in enumerate((owner, robot, owner))
    ]
    tag = Tag.objects.get(name="latest")
    path = f"{V1BETA1}/tags/{tag.pk}/history"
    found = api.get(path).body
    assert found["total_count"] == 3
    assert [each["digest"] for each in found["history"]] == digests[::-1]
    assert [each["by"] for each in found["history"]] == [owner.actor.name, robot.actor.name, owner.actor.name]
    newest, middle, oldest = found["history"]
    assert (newest["until"], middle["until"], oldest["until"]) == (None, newest["from"], middle["from"])
    pages = [api.get(path, page=page, page_size=1).body["history"][0] for page in (1, 2, 3)]
    assert pages == found["history"]
    assert api.get(path, order_by="from_asc", page_size=2).body["history"] == [oldest, middle]
    assert api.get(path, order_by="from_asc", page_size=2, page=2).body["history"] == [newest]
    for order in ("from_asc", "from_desc"):
        for page in (2, 10**18, "9" * 900):
            beyond = api.get(path, order_by=order, page_size=3, page=page)
            assert (beyond.status, beyond.body) == (200, {"history": [], "total_count": 3})
    assert Api(make_key()).get(path).status == 404

    # and a deletion that is undone does not lose it, but time does
    tags.untag(actor=owner.actor, image_id=tag.image_id, name="latest")
    assert restore(owner).status == 200
    assert api.get(path).body == found
    with override_settings(RECYCLE_BIN=timedelta(0)):
        assert tags.forget_history(limit=10) == 2
    assert not TagHistory.objects.exists()
