"""The API of targets, rules and executions: fields, statuses, rights."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings

from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.services import deletion
from registry_control.common.store import blob_store
from registry_control.identity import services as identity
from registry_control.namespaces.models import Namespace
from registry_control.replication.models import Execution, ExecutionStatus, Rule, Target
from registry_control.replication.services import rules
from registry_data.client.egress import EgressPolicy
from tests.factories import FULL_ACCESS, PUSH, READ_ONLY, TestKey, make_key, make_namespace, make_project
from tests.integration.control.api import UNKNOWN_ID, Api, Response, details
from tests.integration.replication.scene import make_rule

pytestmark = pytest.mark.django_db

BASE = "/replication/v1beta1/regions/fr-par"
TARGET = {
    "name": "mirror",
    "url": "https://registry.example.com",
    "username": "robot",
    "password": "pass-phrase",
}


def call(key: TestKey | None, method: str, path: str, body: object = None) -> Response:
    return Api(key).call(method, BASE + path, body)


@pytest.fixture
def target_id(owner: TestKey) -> str:
    return str(call(owner, "POST", "/targets", TARGET).body["id"])


@pytest.fixture
def body(namespace: Namespace, target_id: str) -> dict[str, Any]:
    return {
        "name": "everything",
        "direction": "push",
        "target_id": target_id,
        "namespace_id": str(namespace.pk),
        "repositories": ["*"],
    }


def test_a_target_never_shows_its_password(owner: TestKey) -> None:
    created = call(owner, "POST", "/targets", TARGET)
    assert created.status == 200
    assert set(created.body) == {
        *("id", "name", "url", "username", "insecure", "organization_id", "created_at", "updated_at")
    }
    assert created.body["organization_id"] == str(owner.organization.pk)
    target = f"/targets/{created.body['id']}"
    answers = [
        created,
        call(owner, "GET", target),
        call(owner, "GET", "/targets"),
        call(owner, "PATCH", target, {"password": "pass-phrase-2"}),
        call(owner, "DELETE", target),
    ]
    assert [answer.status for answer in answers] == [200] * 5
    assert all("pass-phrase" not in str(answer.body) for answer in answers)
    events = AuditEvent.objects.filter(target_kind="target").order_by("pk")
    assert [event.verb for event in events] == ["target.create", "target.update", "target.delete"]
    assert all("pass-phrase" not in str(event.detail) for event in events)
    assert call(owner, "GET", target).status == 404


def test_passwords_are_encrypted_in_the_database(owner: TestKey, target_id: str) -> None:
    sealed = bytes(Target.objects.get(pk=target_id).sealed_password)
    assert sealed
    assert b"pass-phrase" not in sealed


def test_a_new_url_without_a_password_removes_the_password(owner: TestKey, target_id: str) -> None:
    """Otherwise the password could be sent to a registry of somebody else."""
    call(owner, "PATCH", f"/targets/{target_id}", {"url": "https://other.example.com"})
    assert bytes(Target.objects.get(pk=target_id).sealed_password) == b""


@pytest.mark.parametrize(
    "url",
    [
        "registry.example.com",
        "ftp://registry.example.com",
        "https://registry.example.com/path",
        "https://user:secret@registry.example.com",
        "https://registry.example.com?x=1",
        "https://",
        "https://[::1",
        "https://host:99999",
        "http://256.1.1.1",
        "https://xn--a",
    ],
)
def test_malformed_urls_are_refused(owner: TestKey, url: str) -> None:
    assert details(call(owner, "POST", "/targets", {**TARGET, "url": url})) == {"url": "format"}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5000",
        "https://localhost",
        "http://10.1.2.3",
        "http://169.254.169.254",
        "http://[::1]",
    ],
)
def test_internal_addresses_are_refused_when_a_target_is_created(owner: TestKey, url: str) -> None:
    with override_settings(EGRESS=EgressPolicy()):
        refused = call(owner, "POST", "/targets", {**TARGET, "url": url})
        assert details(refused) == {"url": "constraint"}
        assert "REGISTRY_EGRESS_ALLOW" in refused.body["details"][0]["help_message"]
        assert not Target.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_check_does_not_connect_to_internal_addresses(owner: TestKey) -> None:
    created = call(owner, "POST", "/targets", {**TARGET, "url": "http://127.0.0.1:9"})
    with override_settings(EGRESS=EgressPolicy()):
        checked = call(owner, "POST", f"/targets/{created.body['id']}/check")
    assert (checked.status, checked.body["ok"]) == (200, False)
    assert "REGISTRY_EGRESS_ALLOW" in checked.body["message"]


@pytest.mark.django_db(transaction=True)
def test_a_check_connects(owner: TestKey, peer: str) -> None:
    created = call(owner, "POST", "/targets", {**TARGET, "url": f"http://{peer}", "password": ""})
    checked = call(owner, "POST", f"/targets/{created.body['id']}/check")
    assert checked.body["ok"], checked.body


def test_a_target_with_rules_is_not_deleted(owner: TestKey, target_id: str, body: dict[str, Any]) -> None:
    rule = call(owner, "POST", "/rules", body).body
    refused = call(owner, "DELETE", f"/targets/{target_id}")
    assert (refused.status, refused.body["type"]) == (409, "precondition_failed")
    assert call(owner, "DELETE", f"/rules/{rule['id']}").status == 200
    assert call(owner, "DELETE", f"/targets/{target_id}").status == 200


def test_a_target_with_rules_of_a_namespace_in_the_recycle_bin_says_so(
    owner: TestKey, target_id: str, body: dict[str, Any]
) -> None:
    call(owner, "POST", "/rules", body)
    with override_settings(RECYCLE_BIN=timedelta(days=7)):
        assert Api(owner).delete(f"/namespaces/{body['namespace_id']}").status == 200
    refused = call(owner, "DELETE", f"/targets/{target_id}")
    assert refused.status == 409
    assert "1 rule uses this target whose namespaces are in the recycle bin" in refused.body["message"]


def test_a_rule_has_the_documented_fields_and_defaults(owner: TestKey, body: dict[str, Any]) -> None:
    created = call(owner, "POST", "/rules", body)
    assert created.status == 200
    assert {name: created.body[name] for name in body} == body
    rest = {name: value for name, value in created.body.items() if name not in body}
    del rest["id"], rest["created_at"], rest["updated_at"]
    assert rest == {
        "tags": "*",
        "destination": "{namespace}/{image}",
        "on_push": False,
        "cron": None,
        "enabled": True,
    }
    pulled = call(owner, "POST", "/rules", {**body, "direction": "pull"})
    assert pulled.body["destination"] == "{image}"


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({"direction": "both"}, "direction"),
        ({"repositories": []}, "repositories"),
        ({"repositories": ["Upper"]}, "repositories"),
        ({"repositories": ["a/../b"]}, "repositories"),
        ({"repositories": "app"}, "repositories"),
        ({"tags": "a b"}, "tags"),
        ({"destination": "{other}/x"}, "destination"),
        ({"destination": "UPPER"}, "destination"),
        ({"destination": "/x"}, "destination"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "* * * * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"direction": "pull", "on_push": True}, "on_push"),
        ({"on_push": "yes"}, "on_push"),
        ({"name": ""}, "name"),
        ({"target_id": "x"}, "target_id"),
    ],
)
def test_wrong_rules_are_refused(
    owner: TestKey, body: dict[str, Any], fields: dict[str, Any], argument: str
) -> None:
    assert list(details(call(owner, "POST", "/rules", {**body, **fields}))) == [argument]
    assert not Rule.objects.exists()


def test_a_rule_is_changed(owner: TestKey, body: dict[str, Any]) -> None:
    path = f"/rules/{call(owner, 'POST', '/rules', {**body, 'cron': '0 3 * * *'}).body['id']}"
    assert Rule.objects.get().next_run_at is not None
    changed = call(owner, "PATCH", path, {"cron": None, "repositories": ["a", "b*"], "tags": None})
    assert (changed.body["cron"], changed.body["repositories"]) == (None, ["a", "b*"])
    assert changed.body["tags"] == "*"
    assert Rule.objects.get().next_run_at is None
    assert details(call(owner, "PATCH", path, {"cron": "nonsense"})) == {"cron": "format"}
    assert call(owner, "GET", path).body == changed.body


def test_running_a_rule_twice_returns_the_execution_that_waits(owner: TestKey, body: dict[str, Any]) -> None:
    path = f"/rules/{call(owner, 'POST', '/rules', body).body['id']}"
    first = call(owner, "POST", f"{path}/run")
    assert first.status == 200
    assert first.body["status"] == "pending"
    assert set(first.body) == {
        *("id", "rule_id", "trigger", "status", "images_total", "images_done", "bytes_total", "bytes_done"),
        *("errors", "created_at", "started_at", "finished_at"),
    }
    assert call(owner, "POST", f"{path}/run").body["id"] == first.body["id"]
    listed = call(owner, "GET", f"/executions?rule_id={first.body['rule_id']}&status=pending").body
    assert (listed["total_count"], listed["executions"][0]["id"]) == (1, first.body["id"])

    # and it can be cancelled, once
    cancelled = call(owner, "POST", f"/executions/{first.body['id']}/cancel")
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled")
    assert cancelled.body["finished_at"]
    again = call(owner, "POST", f"/executions/{first.body['id']}/cancel")
    assert again.body == cancelled.body
    verbs = AuditEvent.objects.filter(target_kind__in=("rule", "execution")).order_by("pk")
    assert [event.verb for event in verbs] == ["rule.create", "rule.run", "rule.run", "execution.cancel"]


def test_disabling_or_deleting_a_rule_cancels_its_executions(owner: TestKey, body: dict[str, Any]) -> None:
    for method, sent in (("PATCH", {"enabled": False}), ("DELETE", None)):
        path = f"/rules/{call(owner, 'POST', '/rules', body).body['id']}"
        started = call(owner, "POST", f"{path}/run").body
        assert call(owner, method, path, sent).status == 200
        assert Execution.objects.get(pk=started["id"]).status == ExecutionStatus.CANCELLED


@pytest.mark.parametrize("kind", ["targets", "rules", "executions"])
def test_unknown_parameters_of_lists_are_errors(owner: TestKey, kind: str) -> None:
    assert call(owner, "GET", f"/{kind}").body == {kind: [], "total_count": 0}
    assert details(call(owner, "GET", f"/{kind}?nmae=x")) == {"nmae": "unknown"}
    assert call(owner, "GET", f"/{kind}?page=1&page_size=5&order_by=created_at_desc").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/targets"),
        *((method, "/targets/{id}") for method in ("GET", "PATCH", "DELETE")),
        ("POST", "/targets/{id}/check"),
        ("POST", "/rules"),
        *((method, "/rules/{id}") for method in ("GET", "PATCH", "DELETE")),
        ("POST", "/rules/{id}/run"),
        ("GET", "/executions/{id}"),
        ("POST", "/executions/{id}/cancel"),
    ],
)
def test_unknown_parameters_are_errors(owner: TestKey, method: str, path: str) -> None:
    response = call(owner, method, path.format(id=uuid4()) + "?dry_run=true")
    assert (response.status, details(response)) == (400, {"dry_run": "unknown"})


CALLERS: dict[str, Callable[[TestKey, Namespace], TestKey | None]] = {
    "anonymous": lambda *_: None,
    "stranger": lambda *_: make_key(FULL_ACCESS),
    "member without rights": lambda owner, _: make_key(organization=owner.organization, rights=False),
    "reader": lambda owner, _: make_key(READ_ONLY, organization=owner.organization),
    "pusher": lambda owner, _: make_key(PUSH, organization=owner.organization),
    "full access to the project": lambda owner, namespace: make_key(
        FULL_ACCESS, organization=owner.organization, project=namespace.project
    ),
    "full access elsewhere": lambda owner, _: make_key(
        FULL_ACCESS, organization=owner.organization, project=make_project(owner.organization)
    ),
    "full access": lambda owner, _: make_key(FULL_ACCESS, organization=owner.organization),
}
OUTSIDE = {"stranger", "member without rights", "full access elsewhere"}


def of_namespace(caller: str) -> int:
    if caller == "anonymous":
        return 401
    if caller in OUTSIDE:
        return 404
    return 403 if caller in ("reader", "pusher") else 200


def of_organization(caller: str) -> int:
    if caller == "anonymous":
        return 401
    return 200 if caller == "full access" else 404


@pytest.mark.parametrize("caller", CALLERS)
def test_rights(
    owner: TestKey, caller: str, body: dict[str, Any], target_id: str, namespace: Namespace
) -> None:
    # given a rule with an execution, in a namespace that the owner created
    rule = Rule.objects.get(pk=call(owner, "POST", "/rules", body).body["id"])
    execution = call(owner, "POST", f"/rules/{rule.pk}/run").body
    key = CALLERS[caller](owner, namespace)

    # then rules and executions need the administration of the namespace
    operations = [
        ("GET", f"/rules/{rule.pk}", None),
        ("PATCH", f"/rules/{rule.pk}", {}),
        ("POST", f"/rules/{rule.pk}/run", None),
        ("GET", f"/executions/{execution['id']}", None),
        ("POST", f"/executions/{execution['id']}/cancel", None),
        ("POST", "/rules", body),
        ("DELETE", f"/rules/{rule.pk}", None),
    ]
    for method, path, sent in operations:
        assert call(key, method, path, sent).status == of_namespace(caller), (method, path)
    # and targets full access to the organization
    for method, path, sent in (
        ("GET", f"/targets/{target_id}", None),
        ("PATCH", f"/targets/{target_id}", {"name": "other"}),
        ("DELETE", f"/targets/{target_id}", None),
    ):
        expected = 409 if (caller, method) == ("full access", "DELETE") else of_organization(caller)
        assert call(key, method, path, sent).status == expected, (method, path)
    if key is not None:
        may_create = caller in ("full access", "stranger")
        assert call(key, "POST", "/targets", TARGET).status == (200 if may_create else 403)


@pytest.mark.parametrize("caller", sorted(CALLERS.keys() - {"anonymous"}))
def test_lists_contain_exactly_what_the_caller_may_read(
    owner: TestKey, caller: str, body: dict[str, Any], namespace: Namespace
) -> None:
    rule_id = call(owner, "POST", "/rules", body).body["id"]
    call(owner, "POST", f"/rules/{rule_id}/run")
    key = CALLERS[caller](owner, namespace)
    sees = int(of_namespace(caller) == 200)
    assert call(key, "GET", "/rules").body["total_count"] == sees
    assert call(key, "GET", f"/executions?rule_id={rule_id}").body["total_count"] == sees
    assert call(key, "GET", "/targets").body["total_count"] == int(caller == "full access")


def test_invariant_9_the_ids_of_another_tenant_do_not_exist(owner: TestKey, body: dict[str, Any]) -> None:
    # given a stranger with a namespace and a target
    stranger = make_key()
    theirs = str(call(stranger, "POST", "/targets", TARGET).body["id"])
    namespace = make_namespace(stranger)

    # when the owner names them, or ids that do not exist, then the responses are the same
    for field, foreign in (("target_id", theirs), ("namespace_id", str(namespace.pk))):
        refused = [call(owner, "POST", "/rules", {**body, field: each}) for each in (foreign, UNKNOWN_ID)]
        assert [answer.status for answer in refused] == [404, 404]
        shown = [{**answer.body, "resource_id": "X"} for answer in refused]
        assert shown[0] == shown[1]
    assert not Rule.objects.exists()


def test_the_rules_of_a_deleted_namespace_are_gone(
    owner: TestKey, namespace: Namespace, target_id: str
) -> None:
    rule = make_rule(owner, namespace, Target.objects.get(pk=target_id))
    assert Api(owner).delete(f"/namespaces/{namespace.pk}").status == 200
    assert call(owner, "GET", f"/rules/{rule.pk}").status == 404
    assert rules.delete_without_namespace(limit=10) == 1
    assert call(owner, "DELETE", f"/targets/{target_id}").status == 200


def test_an_organization_is_deleted_with_its_targets(owner: TestKey, target_id: str) -> None:
    identity.delete_organization(actor=SYSTEM, organization=owner.organization)
    assert not Target.objects.filter(pk=target_id).exists()
    (event,) = AuditEvent.objects.filter(verb="organization.delete")
    assert event.detail["replication_targets"] == 1


def test_an_organization_whose_namespaces_are_deleted_can_be_deleted(
    owner: TestKey, namespace: Namespace, body: dict[str, Any]
) -> None:
    call(owner, "POST", "/rules", body)
    assert Api(owner).delete(f"/namespaces/{namespace.pk}").status == 200
    while deletion.run_batch(store=blob_store(), limit=100):
        pass
    deletion.run_batch(store=blob_store(), limit=100)
    rules.delete_without_namespace(limit=10)
    identity.delete_organization(actor=SYSTEM, organization=owner.organization)
    assert not Target.objects.exists()
