"""Manifests in the management API: untagged ones can be listed and deleted."""

from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.test import Client

from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.services import manifests
from registry_control.common.models import Status
from registry_control.namespaces.models import Namespace
from tests.factories import READ_ONLY, Pushed, TestKey, make_key, make_manifest, push_image
from tests.integration.control.api import UNKNOWN_ID

pytestmark = pytest.mark.django_db

BASE = "/registry/v1beta1/regions/fr-par/manifests"


@dataclass
class Manifests:
    """The endpoints of manifests, with one key."""

    key: TestKey

    def list(self, **query: str | int | UUID) -> dict[str, object]:
        response = Client().get(f"{BASE}?{urlencode(query)}", headers={"X-Auth-Token": self.key.secret})
        return {"status": response.status_code, **response.json()}

    def call(self, method: str, manifest_id: object) -> tuple[int, dict[str, object]]:
        headers = {"X-Auth-Token": self.key.secret}
        response = Client().generic(method, f"{BASE}/{manifest_id}", headers=headers)
        return response.status_code, response.json()


@pytest.fixture
def api(key: TestKey) -> Manifests:
    return Manifests(key)


@pytest.fixture
def pushes(key: TestKey, namespace: Namespace) -> list[Pushed]:
    """Three pushes of `latest`, the last one with a second tag."""
    layers = (b"one", b"two", b"three")
    tags = (["latest"], ["latest"], ["v3", "latest"])
    return [
        push_image(key, namespace, "app", tags=names, layers=[layer])
        for names, layer in zip(tags, layers, strict=True)
    ]


def test_a_list_contains_tagged_and_untagged_manifests(api: Manifests, pushes: list[Pushed]) -> None:
    image_id = str(pushes[0].image_id)
    listed = api.list(image_id=image_id)
    assert listed["total_count"] == 3
    found = listed["manifests"]
    assert isinstance(found, list)
    assert [(each["digest"], each["tags"], each["is_reachable"]) for each in found] == [
        (pushes[0].digest, [], False),
        (pushes[1].digest, [], False),
        (pushes[2].digest, ["latest", "v3"], True),
    ]
    assert set(found[0]) == {
        *("id", "image_id", "digest", "media_type", "artifact_type", "subject_digest"),
        *("size", "is_reachable", "tags", "created_at", "last_pulled_at"),
    }
    assert api.list(image_id=image_id, is_reachable="false")["total_count"] == 2
    assert api.list(image_id=image_id, digest=pushes[1].digest)["total_count"] == 1
    page = api.list(image_id=image_id, order_by="created_at_desc", page=2, page_size=2)
    assert (page["total_count"], page["manifests"]) == (3, [found[0]])


def test_an_untagged_manifest_is_deleted_and_the_repeated_response_is_the_same(
    api: Manifests, pushes: list[Pushed]
) -> None:
    # given the oldest push
    first = Manifest.objects.get(digest=pushes[0].digest)
    shown = api.call("GET", UUID(int=first.pk))

    # when it is deleted, twice
    deleted = api.call("DELETE", UUID(int=first.pk))

    # then the response describes it as it was, and its content no longer counts
    assert shown[0] == 200
    assert deleted == shown
    assert api.call("DELETE", UUID(int=first.pk))[0] == 404
    image = Image.objects.get(pk=pushes[0].image_id)
    assert (image.size, image.untagged_size) == (len(b"{}three"), len(b"two"))


def test_a_tagged_manifest_is_deleted_with_its_tags(api: Manifests, pushes: list[Pushed]) -> None:
    status, _ = api.call("DELETE", UUID(int=Manifest.objects.get(digest=pushes[2].digest).pk))
    assert (status, Tag.objects.count()) == (200, 0)


def test_only_callers_with_the_right_can_delete(api: Manifests, key: TestKey, pushes: list[Pushed]) -> None:
    manifest_id = UUID(int=Manifest.objects.get(digest=pushes[0].digest).pk)
    reader, stranger = make_key(READ_ONLY, organization=key.organization), make_key()
    assert Manifests(reader).call("DELETE", manifest_id)[0] == 403
    for foreign in (manifest_id, UNKNOWN_ID, "no-id", UUID(int=2**63)):
        assert Manifests(stranger).call("DELETE", foreign)[0] == 404
    assert Manifests(stranger).list(image_id=pushes[0].image_id)["status"] == 404
    Image.objects.update(status=Status.LOCKED)
    assert api.call("DELETE", manifest_id)[0] == 423
    assert Manifest.objects.count() == 3


def test_a_list_requires_an_image(api: Manifests, pushes: list[Pushed]) -> None:
    assert api.list()["status"] == 400
    assert api.list(image_id=UNKNOWN_ID)["status"] == 404
    assert api.list(image_id=pushes[0].image_id, is_reachable="maybe")["status"] == 400


def test_a_list_has_the_newest_hundred_tags_of_a_manifest(
    api: Manifests, key: TestKey, namespace: Namespace
) -> None:
    image_id = push_image(key, namespace, "app", tags=()).image_id
    names = [f"t{number:03}" for number in range(120)]
    new = make_manifest()
    for name in names:
        manifests.put(actor=key.actor, image_id=image_id, new=new, tag_names=[name])
    found = api.list(image_id=image_id, digest=new.digest)["manifests"]
    assert isinstance(found, list)
    assert found[0]["tags"] == names[20:]
