"""Two concurrent clients of the management API, each with its own database connection."""

from collections import Counter
from functools import partial

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.common.errors import AlreadyExists
from registry_control.namespaces import services
from registry_control.namespaces.models import Namespace
from tests.factories import make_key, make_namespace, push_image
from tests.integration.catalog.races import at_once, needs_postgresql
from tests.integration.control.api import Api

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]
ROUNDS = 10


def test_of_two_concurrent_creations_of_one_name_one_succeeds_and_one_is_409() -> None:
    first, second = Api(make_key()), Api(make_key())
    for number in range(ROUNDS):
        # when two organizations create a namespace of the same name concurrently
        name = f"contested-{number}"
        responses = at_once(
            partial(first.post, "/namespaces", name=name), partial(second.post, "/namespaces", name=name)
        )

        # then one succeeds, the other gets an error, and there is one row with one audit row
        assert sorted(response.status for response in responses) == [200, 409]
        assert (
            next(response for response in responses if response.status == 409).body["type"]
            == "already_exists"
        )
        assert Namespace.objects.filter(name=name).count() == 1
        assert AuditEvent.objects.filter(verb="namespace.create", target_name=name).count() == 1


def test_two_concurrent_deletions_of_one_namespace_have_the_effect_of_one() -> None:
    key = make_key()
    for _ in range(ROUNDS):
        namespace = make_namespace(key)
        path = f"/namespaces/{namespace.pk}"
        responses = at_once(partial(Api(key).delete, path), partial(Api(key).delete, path))
        assert [(response.status, response.body["status"]) for response in responses] == [
            (200, "deleting")
        ] * 2
        deleted = AuditEvent.objects.filter(verb="namespace.delete", target_id=str(namespace.pk))
        assert deleted.count() == 1


def test_a_concurrent_change_and_deletion_end_in_a_deletion() -> None:
    key = make_key()
    for _ in range(ROUNDS):
        path = f"/namespaces/{make_namespace(key).pk}"
        changed, deleted = at_once(
            partial(Api(key).patch, path, is_public=True), partial(Api(key).delete, path)
        )
        assert changed.status in (200, 409)
        assert deleted.status == 200
        assert Api(key).get(path).body["status"] == "deleting"


def test_concurrent_deletions_of_tags_and_their_image_do_not_deadlock() -> None:
    key = make_key()
    for number in range(ROUNDS):
        pushed = push_image(key, make_namespace(key), tags=["a", "b"], layers=[str(number).encode()])
        paths = [f"/tags/{pushed.tag('a').pk}", f"/images/{pushed.image_id}", f"/tags/{pushed.tag('b').pk}"]
        responses = at_once(*(partial(Api(key).delete, path) for path in paths))
        assert [response.status for response in responses] == [200, 200, 200]


def test_the_name_of_a_deleted_namespace_is_free_for_the_next_creation() -> None:
    owner, other = make_key(), make_key()
    for number in range(ROUNDS):
        # given a namespace that its owner deletes while another caller creates one of the same name
        name = f"freed-{number}"
        namespace = make_namespace(owner, name)
        deleted, created = at_once(
            partial(services.delete, principal=owner.principal, namespace_id=namespace.pk),
            partial(make_namespace, other, name),
        )

        # then it is deleted in any case, and the creation failed before that or succeeded after it
        assert not isinstance(deleted, BaseException)
        assert isinstance(created, Namespace | AlreadyExists)
        counted = Counter(Namespace.objects.filter(name=name).values_list("status", flat=True))
        assert counted["deleting"] == 1
        assert counted["ready"] == isinstance(created, Namespace)
