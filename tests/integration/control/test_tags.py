"""Tags in the management API: the responses, and the effect of each call."""

import pytest

from registry_control.catalog.models import Manifest, Tag
from registry_control.catalog.services import manifests
from registry_control.namespaces.models import Namespace
from tests.factories import Pushed, TestKey, push_image
from tests.integration.control.api import Api

pytestmark = pytest.mark.django_db


def test_a_tag_has_eight_fields(api: Api, pushed: Pushed) -> None:
    tag = pushed.tag("a")
    body = api.get(f"/tags/{tag.pk}").body
    times = body.pop("created_at"), body.pop("updated_at")
    assert all(time.endswith("Z") for time in times)
    assert body == {
        "id": str(tag.pk),
        "name": "a",
        "image_id": str(pushed.image_id),
        "status": "ready",
        "digest": pushed.digest,
        "last_pulled_at": None,
    }


def test_a_list_contains_the_same_objects_as_reads_of_the_tags(api: Api, pushed: Pushed) -> None:
    alone = [api.get(f"/tags/{pushed.tag(name).pk}").body for name in ("b", "a")]
    response = api.get(f"/images/{pushed.image_id}/tags").body
    assert response == {"tags": alone, "total_count": 2}


@pytest.mark.parametrize("query", ["", "?force=true", "?force=True", "?force=maybe"])
def test_deleting_a_tag_deletes_neither_its_manifest_nor_other_tags(
    api: Api, pushed: Pushed, query: str
) -> None:
    # given two tags on one digest; when one is deleted, with `force` or without, twice
    doomed, sibling = pushed.tag("a"), pushed.tag("b")
    first = api.delete(f"/tags/{doomed.pk}{query}")
    again = api.delete(f"/tags/{doomed.pk}{query}")

    # then it is deleting, its image does not count it, and the other tag and the manifest remain
    assert (first.status, first.body["status"], first.body["digest"]) == (200, "deleting", pushed.digest)
    assert (again.status, again.body) == (200, first.body)
    assert api.get(f"/images/{pushed.image_id}").body["tags"] == ["b"]
    assert [tag["status"] for tag in api.get(f"/images/{pushed.image_id}/tags").body["tags"]] == [
        "ready",
        "deleting",
    ]
    assert api.get(f"/tags/{sibling.pk}").body["status"] == "ready"
    assert Manifest.objects.filter(digest=pushed.digest).exists()


def test_an_image_remains_when_its_last_tag_is_deleted(api: Api, pushed: Pushed) -> None:
    for name in ("a", "b"):
        api.delete(f"/tags/{pushed.tag(name).pk}")
    body = api.get(f"/images/{pushed.image_id}").body
    assert (body["status"], body["tags"], body["tags_total"]) == ("ready", [], 0)
    assert (body["size"], body["untagged_size"]) == (0, pushed.size)


def test_a_tag_that_is_moved_retains_its_id_and_creation_time(
    api: Api, key: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    before = api.get(f"/tags/{pushed.tag('a').pk}").body
    moved = push_image(key, namespace, "sebp/lighttpd", tags=["a"], layers=[b"three"])
    after = api.get(f"/tags/{before['id']}").body
    assert after == {**before, "digest": moved.digest, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]


def test_the_tags_of_a_deleted_manifest_are_not_listed(api: Api, key: TestKey, pushed: Pushed) -> None:
    manifests.delete(actor=key.actor, image_id=pushed.image_id, digest=pushed.digest)
    assert not Tag.objects.exists()
    body = api.get(f"/images/{pushed.image_id}").body
    assert (body["tags"], body["size"]) == ([], 0)
