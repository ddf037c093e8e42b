"""Namespaces over the management API: what clients see, and what each call does."""

import re
from uuid import uuid4

import pytest
from django.conf import settings

from registry_control.audit.models import AuditEvent
from registry_control.common.models import Status
from registry_control.namespaces.models import Namespace
from tests.factories import default_project, make_key, make_namespace, make_project, push_image, unique
from tests.integration.control.api import Api, details

pytestmark = pytest.mark.django_db

NOBODYS = "0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29"
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def test_a_created_namespace_has_all_fourteen_keys_in_their_types() -> None:
    # given a key with full access
    key = make_key()

    # when it creates a namespace
    answer = Api(key).post("/namespaces", name="my-team", description="what we ship", is_public=True)

    # then the answer is 200 with the object, ready at once, in the key's default project
    times = answer.body.pop("created_at"), answer.body.pop("updated_at")
    assert all(RFC_3339_UTC.fullmatch(time) for time in times)
    assert answer.status == 200
    assert answer.body == {
        "id": str(Namespace.objects.get().pk),
        "name": "my-team",
        "description": "what we ship",
        "organization_id": str(key.organization.pk),
        "project_id": str(key.organization.pk),
        "status": "ready",
        "status_message": "",
        "endpoint": f"{settings.PUBLIC_HOST}/my-team",
        "is_public": True,
        "size": 0,
        "image_count": 0,
        "region": "fr-par",
    }


def test_every_answer_has_the_headers_that_clients_compare() -> None:
    answer = Api(make_key()).get("/namespaces")
    assert answer.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "X-Total-Count" not in answer.headers


def test_reading_shows_what_creating_answered() -> None:
    api = Api(make_key())
    created = api.post("/namespaces", name="my-team").body
    assert api.get(f"/namespaces/{created['id']}").body == created
    assert api.get("/namespaces").body == {"namespaces": [created], "total_count": 1}


def test_size_and_image_count_are_those_of_pushed_images_that_are_not_being_deleted() -> None:
    # given two pushed images, one that an upload only began, and one that is being deleted
    key = make_key()
    namespace = make_namespace(key)
    first = push_image(key, namespace, "one", layers=[b"x" * 1000])
    second = push_image(key, namespace, "two/nested", layers=[b"y" * 10, b"z" * 5])
    deleted = push_image(key, namespace, "three", layers=[b"w"])
    Api(key).delete(f"/images/{deleted.image_id}")
    push_image(key, make_namespace(key), "elsewhere")

    # when the namespace is read by itself and in a list
    alone = Api(key).get(f"/namespaces/{namespace.pk}").body
    listed = Api(key).get("/namespaces", name=namespace.name).body["namespaces"][0]

    # then both count the first two
    assert alone == listed
    assert (alone["image_count"], alone["size"]) == (2, first.size + second.size)


@pytest.mark.parametrize(
    "name", ["abc", "a" * 63, "ns-epic-curie", "0-0", "tf-cr-ns-basic-0123456789-0123456789-01234567"]
)
def test_names_that_clients_make_up_are_taken_as_they_are(name: str) -> None:
    assert Api(make_key()).post("/namespaces", name=name).body["name"] == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ab", "constraint"),
        ("a" * 64, "constraint"),
        ("Upper", "format"),
        ("under_score", "format"),
        ("-dash", "format"),
        ("dash-", "format"),
        ("dot.ted", "format"),
        ("sla/sh", "format"),
        (" padded ", "format"),
        ("new-line\n", "format"),
        ("umläut", "format"),
        ("٠١٢", "format"),  # digits, but not ASCII ones
        ("nul\x00nul", "format"),
        ("\ud800abc", "format"),
        ("", "constraint"),
        (None, "format"),
        (12345, "format"),
        (["abc"], "format"),
        ({}, "format"),
        (True, "format"),
    ],
)
def test_other_names_are_refused_and_never_changed(name: object, reason: str) -> None:
    answer = Api(make_key()).post("/namespaces", name=name)
    assert details(answer) == {"name": reason}
    assert not Namespace.objects.exists()


def test_a_name_is_required() -> None:
    assert details(Api(make_key()).post("/namespaces", description="nameless")) == {"name": "required"}


def test_a_name_is_unique_over_all_organizations() -> None:
    make_namespace(make_key(), "taken")
    answer = Api(make_key()).post("/namespaces", name="taken")
    assert answer.status == 409
    assert (answer.body["type"], answer.body["message"]) == ("already_exists", "Namespace already exist")
    assert {type(answer.body[key]) for key in ("resource", "resource_id", "help_message")} == {str}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("description", "nul\x00", "format"),
        ("description", "x" * 4097, "constraint"),
        ("description", 5, "format"),
        ("is_public", "true", "format"),
        ("is_public", 1, "format"),
        ("is_public", [], "format"),
        ("project_id", "not-a-uuid", "format"),
        ("project_id", "", "format"),
        ("project_id", 7, "format"),
        ("project_id", "0" * 32, "format"),
        ("organization_id", "{}", "format"),
    ],
)
def test_arguments_of_a_wrong_type_or_form_are_named(field: str, value: object, reason: str) -> None:
    api = Api(make_key())
    assert details(api.post("/namespaces", name="my-team", **{field: value})) == {field: reason}


def test_all_wrong_arguments_are_named_at_once() -> None:
    answer = Api(make_key()).post("/namespaces", description=1, is_public=2)
    assert details(answer) == {"name": "required", "description": "format", "is_public": "format"}


