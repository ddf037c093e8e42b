"""The endpoints of retention: who may call them, what they accept, and what they store."""

from typing import Any

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.common.models import Status
from registry_control.gc.retention import NOTHING
from registry_control.gc.selectors.retention import policy_of
from registry_control.namespaces.models import Namespace
from tests.factories import PUSH, READ_ONLY, TestKey, make_key, make_namespace
from tests.integration.control.api import UNKNOWN_ID, Api, details

pytestmark = pytest.mark.django_db

FULL: dict[str, Any] = {
    "enabled": True,
    "rules": [
        {
            "images": "team/*",
            "tags": "pr-?*",
            "keep_newest": 3,
            "keep_days_since_tagged": 7,
            "keep_days_since_pulled": None,
        }
    ],
    "untagged_days": 30,
    "protected_tags": ["v*"],
    "protected_except": ["v*-rc?"],
}
EMPTY: dict[str, Any] = {
    "enabled": False,
    "rules": [],
    "untagged_days": None,
    "protected_tags": [],
    "protected_except": [],
}


@pytest.fixture
def owner() -> TestKey:
    return make_key()


@pytest.fixture
def namespace(owner: TestKey) -> Namespace:
    return make_namespace(owner)


def path(namespace_id: object) -> str:
    return f"/registry/v1beta1/regions/fr-par/namespaces/{namespace_id}/retention"


def test_what_is_put_is_shown(owner: TestKey, namespace: Namespace) -> None:
    api = Api(owner)
    assert api.get(path(namespace.pk)).body == EMPTY
    for body in (FULL, EMPTY, FULL):
        response = api.call("PUT", path(namespace.pk), body)
        assert (response.status, response.body) == (200, body)
        assert api.get(path(namespace.pk)).body == body
    events = AuditEvent.objects.filter(verb="namespace.retention", target_id=str(namespace.pk))
    assert events.count() == 3
    assert events[0].detail["protected_tags"] == "v*"


def test_what_is_absent_has_no_effect(owner: TestKey, namespace: Namespace) -> None:
    response = Api(owner).call("PUT", path(namespace.pk), {"rules": [{"images": "*", "tags": "*"}]})
    keeps = {"keep_newest": None, "keep_days_since_tagged": None, "keep_days_since_pulled": None}
    rule = {"images": "*", "tags": "*", **keeps}
    assert response.body == {**EMPTY, "enabled": True, "rules": [rule]}


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", ""])
def test_no_body_is_refused_and_an_empty_object_removes_all_rules(
    owner: TestKey, namespace: Namespace, content_type: str
) -> None:
    Api(owner).call("PUT", path(namespace.pk), FULL)
    refused = Api(owner).call("PUT", path(namespace.pk), content_type=content_type)
    assert details(refused) == {"body": "required"}
    assert "a body is required" in refused.body["details"][0]["help_message"]
    assert Api(owner).get(path(namespace.pk)).body == FULL
    emptied = Api(owner).call("PUT", path(namespace.pk), {})
    assert (emptied.status, emptied.body) == (200, {**EMPTY, "enabled": True})


def test_only_an_administrator_of_the_namespace_reads_and_changes_it(
    owner: TestKey, namespace: Namespace
) -> None:
    for method, body in (("GET", None), ("PUT", FULL)):
        assert Api(None).call(method, path(namespace.pk), body).status == 401
        for permission_set in (READ_ONLY, PUSH):
            member = make_key(permission_set, organization=owner.organization)
            response = Api(member).call(method, path(namespace.pk), body)
            assert (response.status, response.body["type"]) == (403, "permissions_denied")
        foreign = Api(make_key()).call(method, path(namespace.pk), body)
        missing = Api(owner).call(method, path(UNKNOWN_ID), body)
        assert foreign.status == missing.status == 404
        assert foreign.body["message"] == missing.body["message"]
        assert Api(owner).call(method, path("nonsense"), body).status == 404
    assert policy_of(namespace.pk) == NOTHING


RULE = {"images": "*", "tags": "*"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], {"body": "format"}),
        ("null", {"body": "required"}),  # JSON, as it is sent
        ({"colour": "red"}, {"colour": "unknown"}),
        ({"enabled": "yes"}, {"enabled": "format"}),
        ({"rules": {}}, {"rules": "format"}),
        ({"rules": [RULE] * 101}, {"rules": "constraint"}),
        ({"rules": [RULE, 1]}, {"rules[1]": "format"}),
        ({"rules": [{"images": "*"}]}, {"rules[0].tags": "required"}),
        ({"rules": [{**RULE, "keep": 1}]}, {"rules[0].keep": "unknown"}),
        ({"rules": [{**RULE, "keep_newest": 0}]}, {"rules[0].keep_newest": "constraint"}),
        ({"rules": [{**RULE, "keep_newest": True}]}, {"rules[0].keep_newest": "format"}),
        ({"rules": [{**RULE, "keep_newest": 1.5}]}, {"rules[0].keep_newest": "format"}),
        (
            {"rules": [{**RULE, "keep_days_since_tagged": 2**40}]},
            {"rules[0].keep_days_since_tagged": "constraint"},
        ),
        ({"rules": [{**RULE, "images": "[ab]*"}]}, {"rules[0].images": "format"}),
        ({"rules": [{**RULE, "tags": ""}]}, {"rules[0].tags": "format"}),
        ({"rules": [{**RULE, "tags": "a" * 256}]}, {"rules[0].tags": "constraint"}),
        ({"untagged_days": -1}, {"untagged_days": "constraint"}),
        ({"protected_tags": "v*"}, {"protected_tags": "format"}),
        ({"protected_tags": ["v*", None]}, {"protected_tags[1]": "format"}),
        ({"protected_except": ["a/b"]}, {"protected_except[0]": "format"}),
        ({"protected_except": ["a"] * 101}, {"protected_except": "constraint"}),
    ],
)
def test_a_malformed_body_is_refused_with_the_field(
    owner: TestKey, namespace: Namespace, body: object, expected: dict[str, str]
) -> None:
    assert details(Api(owner).call("PUT", path(namespace.pk), body)) == expected
    assert policy_of(namespace.pk) == NOTHING


def test_unknown_query_parameters_are_errors(owner: TestKey, namespace: Namespace) -> None:
    assert details(Api(owner).get(path(namespace.pk), colour="red")) == {"colour": "unknown"}
    assert details(Api(owner).call("PUT", path(namespace.pk) + "?colour=red", FULL)) == {"colour": "unknown"}


def test_a_locked_namespace_keeps_its_retention(owner: TestKey, namespace: Namespace) -> None:
    Namespace.objects.filter(pk=namespace.pk).update(status=Status.LOCKED)
    assert Api(owner).call("PUT", path(namespace.pk), FULL).status == 423
    assert Api(owner).get(path(namespace.pk)).body == EMPTY
