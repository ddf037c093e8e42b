"""What `explain` examines and names, among any number of images, manifests and tags."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from registry_control.catalog.models import Blob, BlobLink, Image, Manifest
from registry_control.catalog.services import images, manifests
from registry_control.gc.selectors import explanation, reaching
from registry_control.namespaces.models import Namespace
from tests.factories import (
    TestKey,
    digest_of,
    make_key,
    make_manifest,
    make_namespace,
    push_image,
)
from tests.integration.control.api import Api
from tests.integration.control.test_query_counts import is_control
from tests.integration.gc.steps import expire_leases

pytestmark = pytest.mark.django_db(transaction=True)

BASE = "/registry/v1beta1/regions/fr-par/gc"
LAYER = digest_of(b"shared")


def by_api(key: TestKey, digest: str) -> dict[str, Any]:
    body: dict[str, Any] = Api(key).get(f"{BASE}/explain", digest=digest).body
    return body


def by_command(_: TestKey, digest: str) -> dict[str, Any]:
    out = StringIO()
    call_command("gc", "--json", "--explain", digest, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


WAYS: list[Callable[[TestKey, str], dict[str, Any]]] = [by_api, by_command]


def push_platforms(owner: TestKey, namespace: Namespace, name: str) -> str:
    """Push an index of two manifests with the shared layer, with a signature; returns a child's digest."""
    pushed = push_image(owner, namespace, name, tags=(), layers=[b"shared"])
    other = push_image(owner, namespace, name, tags=(), layers=[b"shared", b"other"])
    index = make_manifest(children=[pushed.digest, other.digest])
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=index, tag_names=["multi"])
    signature = make_manifest([LAYER], subject=index.digest)
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=signature, tag_names=[])
    return pushed.digest


@pytest.mark.parametrize("explain", WAYS)
def test_the_number_of_queries_does_not_depend_on_that_of_images(
    owner: TestKey, explain: Callable[[TestKey, str], dict[str, Any]]
) -> None:
    namespace = make_namespace(owner)

    def queries(digest: str) -> tuple[int, set[str]]:
        with CaptureQueriesContext(connection) as captured:
            found = explain(owner, digest)
        names = {f"tag multi of image {each}" for each in Image.objects.select_related("namespace")}
        assert {each for each in found["kept_by"] if each.startswith("tag")} == names
        assert not [each for each in found["kept_by"] if each.startswith("untagged")]
        return sum(not is_control(each["sql"]) for each in captured.captured_queries), names

    # given two images with a layer and a manifest, and later 60
    child, _ = (push_platforms(owner, namespace, f"app-{number}") for number in range(2))
    expire_leases()
    few = [queries(digest)[0] for digest in (LAYER, child)]
    for number in range(2, 60):
        push_platforms(owner, namespace, f"app-{number}")
    expire_leases()

    # then explain names the tag of each, with as many queries
    many = [queries(digest) for digest in (LAYER, child)]
    assert [number for number, _ in many] == few
    assert len(many[0][1]) == 60


def test_each_manifest_has_the_tags_that_reach_it_and_no_others() -> None:
    owner = make_key()
    namespace = make_namespace(owner)
    image = f"{namespace.name}/app"

    def put(*names: str, subject: str = "", children: tuple[str, ...] = ()) -> str:
        new = make_manifest([LAYER] if not children else [], children=children, subject=subject)
        manifests.put(actor=owner.actor, image_id=first.image_id, new=new, tag_names=names)
        return new.digest

    # given a tagged manifest, one in an index of an index, its referrer's referrer, and an untagged one
    first = push_image(owner, namespace, tags=("b", "a"), layers=[b"shared"])
    inner = put()
    put("outer", children=(put(children=(inner, first.digest)),))
    second = put(subject=put(subject=inner))
    alone = put(subject=digest_of(b"missing subject"))
    sibling = push_image(owner, namespace, "sibling", tags=(), layers=[b"shared"])
    assert sibling.digest == first.digest
    expire_leases()

    # then the references of each are those of its own image
    tags = [f"tag {name} of image {image}" for name in ("a", "b", "outer")]
    untagged = [
        f"untagged manifest {alone} of image {image}",
        f"untagged manifest {first.digest} of image {namespace.name}/sibling",
    ]
    assert by_api(owner, first.digest)["kept_by"] == [*tags, untagged[1]]
    assert by_api(owner, inner)["kept_by"] == tags[2:]
    assert by_api(owner, second)["kept_by"] == tags[2:]
    assert by_api(owner, alone)["kept_by"] == untagged[:1]
    assert sorted(by_api(owner, LAYER)["kept_by"]) == sorted([*tags, *untagged])


