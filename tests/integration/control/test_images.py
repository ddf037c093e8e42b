"""Images in the management API: the responses, and the effect of each call."""

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Image
from registry_control.catalog.services import images
from registry_control.common.models import Status
from registry_control.namespaces.models import Namespace
from tests.factories import Pushed, TestKey, push_blob, push_image
from tests.integration.control.api import UNKNOWN_ID, Api, details

pytestmark = pytest.mark.django_db


def test_an_image_has_thirteen_fields_of_the_documented_types(
    api: Api, namespace: Namespace, pushed: Pushed
) -> None:
    body = api.get(f"/images/{pushed.image_id}").body
    times = body.pop("created_at"), body.pop("updated_at")
    assert all(time.endswith("Z") for time in times)
    assert body == {
        "id": str(pushed.image_id),
        "name": "sebp/lighttpd",
        "namespace_id": str(namespace.pk),
        "status": "ready",
        "status_message": "",
        "visibility": "inherit",
        "size": pushed.size,
        "untagged_size": 0,
        "tags": ["a", "b"],
        "tags_total": 2,
        "last_pulled_at": None,
    }


def test_a_list_contains_the_same_object_as_a_read_of_the_image(api: Api, pushed: Pushed) -> None:
    alone = api.get(f"/images/{pushed.image_id}").body
    assert api.get("/images").body == {"images": [alone], "total_count": 1}


def test_an_image_is_visible_from_its_first_manifest_on(api: Api, key: TestKey, namespace: Namespace) -> None:
    # given an image that was created by an upload
    image_id = images.get_or_create(actor=key.actor, namespace_id=namespace.pk, name="begun")
    push_blob(key, image_id, b"a blob")

    # when nothing else was pushed, then it is not visible
    assert api.get(f"/images/{image_id}").status == 404
    assert api.get(f"/images/{image_id}/tags").status == 404
    assert api.patch(f"/images/{image_id}", visibility="public").status == 404
    assert api.delete(f"/images/{image_id}").status == 404
    assert api.get("/images").body == {"images": [], "total_count": 0}

    # and when a manifest was pushed, then it is
    push_image(key, namespace, "begun")
    assert api.get(f"/images/{image_id}").status == 200


@pytest.mark.parametrize("to", ["public", "private", "inherit"])
def test_visibility_is_changed_to_the_requested_value(api: Api, pushed: Pushed, to: str) -> None:
    before = api.get(f"/images/{pushed.image_id}").body
    response = api.patch(f"/images/{pushed.image_id}", visibility=to)
    assert response.status == 200
    assert response.body == {**before, "visibility": to, "updated_at": response.body["updated_at"]}
    assert (response.body["updated_at"] > before["updated_at"]) == (to != "inherit")
    assert api.get(f"/images/{pushed.image_id}").body == response.body


@pytest.mark.parametrize("body", [{}, {"visibility": "visibility_unknown"}, {"visibility": None}])
def test_an_unset_visibility_changes_nothing(api: Api, pushed: Pushed, body: dict[str, object]) -> None:
    before = api.patch(f"/images/{pushed.image_id}", visibility="private").body
    response = api.call("PATCH", f"/images/{pushed.image_id}", body)
    assert (response.status, response.body) == (200, before)


@pytest.mark.parametrize("value", ["PUBLIC", "", "secret", 1, ["public"], {"public": True}, True, "nul\x00"])
def test_invalid_visibilities_are_rejected(api: Api, pushed: Pushed, value: object) -> None:
    response = api.patch(f"/images/{pushed.image_id}", visibility=value)
    assert details(response) == {"visibility": "constraint"}
    assert pushed.image.visibility == "inherit"


def test_the_visibility_of_a_namespace_does_not_change_that_of_its_images(
    api: Api, namespace: Namespace, pushed: Pushed
) -> None:
    api.patch(f"/images/{pushed.image_id}", visibility="private")
    api.patch(f"/namespaces/{namespace.pk}", is_public=True)
    assert api.get(f"/images/{pushed.image_id}").body["visibility"] == "private"


