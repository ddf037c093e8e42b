"""Requests that are rejected before they reach a service: the error is always JSON, never HTML or a 500."""

import json
import logging
import re
from contextlib import AbstractContextManager

import pytest
from django.db import OperationalError, connection
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_key, make_namespace, push_image
from tests.integration.control.api import UNKNOWN_ID, Api, details

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"name=x",
        b"\xff\xfe",
        b'{"name": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"",
    ],
)
def test_malformed_json_is_rejected(key: TestKey, body: bytes) -> None:
    response = Api(key).call("POST", "/namespaces", body)
    argument, reason = ("body", "format") if body else ("name", "required")
    assert details(response) == {argument: reason}


@pytest.mark.parametrize("body", ["[]", '"text"', "null", "5", "true"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_json_that_is_not_an_object_is_rejected(key: TestKey, method: str, body: str) -> None:
    path = "/namespaces" if method == "POST" else f"/namespaces/{make_namespace(key).pk}"
    assert details(Api(key).call(method, path, body)) == {"body": "format"}


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x" * 500],
)
def test_other_content_types_are_415(key: TestKey, content_type: str) -> None:
    response = Api(key).call("POST", "/namespaces", "name=abc", content_type=content_type)
    assert (response.status, response.body["type"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
    ],
)
def test_json_is_accepted_with_and_without_a_charset(key: TestKey, content_type: str) -> None:
    assert Api(key).call("POST", "/namespaces", '{"name": "abc"}', content_type=content_type).status == 200


@pytest.mark.parametrize(
    ("charset", "status"),
    [("no-such", 200), ("latin-1", 200), ("zlib", 400), ("rot13", 400), ("utf-16", 400)],
)
def test_an_unusual_charset_is_not_a_server_error(key: TestKey, charset: str, status: int) -> None:
    content_type = f"application/json; charset={charset}"
    assert Api(key).call("POST", "/namespaces", '{"name": "abc"}', content_type=content_type).status == status


def test_a_body_that_is_too_large_is_413(key: TestKey) -> None:
    response = Api(key).post("/namespaces", name="abc", description="x" * 3_000_000)
    assert (response.status, response.body["type"]) == (413, "request_entity_too_large")
    assert not Namespace.objects.exists()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("body", ["{}", "", "nonsense"])
@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain"])
def test_the_body_of_get_and_delete_is_ignored(
    key: TestKey, method: str, body: str, content_type: str
) -> None:
    path = f"/namespaces/{make_namespace(key).pk}"
    assert Api(key).call(method, path, body, content_type=content_type).status == 200


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json; indent=4", "text/html, */*;q=0.1"]
)
def test_responses_are_plain_json_whatever_accept_contains(key: TestKey, accept: str) -> None:
    response = Api(key).call("GET", "/namespaces", Accept=accept)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")


def test_an_unacceptable_response_is_406_in_json(key: TestKey) -> None:
    response = Api(key).call("GET", "/namespaces", Accept="text/html")
    assert (response.status, response.body["type"]) == (406, "not_acceptable")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/namespaces", "GET, POST, HEAD"),
        ("DELETE", "/namespaces", "GET, POST, HEAD"),
        ("POST", "/images", "GET, HEAD"),
        ("POST", "/namespaces/0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29", "GET, PATCH, DELETE, HEAD"),
        ("PATCH", "/tags/0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29", "GET, DELETE, HEAD"),
        ("OPTIONS", "/namespaces", "GET, POST, HEAD"),
    ],
)
def test_unsupported_methods_are_405(key: TestKey, method: str, path: str, allowed: str) -> None:
    response = Api(key).call(method, path)
    assert (response.status, response.body["type"]) == (405, "method_not_allowed")
    assert {*response.headers["Allow"].split(", ")} >= {*allowed.split(", ")} - {"HEAD"}


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/registry/v1",
        "/registry/v1/regions/fr-par/",
        "/registry/v1/regions/fr-par/namespaces/",
        "/registry/v1/regions/fr-par/images/0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29/tags/",
        "/registry/v1/regions/fr-par/namespaces/a/b",
        "/registry/v2/regions/fr-par/namespaces",
        "/iam/v1alpha1/api-keys/SCWXXXXXXXXXXXXXXXXX",
        "/static/nothing.css",
        "/%00",
        "/%ff%fe",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_paths_are_json_and_never_redirect(key: TestKey, method: str, path: str) -> None:
    response = Api(key).call(method, path)
    assert response.status == 404
    assert response.body["type"] == "not_found"
    assert {type(response.body[name]) for name in ("message", "resource", "resource_id")} == {str}
    assert response.headers["Content-Type"] == "application/json"
    assert "X-Request-Id" in response.headers


EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("method", EVERY_METHOD)
@pytest.mark.parametrize("region", ["zz-zzz", "nl-ams", "FR-PAR", "fr-par%20", "local", "%2e%2e"])
@pytest.mark.parametrize("tail", ["namespaces/x", "images/x", "nothing"])
def test_everything_in_another_region_is_a_json_404_for_a_key_and_401_without(
    key: TestKey, region: str, tail: str, method: str
) -> None:
    # given Django's CSRF check, which the test client disables by default
    django = Client(enforce_csrf_checks=True)
    path = f"/registry/v1/regions/{region}/{tail}"

    # then the API responds to every method
    response = Api(key, django).call(method, path, {"name": "x"} if method in ("POST", "PATCH") else None)
    assert response.status == 404
    assert response.headers["Content-Type"] == "application/json"
    if method != "HEAD":
        assert (response.body["type"], response.body["resource"]) == ("not_found", "region")
        assert "this registry serves fr-par" in response.body["message"]
    assert Api(None, django).call(method, path).status == 401


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_tokens_of_another_region_are_a_json_404_for_every_caller(method: str) -> None:
    path = "/registry-internal/v1/regions/nl-ams/tokens"
    response = Api(None, Client(enforce_csrf_checks=True)).call(method, path)
    assert (response.status, response.headers["Content-Type"]) == (404, "application/json")


@pytest.mark.parametrize("region", ["nl-ams", "pl-waw"])
@pytest.mark.parametrize("items", ["namespaces", "images", "tags"])
def test_lists_of_scaleways_other_regions_are_empty(key: TestKey, region: str, items: str) -> None:
    # given a namespace in this region, and a client that queries every region in turn
    make_namespace(key)
    path = f"/registry/v1/regions/{region}/{'images/x/tags' if items == 'tags' else items}"

    # then the other regions are empty, and arguments are validated as in this one
    assert Api(key).get(path, page=1, order_by="created_at_desc").body == {items: [], "total_count": 0}
    assert Api(key).get(path, page="x").status == 400
    assert Api().get(path).status == 401
    assert Api(key).post(path, name="x").status == 404
    assert Api(key).get(f"/registry/v1/regions/zz-zzz/{items}").status == 404


def test_the_root_path_redirects_to_the_administration() -> None:
    response = Client().get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")


def test_a_host_that_is_not_allowed_is_400_in_json() -> None:
    response = Api().call("GET", "/metadata", Host="evil.example")
    assert (response.status, response.body["type"]) == (400, "bad_request")


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "evil.example", "[fe80::1]", ""])
def test_a_health_check_may_have_any_host(host: str) -> None:
    response = Api().call("GET", "/healthz", Host=host)
    assert (response.status, response.body["status"]) == (200, "ok")


def test_a_health_check_is_a_get() -> None:
    response = Api().call("POST", "/healthz", Host="evil.example")
    assert (response.status, response.body["type"]) == (405, "method_not_allowed")


def test_the_administration_responds_in_html() -> None:
    response = Client().get("/admin/nothing/")
    assert response.status_code in (302, 404)
    assert "application/json" not in response.headers.get("Content-Type", "")


def break_queries(message: str) -> AbstractContextManager[None]:
    """Make every query fail, as with an unavailable database or a bug."""

    def fail(execute: object, sql: str, params: object, many: bool, context: object) -> object:
        raise OperationalError(message) if message == "away" else ZeroDivisionError(message)

    return connection.execute_wrapper(fail)


def test_an_internal_error_is_500_without_details(key: TestKey, caplog: pytest.LogCaptureFixture) -> None:
    with break_queries("the inside"), caplog.at_level(logging.ERROR):
        response = Api(key).get("/namespaces")
    assert (response.status, response.headers["Content-Type"]) == (500, "application/json")
    assert response.body == {"type": "internal_server_error", "message": "internal error"}
    assert response.headers["X-Request-Id"] in caplog.text


@pytest.mark.parametrize("path", ["/namespaces", "/healthz", "/.well-known/jwks.json"])
def test_an_unavailable_database_is_503_with_retry_after(
    key: TestKey, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with break_queries("away"):
        response = Api(key).get(path)
    assert (response.status, response.body["type"]) == (503, "service_unavailable")
    assert response.headers["Retry-After"] == "5"
    assert "away" not in json.dumps(response.body)


def test_health_and_metadata_need_no_key() -> None:
    assert set(Api().get("/healthz").body) == {"status", "worker", "version"}
    assert set(Api().get("/metadata").body) == {"platform", "partition", "domain"}


def operations_with_a_body() -> list[tuple[str, str]]:
    """Method and path of every operation of the API that reads a body, with ids that no object has."""
    document = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    return [
        (method.upper(), re.sub(r"\{\w+_id\}", UNKNOWN_ID, path.replace("{region}", "fr-par")))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
    ]


@pytest.mark.parametrize("body", ["[]", '[{"name": "x"}]', '"text"', "null", "5", "true"])
def test_no_operation_fails_because_the_body_is_not_an_object(operator: TestKey, body: str) -> None:
    found = operations_with_a_body()
    assert len(found) > 10
    statuses = {each: Api(operator).call(*each, body).status for each in found}
    assert set(statuses.values()) <= {400, 404}, statuses


@pytest.mark.parametrize("lone", ["\ud800", "a\udfffb"])
def test_no_operation_fails_because_text_is_no_unicode(operator: TestKey, lone: str) -> None:
    # given a key that may do everything, and one that may see nothing
    keys = [operator, make_key(rights=False)]
    names = ["name", "visibility", "dry_run", "enabled", "project_id", "rules"]
    documents = [{lone: 1}, [lone], lone, {"a": [{"b": {lone: None}}]}, *[{name: lone} for name in names]]

    # then the body is refused, unless the object in the path or the right comes first
    for each in operations_with_a_body():
        for document in documents:
            for key in keys:
                response = Api(key).call(*each, json.dumps(document))
                assert response.status in (400, 403, 404), (each, document, response)


def test_the_field_of_an_existing_object_is_no_lone_surrogate_either(key: TestKey) -> None:
    pushed = push_image(key, make_namespace(key))
    v1beta1 = f"/registry/v1beta1/regions/fr-par/namespaces/{pushed.image.namespace_id}"
    rule = {"images": "*", "tags": "*"}
    for method, path, document, argument in (
        ("PATCH", f"/images/{pushed.image_id}", {"visibility": "\udc00\ud800"}, "visibility"),
        ("PATCH", f"/namespaces/{pushed.image.namespace_id}", {"description": "\ud800"}, "description"),
        ("PUT", f"{v1beta1}/retention", {"\ud800": 1}, "body"),
        ("PUT", f"{v1beta1}/retention", {"rules": [{**rule, "\ud800": 1}]}, "rules"),
        ("POST", f"{v1beta1}/retention/preview", {"rules": [{**rule, "\ud800": 1}]}, "rules"),
    ):
        response = Api(key).call(method, path, document)
        assert details(response) == {argument: "format"}
        assert "surrogate" in response.body["details"][0]["help_message"]


def test_a_character_beyond_the_basic_plane_is_text(key: TestKey) -> None:
    created = Api(key).call("POST", "/namespaces", r'{"name": "abc", "description": "\ud83d\ude80"}')
    assert (created.status, created.body["description"]) == (200, "\U0001f680")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/usage"),
        ("GET", "/recycle-bin"),
        ("GET", f"/recycle-bin/{UNKNOWN_ID}"),
        ("DELETE", f"/recycle-bin/{UNKNOWN_ID}"),
        ("POST", f"/recycle-bin/{UNKNOWN_ID}/restore"),
        ("GET", f"/manifests?image_id={UNKNOWN_ID}"),
        ("GET", f"/manifests/{UNKNOWN_ID}"),
        ("DELETE", f"/manifests/{UNKNOWN_ID}"),
        ("GET", "/gc/queue"),
        ("GET", "/gc/report"),
        ("GET", "/gc/scrub"),
        ("GET", "/gc/runs"),
        ("GET", f"/gc/runs/{UNKNOWN_ID}"),
        ("POST", "/gc/runs"),
        ("POST", "/gc/breaker/release"),
    ],
)
def test_unknown_parameters_of_the_registrys_own_api_are_errors(
    operator: TestKey, method: str, path: str
) -> None:
    whole = f"/registry/v1beta1/regions/fr-par{path}{'&' if '?' in path else '?'}nmae=x"
    assert details(Api(operator).call(method, whole)) == {"nmae": "unknown"}
