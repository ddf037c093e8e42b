"""Protected tags are neither moved nor deleted, by any service of any plane (ADR 62)."""

from collections.abc import Callable, Sequence

import pytest

from registry_control.audit.services import SYSTEM
from registry_control.catalog.errors import TagProtected
from registry_control.catalog.models import Manifest, Tag
from registry_control.catalog.services import images, manifests, tags
from registry_control.common.errors import PermissionsDenied
from registry_control.gc.retention import Policy
from registry_control.gc.services import retention
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from tests.factories import Pushed, TestKey, make_manifest, make_namespace, push_blob, push_image
from tests.integration.control.api import Api

pytestmark = pytest.mark.django_db


def protect(namespace: Namespace, *globs: str, exceptions: Sequence[str] = ()) -> None:
    policy = Policy(protected_tags=globs, protected_except=tuple(exceptions))
    retention.store(namespace, policy, actor=SYSTEM)


@pytest.fixture
def pushed(owner: TestKey, namespace: Namespace) -> Pushed:
    found = push_image(owner, namespace, tags=("v1", "v2-rc1", "latest"))
    protect(namespace, "v*", "release", exceptions=["*-rc?"])
    return found


def put(owner: TestKey, pushed: Pushed, *names: str) -> str:
    new = make_manifest([push_blob(owner, pushed.image_id, b"other")])
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=names)
    return new.digest


def move(owner: TestKey, pushed: Pushed) -> None:
    put(owner, pushed, "latest", "v1")


def untag(owner: TestKey, pushed: Pushed) -> None:
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v1")


def delete_tag(owner: TestKey, pushed: Pushed) -> None:
    tags.delete(principal=owner.principal, tag_id=pushed.tag("v1").pk)


def delete_tag_in_administration(owner: TestKey, pushed: Pushed) -> None:
    tags.start_deletion(pushed.tag("v1"), actor=owner.actor)


def delete_manifest(owner: TestKey, pushed: Pushed) -> None:
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)


def delete_manifest_in_administration(owner: TestKey, pushed: Pushed) -> None:
    manifests.delete_with_tags(Manifest.objects.get(digest=pushed.digest), actor=owner.actor)


def delete_image(owner: TestKey, pushed: Pushed) -> None:
    images.delete(principal=owner.principal, image_id=pushed.image_id)


def delete_namespace(owner: TestKey, pushed: Pushed) -> None:
    namespaces.delete(principal=owner.principal, namespace_id=pushed.image.namespace_id)


CHANGES = [
    move,
    untag,
    delete_tag,
    delete_tag_in_administration,
    delete_manifest,
    delete_manifest_in_administration,
    delete_image,
    delete_namespace,
]


@pytest.mark.parametrize("change", CHANGES)
def test_no_service_moves_or_deletes_a_protected_tag(
    owner: TestKey, pushed: Pushed, change: Callable[[TestKey, Pushed], None]
) -> None:
    with pytest.raises(TagProtected) as refused:
        change(owner, pushed)

    # then the error names tag and rule, in the words of both planes, and nothing has changed
    assert isinstance(refused.value, PermissionsDenied)
    assert f'tag v1 of {pushed.image} is protected by the rule "v*"' in str(refused.value)
    names = Tag.objects.filter(manifest__digest=pushed.digest, status="ready").values_list("name", flat=True)
    assert sorted(names) == ["latest", "v1", "v2-rc1"]
    assert pushed.image.status == "ready"


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_protected_tag_everything_can_be_changed(
    owner: TestKey, namespace: Namespace, pushed: Pushed, change: Callable[[TestKey, Pushed], None]
) -> None:
    protect(namespace, "v*", exceptions=["v?", "*-rc?"])
    change(owner, pushed)


def test_the_same_digest_again_and_a_new_tag_are_accepted(owner: TestKey, pushed: Pushed) -> None:
    # when the same manifest is pushed again, to a tag that exists and to a new one that the rule matches
    digest = put(owner, pushed, "v9")
    repeated = Manifest.objects.get(digest=digest)
    new = make_manifest()
    again = type(new)(
        **{
            **{name: getattr(new, name) for name in new.__slots__},
            "digest": digest,
            "payload": bytes(repeated.payload),
        }
    )
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=again, tag_names=["v9", "v10"])

    # then both tags are there, and from now on they are protected
    assert {pushed.tag(name).manifest.digest for name in ("v9", "v10")} == {digest}
    with pytest.raises(TagProtected):
        put(owner, pushed, "v10")


def test_an_exception_can_be_moved_and_deleted(owner: TestKey, pushed: Pushed) -> None:
    digest = put(owner, pushed, "v2-rc1")
    assert pushed.tag("v2-rc1").manifest.digest == digest
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v2-rc1")


def test_a_manifest_without_protected_tags_is_deleted(owner: TestKey, pushed: Pushed) -> None:
    digest = put(owner, pushed, "test")
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=digest)


def test_other_namespaces_are_not_concerned(owner: TestKey, pushed: Pushed) -> None:
    other = push_image(owner, make_namespace(owner), tags=("v1",))
    for change in (move, untag):
        change(owner, other)


def test_the_management_api_refuses_with_the_rule(owner: TestKey, pushed: Pushed) -> None:
    paths = {
        "tag": f"/tags/{pushed.tag('v1').pk}",
        "manifest": "/registry/v1beta1/regions/fr-par/manifests/"
        + Api(owner)
        .get("/registry/v1beta1/regions/fr-par/manifests", image_id=pushed.image_id)
        .body["manifests"][0]["id"],
        "image": f"/images/{pushed.image_id}",
        "namespace": f"/namespaces/{pushed.image.namespace_id}",
    }
    for path in paths.values():
        response = Api(owner).delete(path)
        assert (response.status, response.body["type"]) == (403, "permissions_denied")
        assert 'protected by the rule "v*"' in response.body["message"]
        (detail,) = response.body["details"]
        assert detail == {
            "action": "delete",
            "resource": "registry_tag",
            "image": str(pushed.image),
            "tag": "v1",
            "rule": "v*",
        }
