"""Namespaces in the management API: the responses, and the effect of each call."""

import re
from uuid import uuid4

import pytest
from django.conf import settings

from registry_control.namespaces.models import Namespace
from tests.factories import default_project, make_key, make_namespace, make_project, push_image
from tests.integration.control.api import Api, details

pytestmark = pytest.mark.django_db

RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def test_a_created_namespace_has_fifteen_fields_of_the_documented_types() -> None:
    # given a key with full access
    key = make_key()

    # when it creates a namespace
    response = Api(key).post("/namespaces", name="my-team", description="what we ship", is_public=True)

    # then the response is 200 with the object, ready at once, in the key's default project
    times = response.body.pop("created_at"), response.body.pop("updated_at")
    assert all(RFC_3339_UTC.fullmatch(time) for time in times)
    assert response.status == 200
    assert response.body == {
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
        "untagged_size": 0,
        "image_count": 0,
        "region": "fr-par",
    }


def test_every_response_has_the_headers_that_clients_compare() -> None:
    response = Api(make_key()).get("/namespaces")
    assert response.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert "X-Total-Count" not in response.headers


def test_a_read_returns_the_same_object_as_the_creation() -> None:
    api = Api(make_key())
    created = api.post("/namespaces", name="my-team").body
    assert api.get(f"/namespaces/{created['id']}").body == created
    assert api.get("/namespaces").body == {"namespaces": [created], "total_count": 1}


def test_size_and_image_count_include_pushed_images_that_are_not_being_deleted() -> None:
    # given two pushed images, one that was only created by an upload, and one that is being deleted
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
def test_valid_names_are_stored_unchanged(name: str) -> None:
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
def test_invalid_names_are_rejected_and_never_normalized(name: object, reason: str) -> None:
    response = Api(make_key()).post("/namespaces", name=name)
    assert details(response) == {"name": reason}
    assert not Namespace.objects.exists()


def test_a_name_is_required() -> None:
    assert details(Api(make_key()).post("/namespaces", description="nameless")) == {"name": "required"}


def test_a_name_is_unique_among_all_organizations() -> None:
    make_namespace(make_key(), "taken")
    response = Api(make_key()).post("/namespaces", name="taken")
    assert response.status == 409
    assert (response.body["type"], response.body["message"]) == ("already_exists", "Namespace already exist")
    assert {type(response.body[key]) for key in ("resource", "resource_id", "help_message")} == {str}


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
def test_the_error_names_each_argument_of_a_wrong_type_or_format(
    field: str, value: object, reason: str
) -> None:
    api = Api(make_key())
    assert details(api.post("/namespaces", name="my-team", **{field: value})) == {field: reason}


def test_the_error_names_all_invalid_arguments_at_once() -> None:
    response = Api(make_key()).post("/namespaces", description=1, is_public=2)
    assert details(response) == {"name": "required", "description": "format", "is_public": "format"}


def test_a_namespace_is_created_in_the_given_project() -> None:
    key = make_key()
    project = make_project(key.organization)
    response = Api(key).post("/namespaces", name="my-team", project_id=str(project.pk))
    assert response.body["project_id"] == str(project.pk)
    assert response.body["organization_id"] == str(key.organization.pk)


def test_an_organization_id_selects_its_default_project() -> None:
    # given a key whose own default project is another one
    home = make_key()
    key = make_key(holder=home.holder, project=make_project(home.organization))

    # when it creates in its organization
    response = Api(key).post("/namespaces", name="my-team", organization_id=str(home.organization.pk))

    # then the namespace is in the project with the organization's id
    assert response.body["project_id"] == str(default_project(home.organization).pk)


@pytest.mark.parametrize("both", [True, False])
def test_project_and_organization_must_match(*, both: bool) -> None:
    key, other = make_key(), make_key()
    organization = key.organization if both else other.organization
    project = make_project(key.organization)
    response = Api(key).post(
        "/namespaces", name="my-team", organization_id=str(organization.pk), project_id=str(project.pk)
    )
    if both:
        assert response.body["project_id"] == str(project.pk)
    else:
        assert details(response) == {"organization_id": "unknown"}


def test_a_project_of_another_organization_looks_like_an_unknown_one() -> None:
    key = make_key()
    foreign = make_project(make_key().organization)
    theirs = Api(key).post("/namespaces", name="my-team", project_id=str(foreign.pk))
    nobodys = Api(key).post("/namespaces", name="my-team", project_id=str(uuid4()))
    assert details(theirs) == details(nobodys) == {"project_id": "unknown"}
