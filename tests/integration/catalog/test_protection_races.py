"""Protected tags beside pushes, new rules and deletions, on two real PostgreSQL connections."""

from datetime import timedelta

import pytest
from django.test import override_settings

from registry_control.catalog.errors import ImageNotFound, TagProtected
from registry_control.catalog.models import Image, Tag
from registry_control.catalog.services import manifests, tags
from registry_control.common.errors import PermissionsDenied
from registry_control.gc.services import enforcement, retention
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from tests.factories import Pushed, TestKey, make_manifest, push_image
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]


@pytest.fixture
def pushed(owner: TestKey, namespace: Namespace) -> Pushed:
    return push_image(owner, namespace, tags=("v1",))


def store(owner: TestKey, namespace: Namespace, *protected: str, **fields: object) -> None:
    """Store the rules as a `PUT` does."""
    document = {"protected_tags": list(protected), **fields}
    retention.put(principal=owner.principal, namespace_id=namespace.pk, document=document)


def put(owner: TestKey, pushed: Pushed, tag: str) -> str:
    """Push another manifest to a tag; returns its digest."""
    new = make_manifest()
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=[tag])
    return new.digest


def delete(owner: TestKey, namespace: Namespace) -> None:
    namespaces.delete(principal=owner.principal, namespace_id=namespace.pk)


def test_a_push_that_waited_for_the_image_sees_rules_that_were_stored_meanwhile(
    owner: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    # given a push that waits for another transaction, which has locked the image's row
    with open_transaction():
        Image.objects.select_for_update().get(pk=pushed.image_id)
        pushing = Other(lambda: put(owner, pushed, "v1"))
        assert pushing.waits

        # when the tag becomes protected before that transaction ends
        Other(lambda: store(owner, namespace, "v1")).end()

    # then the push is refused
    with pytest.raises(TagProtected):
        pushing.end()
    assert pushed.tag("v1").manifest.digest == pushed.digest


def test_the_first_rules_are_stored_when_a_push_that_has_found_none_has_ended(
    owner: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    with open_transaction():
        digest = put(owner, pushed, "v1")
        storing = Other(lambda: store(owner, namespace, "v*"))
        assert storing.waits
    storing.end()
    assert pushed.tag("v1").manifest.digest == digest
    with pytest.raises(TagProtected):
        put(owner, pushed, "v1")


@pytest.mark.parametrize("change", ["move", "untag", "delete the manifest"])
def test_a_change_waits_for_rules_that_are_being_stored_and_is_refused(
    owner: TestKey, namespace: Namespace, pushed: Pushed, change: str
) -> None:
    call = {
        "move": lambda: put(owner, pushed, "v1"),
        "untag": lambda: tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v1"),
        "delete the manifest": lambda: manifests.delete(
            actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest
        ),
    }[change]
    with open_transaction():
        store(owner, namespace, "v*")
        changing = Other(call)
        assert changing.waits
    with pytest.raises(TagProtected):
        changing.end()


def test_pushes_to_a_namespace_with_rules_do_not_wait_for_each_other(
    owner: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    store(owner, namespace, "x*")
    other = push_image(owner, namespace, "other", tags=("v1",))
    with open_transaction():
        put(owner, pushed, "v1")
        Other(lambda: put(owner, other, "v1")).end()


def test_a_namespace_in_which_a_protected_tag_is_being_created_is_not_deleted(
    owner: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    store(owner, namespace, "w*")
    with open_transaction():
        put(owner, pushed, "w1")
        deleting = Other(lambda: delete(owner, namespace))
        assert deleting.waits
    with pytest.raises(PermissionsDenied):
        deleting.end()
    assert pushed.tag("w1").status == "ready"


def test_no_protected_tag_is_created_in_a_namespace_that_is_being_deleted(
    owner: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    store(owner, namespace, "w*")
    with open_transaction():
        delete(owner, namespace)
        pushing = Other(lambda: put(owner, pushed, "w1"))
        assert pushing.waits
    with pytest.raises(ImageNotFound):
        pushing.end()
    assert not Tag.objects.filter(name="w1").exists()


def test_deletions_into_the_recycle_bin_and_new_rules_do_not_deadlock(
    owner: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    # given a deletion and a removal by a rule, whose entries reference the namespace when they commit
    with override_settings(RECYCLE_BIN=timedelta(days=7)):
        with open_transaction():
            tags.untag(actor=owner.actor, image_id=pushed.image_id, name="v1")
            storing = Other(lambda: store(owner, namespace, rules=[{"images": "*", "tags": "a*"}]))
            assert storing.waits
        storing.end()

        push_image(owner, namespace, tags=("a1",))
        calls = [lambda: enforcement.enforce(seconds=5), lambda: store(owner, namespace, "v*")]
        for _ in range(3):
            outcomes = at_once(*calls)
            assert not [each for each in outcomes if isinstance(each, Exception)]
