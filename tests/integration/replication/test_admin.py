"""The administration's pages of targets, rules and executions."""

import pytest
from django.contrib.messages import get_messages
from django.test import Client

from registry_control.audit.models import AuditEvent
from registry_control.identity.models import User
from registry_control.namespaces.models import Namespace
from registry_control.replication import credentials
from registry_control.replication.models import Execution, ExecutionStatus, Rule, Target
from registry_control.replication.services import rules
from tests.factories import TestKey, make_user
from tests.integration.admin.forms import url
from tests.integration.replication.scene import make_rule, make_target

pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://registry.example.com"


@pytest.fixture
def administrator() -> User:
    return make_user(is_administrator=True)


@pytest.fixture
def pages(administrator: User) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


def password_of(target: Target) -> str:
    target.refresh_from_db()
    return credentials.unseal(bytes(target.sealed_password), target_id=target.pk)


def test_a_password_is_written_and_never_shown(pages: Client, owner: TestKey) -> None:
    # given a target that was created in the form
    form = {"organization": owner.organization.pk, "name": "mirror", "url": URL, "username": "robot"}
    assert pages.post(url(Target, "add"), {**form, "password": "pass-phrase"}).status_code == 302
    target = Target.objects.get()
    assert password_of(target) == "pass-phrase"

    # when its page is opened and saved without a password, then the password is not shown, and stays
    page = url(Target, "change", target.pk)
    assert "pass-phrase" not in pages.get(page).content.decode()
    assert (
        pages.post(page, {"name": "other", "url": URL, "username": "robot", "password": ""}).status_code
        == 302
    )
    assert (password_of(target), target.name) == ("pass-phrase", "other")
    assert pages.post(page, {"name": "other", "url": URL, "password": "new"}).status_code == 302
    assert password_of(target) == "new"

    # and each change is audited without it
    events = AuditEvent.objects.filter(target_kind="target").order_by("pk")
    assert [event.verb for event in events] == ["target.create", "target.update", "target.update"]
    assert all("pass-phrase" not in str(event.detail) for event in events)


def test_internal_and_malformed_addresses_are_refused(pages: Client, owner: TestKey) -> None:
    for wrong in ("http://10.0.0.1", "registry.example.com"):
        form = {"organization": owner.organization.pk, "name": "mirror", "url": wrong}
        assert pages.post(url(Target, "add"), form).status_code == 200
    assert not Target.objects.exists()


def test_a_target_is_checked(pages: Client, owner: TestKey, peer: str) -> None:
    targets = [make_target(owner, f"http://{peer}"), make_target(owner, "http://127.0.0.1:9")]
    chosen = {"action": "check_connection", "_selected_action": [str(target.pk) for target in targets]}
    response = pages.post(url(Target, "changelist"), chosen)
    shown = sorted(str(message) for message in get_messages(response.wsgi_request))
    assert len(shown) == 2
    assert any("accepts the credentials" in message for message in shown)
    assert any("cannot be reached" in message for message in shown)


def test_a_target_with_rules_is_not_deleted(pages: Client, owner: TestKey, namespace: Namespace) -> None:
    target = make_target(owner, URL)
    rule = make_rule(owner, namespace, target)
    pages.post(url(Target, "delete", target.pk), {"post": "yes"})
    assert Target.objects.exists()
    assert pages.post(url(Rule, "delete", rule.pk), {"post": "yes"}).status_code == 302
    assert pages.post(url(Target, "delete", target.pk), {"post": "yes"}).status_code == 302
    assert not Target.objects.exists()


def test_a_rule_is_created_changed_run_and_cancelled(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    # given a rule that was created in the form
    target = make_target(owner, URL)
    form = {
        "direction": "push",
        "namespace": namespace.pk,
        "name": "everything",
        "target": target.pk,
        "repositories": "web/*\napi",
        "tags": "*",
        "destination": "",
        "cron": "",
        "enabled": "on",
    }
    assert pages.post(url(Rule, "add"), {**form, "cron": "nonsense"}).status_code == 200
    assert pages.post(url(Rule, "add"), form).status_code == 302
    rule = Rule.objects.get()
    assert (rule.repositories, rule.destination) == (["web/*", "api"], "{namespace}/{image}")

    # when it is changed and run
    changed = {**form, "destination": rule.destination, "repositories": "api", "cron": "0 3 * * *"}
    assert pages.post(url(Rule, "change", rule.pk), changed).status_code == 302
    rule.refresh_from_db()
    assert (rule.repositories, rule.cron, rule.next_run_at is not None) == (["api"], "0 3 * * *", True)
    chosen = {"action": "run_now", "_selected_action": [str(rule.pk)]}
    assert pages.post(url(Rule, "changelist"), chosen).status_code == 302
    execution = Execution.objects.get()

    # then the execution can be cancelled
    assert "everything" in pages.get(url(Execution, "changelist")).content.decode()
    chosen = {"action": "cancel", "_selected_action": [str(execution.pk)]}
    assert pages.post(url(Execution, "changelist"), chosen).status_code == 302
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.CANCELLED
    verbs = AuditEvent.objects.filter(target_kind__in=("rule", "execution")).order_by("pk")
    assert [event.verb for event in verbs] == ["rule.create", "rule.update", "rule.run", "execution.cancel"]


def test_disabling_cancels_and_errors_are_shown(pages: Client, owner: TestKey, namespace: Namespace) -> None:
    rule = make_rule(owner, namespace, make_target(owner, URL))
    execution = rules.run(principal=owner.principal, rule_id=rule.pk)
    chosen = {"action": "disable", "_selected_action": [str(rule.pk)]}
    assert pages.post(url(Rule, "changelist"), chosen).status_code == 302
    page = pages.get(url(Execution, "change", execution.pk)).content.decode()
    assert "the rule was disabled" in page
