"""Namespaces in the management API: changes, deletion, locks and unknown ids."""

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.common.models import Status
from registry_control.namespaces.models import Namespace
from tests.factories import make_key, make_namespace, push_image, unique
from tests.integration.control.api import UNKNOWN_ID, Api

pytestmark = pytest.mark.django_db


def test_an_update_changes_only_the_given_fields() -> None:
    # given a namespace with a description
    api = Api(make_key())
    before = api.post("/namespaces", name="my-team", description="what we ship").body
    path = f"/namespaces/{before['id']}"

    # when it is made public, then loses its description
    public = api.patch(path, is_public=True).body
    bare = api.patch(path, description="").body

    # then each step left the other fields unchanged, and set `updated_at`
    assert public == {**before, "is_public": True, "updated_at": public["updated_at"]}
    assert bare == {**public, "description": "", "updated_at": bare["updated_at"]}
    assert before["updated_at"] < public["updated_at"] < bare["updated_at"]
    assert api.get(path).body == bare


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"description": None, "is_public": None},
        {"description": "same", "is_public": False},
        {"name": "another", "project_id": "x", "unheard-of": 1},
    ],
)
def test_an_update_without_a_new_value_changes_nothing(body: dict[str, object]) -> None:
    api = Api(make_key())
    before = api.post("/namespaces", name="my-team", description="same").body
    events = AuditEvent.objects.count()
    response = api.call("PATCH", f"/namespaces/{before['id']}", body)
    assert (response.status, response.body) == (200, before)
    assert AuditEvent.objects.count() == events


def test_a_patch_without_a_body_is_an_empty_one() -> None:
    key = make_key()
    path = f"/namespaces/{make_namespace(key).pk}"
    assert Api(key).call("PATCH", path).status == 200
    assert Api(key).call("PATCH", path, content_type="").status == 200


def test_a_deleted_namespace_has_the_status_deleting_and_its_name_is_free_at_once() -> None:
    # given a namespace with an image
    key = make_key()
    namespace = make_namespace(key, "my-team")
    push_image(key, namespace)
    api = Api(key)

    # when it is deleted, twice
    first, again = api.delete(f"/namespaces/{namespace.pk}"), api.delete(f"/namespaces/{namespace.pk}")

    # then both responses are 200 and `deleting`, it can still be read, and the name is free
    assert (first.status, first.body["status"]) == (200, "deleting")
    assert (again.status, again.body) == (200, first.body)
    assert first.body["updated_at"] > first.body["created_at"]
    assert api.get(f"/namespaces/{namespace.pk}").body["status"] == "deleting"
    assert api.post("/namespaces", name="my-team").status == 200
    assert [found["status"] for found in api.get("/namespaces", name="my-team").body["namespaces"]] == [
        "deleting",
        "ready",
    ]


def test_a_namespace_that_is_being_deleted_cannot_be_changed() -> None:
    key = make_key()
    namespace = make_namespace(key)
    Api(key).delete(f"/namespaces/{namespace.pk}")
    response = Api(key).patch(f"/namespaces/{namespace.pk}", is_public=True)
    assert response.status == 409
    assert response.body == {
        "type": "transient_state",
        "message": "resource is in a transient state",
        "resource": "namespace",
        "resource_id": str(namespace.pk),
        "current_state": "deleting",
    }


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_locked_namespace_cannot_be_changed_or_deleted(method: str) -> None:
    key = make_key()
    namespace = make_namespace(key)
    Namespace.objects.update(status=Status.LOCKED)
    response = Api(key).call(method, f"/namespaces/{namespace.pk}", {"is_public": True})
    assert (response.status, response.body["type"], response.body["resource"]) == (423, "locked", "namespace")
    assert Api(key).get(f"/namespaces/{namespace.pk}").body["status"] == "locked"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "given", [UNKNOWN_ID, UNKNOWN_ID.upper(), "not-a-uuid", "0" * 32, "%00", "a%2Fb", "{}", "x" * 3000]
)
def test_an_unknown_id_is_404_whatever_its_format(method: str, given: str) -> None:
    response = Api(make_key()).call(method, f"/namespaces/{given}", {} if method == "PATCH" else None)
    assert response.status == 404
    assert response.headers["Content-Type"] == "application/json"
    if given != "a%2Fb":  # the server parses that as one more path segment
        assert (response.body["type"], response.body["message"]) == ("not_found", "Namespace was not found")
        assert response.body["resource"] == "namespace"


def test_an_id_is_accepted_in_upper_case() -> None:
    key = make_key()
    namespace = make_namespace(key)
    assert Api(key).get(f"/namespaces/{str(namespace.pk).upper()}").body["id"] == str(namespace.pk)


def test_invariant_10_each_change_writes_an_audit_row_with_its_actor() -> None:
    key = make_key()
    api = Api(key)
    name = unique("audited")
    namespace_id = api.post("/namespaces", name=name).body["id"]
    api.patch(f"/namespaces/{namespace_id}", is_public=True)
    api.delete(f"/namespaces/{namespace_id}")
    api.delete(f"/namespaces/{namespace_id}")
    events = AuditEvent.objects.filter(target_id=namespace_id).order_by("pk")
    assert [event.verb for event in events] == ["namespace.create", "namespace.update", "namespace.delete"]
    assert {(event.actor_kind, event.actor_id) for event in events} == {("application", str(key.holder.pk))}
    assert {event.organization_id for event in events} == {key.organization.pk}