def test_a_namespace_is_created_in_the_project_that_is_named() -> None:
    key = make_key()
    project = make_project(key.organization)
    answer = Api(key).post("/namespaces", name="my-team", project_id=str(project.pk))
    assert answer.body["project_id"] == str(project.pk)
    assert answer.body["organization_id"] == str(key.organization.pk)


def test_an_organization_stands_for_its_default_project() -> None:
    # given a key whose own default project is another one
    home = make_key()
    key = make_key(holder=home.holder, project=make_project(home.organization))

    # when it creates in its organization
    answer = Api(key).post("/namespaces", name="my-team", organization_id=str(home.organization.pk))

    # then the namespace is in the project with the organization's id
    assert answer.body["project_id"] == str(default_project(home.organization).pk)


@pytest.mark.parametrize("both", [True, False])
def test_project_and_organization_together_must_fit(*, both: bool) -> None:
    key, other = make_key(), make_key()
    organization = key.organization if both else other.organization
    project = make_project(key.organization)
    answer = Api(key).post(
        "/namespaces", name="my-team", organization_id=str(organization.pk), project_id=str(project.pk)
    )
    if both:
        assert answer.body["project_id"] == str(project.pk)
    else:
        assert details(answer) == {"organization_id": "unknown"}


def test_another_organizations_project_is_no_other_than_one_that_is_not_there() -> None:
    key = make_key()
    foreign = make_project(make_key().organization)
    theirs = Api(key).post("/namespaces", name="my-team", project_id=str(foreign.pk))
    nobodys = Api(key).post("/namespaces", name="my-team", project_id=str(uuid4()))
    assert details(theirs) == details(nobodys) == {"project_id": "unknown"}


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    # given a namespace with a description
    api = Api(make_key())
    before = api.post("/namespaces", name="my-team", description="what we ship").body
    path = f"/namespaces/{before['id']}"

    # when it is made public, then loses its description
    public = api.patch(path, is_public=True).body
    bare = api.patch(path, description="").body

    # then each step kept the rest, and moved `updated_at`
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
def test_an_update_without_anything_new_changes_nothing(body: dict[str, object]) -> None:
    api = Api(make_key())
    before = api.post("/namespaces", name="my-team", description="same").body
    events = AuditEvent.objects.count()
    answer = api.call("PATCH", f"/namespaces/{before['id']}", body)
    assert (answer.status, answer.body) == (200, before)
    assert AuditEvent.objects.count() == events


def test_a_patch_without_a_body_is_an_empty_one() -> None:
    key = make_key()
    path = f"/namespaces/{make_namespace(key).pk}"
    assert Api(key).call("PATCH", path).status == 200
    assert Api(key).call("PATCH", path, content_type="").status == 200


def test_a_deleted_namespace_is_deleting_and_gives_its_name_back_at_once() -> None:
    # given a namespace with an image
    key = make_key()
    namespace = make_namespace(key, "my-team")
    push_image(key, namespace)
    api = Api(key)

    # when it is deleted, twice
    first, again = api.delete(f"/namespaces/{namespace.pk}"), api.delete(f"/namespaces/{namespace.pk}")

    # then both answers are 200 and `deleting`, it is still shown, and the name is free
    assert (first.status, first.body["status"]) == (200, "deleting")
    assert (again.status, again.body) == (200, first.body)
    assert first.body["updated_at"] > first.body["created_at"]
    assert api.get(f"/namespaces/{namespace.pk}").body["status"] == "deleting"
    assert api.post("/namespaces", name="my-team").status == 200
    assert [found["status"] for found in api.get("/namespaces", name="my-team").body["namespaces"]] == [
        "deleting",
        "ready",
    ]


def test_what_is_being_deleted_cannot_be_changed() -> None:
    key = make_key()
    namespace = make_namespace(key)
    Api(key).delete(f"/namespaces/{namespace.pk}")
    answer = Api(key).patch(f"/namespaces/{namespace.pk}", is_public=True)
    assert answer.status == 409
    assert answer.body == {
        "type": "transient_state",
        "message": "resource is in a transient state",
        "resource": "namespace",
        "resource_id": str(namespace.pk),
        "current_state": "deleting",
    }


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_what_is_locked_cannot_be_changed_or_deleted(method: str) -> None:
    key = make_key()
    namespace = make_namespace(key)
    Namespace.objects.update(status=Status.LOCKED)
    answer = Api(key).call(method, f"/namespaces/{namespace.pk}", {"is_public": True})
    assert (answer.status, answer.body["type"], answer.body["resource"]) == (423, "locked", "namespace")
    assert Api(key).get(f"/namespaces/{namespace.pk}").body["status"] == "locked"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "given", [NOBODYS, NOBODYS.upper(), "not-a-uuid", "0" * 32, "%00", "a%2Fb", "{}", "x" * 3000]
)
def test_an_id_of_nothing_is_not_found_whatever_its_form(method: str, given: str) -> None:
    answer = Api(make_key()).call(method, f"/namespaces/{given}", {} if method == "PATCH" else None)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json"
    if given != "a%2Fb":  # the server reads that as one more part of the path
        assert (answer.body["type"], answer.body["message"]) == ("not_found", "Namespace was not found")
        assert answer.body["resource"] == "namespace"


def test_an_id_may_be_written_in_upper_case() -> None:
    key = make_key()
    namespace = make_namespace(key)
    assert Api(key).get(f"/namespaces/{str(namespace.pk).upper()}").body["id"] == str(namespace.pk)


def test_invariant_10_each_change_has_an_audit_row_with_who_did_it() -> None:
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