@pytest.mark.parametrize("explain", WAYS)
def test_the_last_reference_says_that_there_are_more(
    owner: TestKey, explain: Callable[[TestKey, str], dict[str, Any]]
) -> None:
    # given more tags than are named, on manifests of two images
    namespace = make_namespace(owner)
    names = [f"tag-{number:03}" for number in range(99)]
    for image in ("app-0", "app-1"):
        pushed = push_image(owner, namespace, image, tags=names, layers=[b"shared"])
    expire_leases()
    assert len(explain(owner, LAYER)["kept_by"]) == 198
    other = push_image(owner, namespace, "app-2", tags=names[:3], layers=[b"shared", b"other"])
    expire_leases()

    found = explain(owner, LAYER)["kept_by"]
    assert (len(found), found[-1]) == (200, "and more")
    assert all(each.startswith("tag ") for each in found[:-1])
    assert len(explain(owner, pushed.digest)["kept_by"]) == 198
    assert len(explain(owner, other.digest)["kept_by"]) == 3


def test_images_of_others_are_named_beside_any_number_of_own_references(owner: TestKey) -> None:
    namespace, stranger = make_namespace(owner), make_key()
    names = [f"tag-{number:03}" for number in range(100)]
    for image in ("app-0", "app-1"):
        push_image(owner, namespace, image, tags=names, layers=[b"shared"])
    push_image(stranger, make_namespace(stranger), layers=[b"shared"])
    expire_leases()
    found = by_api(owner, LAYER)["kept_by"]
    assert (len(found), found[-2:]) == (200, ["images of others", "and more"])


@pytest.mark.parametrize("explain", WAYS)
@pytest.mark.parametrize("most", ["_MOST_IMAGES", "_MOST_OF_IMAGE", "MOST_MANIFESTS"])
def test_what_is_not_examined_is_neither_named_nor_called_untagged(
    owner: TestKey,
    monkeypatch: pytest.MonkeyPatch,
    explain: Callable[[TestKey, str], dict[str, Any]],
    most: str,
) -> None:
    # given two images with two manifests each, and limits of one
    namespace = make_namespace(owner)
    for image in ("app-0", "app-1"):
        push_platforms(owner, namespace, image)
    expire_leases()
    monkeypatch.setattr(explanation, most, 1)
    monkeypatch.setattr(reaching, "MOST_MANIFESTS", 1)

    found = explain(owner, LAYER)["kept_by"]
    assert found[-1] == "and more"
    assert set(found[:-1]) <= {f"tag multi of image {namespace.name}/app-{number}" for number in range(2)}


def test_the_command_names_the_live_image_among_many_that_are_being_deleted(
    owner: TestKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation, "_MOST_IMAGES", 2)
    namespace = make_namespace(owner)
    pushed = [push_image(owner, namespace, f"app-{number}", layers=[b"shared"]) for number in range(9)]
    expire_leases()
    live = max(pushed, key=lambda each: each.image_id.hex)
    for each in pushed:
        if each is not live:
            images.delete(principal=owner.principal, image_id=each.image_id)
    found = by_command(owner, LAYER)
    assert (found["state"], found["kept_by"]) == ("kept", [f"tag latest of image {live.image}"])


def test_an_image_with_many_manifests_does_not_hide_the_others(owner: TestKey) -> None:
    namespace = make_namespace(owner)
    many = push_image(owner, namespace, "many", layers=[b"shared"])
    few = push_image(owner, namespace, "few", layers=[b"shared"])
    expire_leases()
    blob = Blob.objects.get(digest=LAYER)
    found = Manifest.objects.bulk_create(
        Manifest(image_id=many.image_id, digest=f"sha256:{number:064}", payload=b"", size=0)
        for number in range(1200)
    )
    BlobLink.objects.bulk_create(
        BlobLink(image_id=many.image_id, manifest=manifest, blob=blob) for manifest in found
    )
    kept_by = by_api(owner, LAYER)["kept_by"]
    assert f"tag latest of image {few.image}" in kept_by
    assert kept_by[-1] == "and more"
