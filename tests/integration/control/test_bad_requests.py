"""What is wrong before any domain code sees it: always JSON, never a page, never a 500."""

import json
import logging
from contextlib import AbstractContextManager

import pytest
from django.db import OperationalError, connection
from django.test import Client

from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_namespace
from tests.integration.control.api import Api, details

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
def test_bodies_that_are_no_json_are_refused(key: TestKey, body: bytes) -> None:
    answer = Api(key).call("POST", "/namespaces", body)
    argument, reason = ("body", "format") if body else ("name", "required")
    assert details(answer) == {argument: reason}


@pytest.mark.parametrize("body", ["[]", '"text"', "null", "5", "true"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_json_that_is_no_object_is_refused(key: TestKey, method: str, body: str) -> None:
    path = "/namespaces" if method == "POST" else f"/namespaces/{make_namespace(key).pk}"
    assert details(Api(key).call(method, path, body)) == {"body": "format"}


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x" * 500],
)
def test_other_content_types_are_refused(key: TestKey, content_type: str) -> None:
    answer = Api(key).call("POST", "/namespaces", "name=abc", content_type=content_type)
    assert (answer.status, answer.body["type"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
    ],
)
def test_json_with_or_without_a_charset_is_taken(key: TestKey, content_type: str) -> None:
    assert Api(key).call("POST", "/namespaces", '{"name": "abc"}', content_type=content_type).status == 200


@pytest.mark.parametrize(
    ("charset", "status"),
    [("no-such", 200), ("latin-1", 200), ("zlib", 400), ("rot13", 400), ("utf-16", 400)],
)
def test_strange_charsets_are_no_fault_of_ours(key: TestKey, charset: str, status: int) -> None:
    content_type = f"application/json; charset={charset}"
    assert Api(key).call("POST", "/namespaces", '{"name": "abc"}', content_type=content_type).status == status


def test_a_body_that_is_too_large_is_refused(key: TestKey) -> None:
    answer = Api(key).post("/namespaces", name="abc", description="x" * 3_000_000)
    assert (answer.status, answer.body["type"]) == (413, "request_entity_too_large")
    assert not Namespace.objects.exists()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("body", ["{}", "", "nonsense"])
@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain"])
def test_bodies_of_get_and_delete_are_not_looked_at(
    key: TestKey, method: str, body: str, content_type: str
) -> None:
    path = f"/namespaces/{make_namespace(key).pk}"
    assert Api(key).call(method, path, body, content_type=content_type).status == 200


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json; indent=4", "text/html, */*;q=0.1"]
)
def test_answers_are_plain_json_whatever_is_accepted(key: TestKey, accept: str) -> None:
    answer = Api(key).call("GET", "/namespaces", Accept=accept)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")


def test_an_answer_that_is_not_wanted_is_406_and_json_all_the_same(key: TestKey) -> None:
    answer = Api(key).call("GET", "/namespaces", Accept="text/html")
    assert (answer.status, answer.body["type"]) == (406, "not_acceptable")


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
def test_methods_that_are_not_there_are_405(key: TestKey, method: str, path: str, allowed: str) -> None:
    answer = Api(key).call(method, path)
    assert (answer.status, answer.body["type"]) == (405, "method_not_allowed")
    assert {*answer.headers["Allow"].split(", ")} >= {*allowed.split(", ")} - {"HEAD"}


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
def test_paths_that_lead_nowhere_are_json_and_never_redirect(key: TestKey, method: str, path: str) -> None:
    answer = Api(key).call(method, path)
    assert answer.status == 404
    assert answer.body["type"] == "not_found"
    assert {type(answer.body[name]) for name in ("message", "resource", "resource_id")} == {str}
    assert answer.headers["Content-Type"] == "application/json"
    assert "X-Request-Id" in answer.headers


EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("method", EVERY_METHOD)
@pytest.mark.parametrize("region", ["zz-zzz", "nl-ams", "FR-PAR", "fr-par%20", "local", "%2e%2e"])
@pytest.mark.parametrize("tail", ["namespaces/x", "images/x", "nothing"])
def test_everything_in_another_region_is_a_json_404_for_a_key_and_401_without(
    key: TestKey, region: str, tail: str, method: str
) -> None:
    # given Django's own check of forged forms, which the test client skips unless told
    django = Client(enforce_csrf_checks=True)
    path = f"/registry/v1/regions/{region}/{tail}"

    # then every method is answered by the API
    answer = Api(key, django).call(method, path, {"name": "x"} if method in ("POST", "PATCH") else None)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json"
    if method != "HEAD":
        assert (answer.body["type"], answer.body["resource"]) == ("not_found", "region")
        assert "this registry serves fr-par" in answer.body["message"]
    assert Api(None, django).call(method, path).status == 401


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_tokens_of_another_region_are_a_json_404_for_everybody(method: str) -> None:
    path = "/registry-internal/v1/regions/nl-ams/tokens"
    answer = Api(None, Client(enforce_csrf_checks=True)).call(method, path)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")


@pytest.mark.parametrize("region", ["nl-ams", "pl-waw"])
@pytest.mark.parametrize("items", ["namespaces", "images", "tags"])
def test_lists_of_scaleways_other_regions_are_empty(key: TestKey, region: str, items: str) -> None:
    # given a namespace here, and a client that queries every region in turn
    make_namespace(key)
    path = f"/registry/v1/regions/{region}/{'images/x/tags' if items == 'tags' else items}"

    # then nothing is in the other regions, and arguments are checked as here
    assert Api(key).get(path, page=1, order_by="created_at_desc").body == {items: [], "total_count": 0}
    assert Api(key).get(path, page="x").status == 400
    assert Api().get(path).status == 401
    assert Api(key).post(path, name="x").status == 404
    assert Api(key).get(f"/registry/v1/regions/zz-zzz/{items}").status == 404


def test_the_address_itself_leads_to_the_administration() -> None:
    answer = Client().get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_a_host_that_is_not_ours_is_refused_in_json() -> None:
    answer = Api().call("GET", "/metadata", Host="evil.example")
    assert (answer.status, answer.body["type"]) == (400, "bad_request")


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "evil.example", "[fe80::1]", ""])
def test_a_health_check_may_name_any_host(host: str) -> None:
    answer = Api().call("GET", "/healthz", Host=host)
    assert (answer.status, answer.body["status"]) == (200, "ok")


def test_a_health_check_is_a_get() -> None:
    answer = Api().call("POST", "/healthz", Host="evil.example")
    assert (answer.status, answer.body["type"]) == (405, "method_not_allowed")


def test_the_admin_speaks_html() -> None:
    response = Client().get("/admin/nothing/")
    assert response.status_code in (302, 404)
    assert "application/json" not in response.headers.get("Content-Type", "")


def break_queries(message: str) -> AbstractContextManager[None]:
    """Every query fails as it does when the database is away or we have made a mistake."""

    def fail(execute: object, sql: str, params: object, many: bool, context: object) -> object:
        raise OperationalError(message) if message == "away" else ZeroDivisionError(message)

    return connection.execute_wrapper(fail)


def test_our_own_faults_are_500_and_say_nothing(key: TestKey, caplog: pytest.LogCaptureFixture) -> None:
    with break_queries("the inside"), caplog.at_level(logging.ERROR):
        answer = Api(key).get("/namespaces")
    assert (answer.status, answer.headers["Content-Type"]) == (500, "application/json")
    assert answer.body == {"type": "internal_server_error", "message": "internal error"}
    assert answer.headers["X-Request-Id"] in caplog.text


@pytest.mark.parametrize("path", ["/namespaces", "/healthz", "/.well-known/jwks.json"])
def test_a_database_that_is_away_is_503_and_says_when_to_try_again(
    key: TestKey, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with break_queries("away"):
        answer = Api(key).get(path)
    assert (answer.status, answer.body["type"]) == (503, "service_unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert "away" not in json.dumps(answer.body)


def test_health_and_metadata_need_no_key() -> None:
    assert set(Api().get("/healthz").body) == {"status", "worker", "version"}
    assert set(Api().get("/metadata").body) == {"platform", "partition", "domain"}