def test_a_deleted_image_has_the_status_deleting_and_its_name_is_free_at_once(
    api: Api, key: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    # when it is deleted, twice
    first, again = api.delete(f"/images/{pushed.image_id}"), api.delete(f"/images/{pushed.image_id}")

    # then both responses are 200 and `deleting`, it is still listed, and a push creates a new image
    assert (first.status, first.body["status"]) == (200, "deleting")
    assert (again.status, again.body) == (200, first.body)
    assert api.get("/images").body == {"images": [first.body], "total_count": 1}
    assert push_image(key, namespace, "sebp/lighttpd").image_id != pushed.image_id
    assert [image["status"] for image in api.get("/images").body["images"]] == ["deleting", "ready"]


def test_a_layer_that_two_images_share_counts_in_the_size_of_each(
    api: Api, key: TestKey, namespace: Namespace, pushed: Pushed
) -> None:
    other = push_image(key, namespace, "other", layers=[b"one"])
    again = push_image(key, namespace, "sebp/lighttpd", tags=["c"], layers=[b"one", b"new"])
    assert again.image_id == pushed.image_id
    assert api.get(f"/images/{other.image_id}").body["size"] == other.size
    assert api.get(f"/images/{pushed.image_id}").body["size"] == pushed.size + len(b"new")


@pytest.mark.parametrize("what", ["image", "namespace"])
def test_an_image_that_is_being_deleted_cannot_be_changed(
    api: Api, namespace: Namespace, pushed: Pushed, what: str
) -> None:
    deleted = pushed.image_id if what == "image" else namespace.pk
    api.delete(f"/{what}s/{deleted}")
    response = api.patch(f"/images/{pushed.image_id}", visibility="public")
    assert (response.status, response.body["type"]) == (409, "transient_state")
    assert (response.body["resource"], response.body["resource_id"]) == (what, str(deleted))


@pytest.mark.parametrize("what", ["image", "namespace"])
def test_a_locked_image_and_its_tags_cannot_be_changed_or_deleted(
    api: Api, namespace: Namespace, pushed: Pushed, what: str
) -> None:
    model: type[Image | Namespace] = Image if what == "image" else Namespace
    model.objects.update(status=Status.LOCKED)
    responses = [
        api.patch(f"/images/{pushed.image_id}", visibility="public"),
        api.delete(f"/images/{pushed.image_id}"),
        api.delete(f"/tags/{pushed.tag('a').pk}"),
    ]
    assert {
        (response.status, response.body["type"], response.body["resource"]) for response in responses
    } == {(423, "locked", what)}
    assert pushed.image.visibility == "inherit"


def test_deleting_in_a_namespace_that_is_being_deleted_succeeds(
    api: Api, namespace: Namespace, pushed: Pushed
) -> None:
    api.delete(f"/namespaces/{namespace.pk}")
    assert api.delete(f"/tags/{pushed.tag('a').pk}").body["status"] == "deleting"
    assert api.delete(f"/images/{pushed.image_id}").body["status"] == "deleting"


@pytest.mark.parametrize("given", [UNKNOWN_ID, UNKNOWN_ID.upper(), "not-a-uuid", "%00", "{}"])
@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("GET", "/images/{}", "image"),
        ("PATCH", "/images/{}", "image"),
        ("DELETE", "/images/{}", "image"),
        ("GET", "/images/{}/tags", "image"),
        ("GET", "/tags/{}", "tag"),
        ("DELETE", "/tags/{}", "tag"),
    ],
)
def test_an_unknown_id_is_404_whatever_its_format(
    api: Api, method: str, path: str, what: str, given: str
) -> None:
    response = api.call(method, path.replace("{}", given), {} if method == "PATCH" else None)
    assert (response.status, response.body["type"]) == (404, "not_found")
    assert response.body["message"] == f"{what.capitalize()} was not found"
    assert response.body["resource"] == what


def test_invariant_10_changes_of_images_and_tags_write_audit_rows(api: Api, pushed: Pushed) -> None:
    before = AuditEvent.objects.count()
    api.patch(f"/images/{pushed.image_id}", visibility="public")
    api.delete(f"/tags/{pushed.tag('a').pk}")
    api.delete(f"/tags/{pushed.tag('a').pk}")
    api.delete(f"/images/{pushed.image_id}")
    verbs = [event.verb for event in AuditEvent.objects.order_by("pk")[before:]]
    assert verbs == ["image.visibility", "tag.delete", "image.delete"]
