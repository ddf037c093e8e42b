"""The administration pages of retention: the service stores what they edit, a preview shows its effect."""

import json

import pytest
from django.test import Client
from django.urls import reverse

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Tag
from registry_control.gc.models import RetentionRun
from registry_control.gc.retention import NOTHING
from registry_control.gc.selectors.retention import policy_of
from registry_control.identity.models import User
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, push_image
from tests.integration.gc.retaining import new_image, push, set_rules

pytestmark = pytest.mark.django_db

RULES = json.dumps([{"images": "*", "tags": "pr-*", "keep_days_since_tagged": 1}])


def page(name: str, *arguments: object) -> str:
    return reverse(f"admin:namespaces_retention_{name}", args=arguments)


def form(**fields: str) -> dict[str, str]:
    whole = {"rules": "[]", "untagged_days": "", "protected_tags": "", "protected_except": ""}
    return {**whole, **fields}


def test_a_retention_is_changed_and_audited_by_the_service(
    pages: Client, namespace: Namespace, administrator: User
) -> None:
    # given the list, which has the empty retention of each namespace, and no way to add another
    shown = pages.get(page("changelist")).content.decode()
    assert namespace.name in shown
    assert page("add") not in shown
    assert pages.get(page("add")).status_code == 403

    # when rules are stored, then the worker will enforce them
    first = form(enabled="on", rules=RULES, protected_tags="v*\r\nrelease")
    assert pages.post(page("change", namespace.pk), first).status_code == 302
    policy = policy_of(namespace.pk)
    assert (policy.enabled, policy.rules[0].tags) == (True, "pr-*")
    assert policy.protected_tags == ("v*", "release")
    assert RetentionRun.objects.filter(pk=namespace.pk).exists()

    # when the page is opened and saved with changes, then these are stored
    shown = pages.get(page("change", namespace.pk)).content.decode()
    assert "v*\nrelease</textarea>" in shown
    changed = form(rules=RULES, untagged_days="30", protected_tags="v*", protected_except="*-rc")
    assert pages.post(page("change", namespace.pk), changed).status_code == 302
    policy = policy_of(namespace.pk)
    assert (policy.enabled, policy.untagged_days, policy.protected_except) == (False, 30, ("*-rc",))
    assert not RetentionRun.objects.filter(pk=namespace.pk).exists()

    # and nothing is stored where nothing was edited
    assert pages.post(page("change", namespace.pk), changed).status_code == 302
    events = AuditEvent.objects.filter(target_id=str(namespace.pk), actor_id=str(administrator.pk))
    assert [event.verb for event in events] == ["namespace.retention"] * 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rules", '[{"images": "*"}]', "rules[0].tags: write a glob"),
        ("rules", "nonsense", "Enter a valid JSON"),
        ("untagged_days", "0", "untagged_days: write a number from 1"),
        ("protected_tags", "v* [ab]", "protected_tags[1]: write a glob"),
    ],
)
def test_malformed_fields_are_refused_with_their_place(
    pages: Client, namespace: Namespace, field: str, value: str, message: str
) -> None:
    response = pages.post(page("change", namespace.pk), form(**{field: value}))
    assert response.status_code == 200
    assert message in response.content.decode()
    assert policy_of(namespace.pk) == NOTHING


def test_the_preview_shows_what_the_rules_remove(pages: Client, owner: TestKey, namespace: Namespace) -> None:
    image_id = new_image(owner, namespace)
    push(owner, image_id, "pr-1", days=3)
    push(owner, image_id, "other", days=3)
    set_rules(namespace, {"tags": "pr-*", "keep_days_since_tagged": 1}, enabled=False)
    shown = pages.get(page("preview", namespace.pk)).content.decode()
    assert "The rules are disabled" in shown
    assert "remove 1 tag, and 0 untagged manifests" in shown
    assert "<td>pr-1</td>" in shown
    assert "other" not in shown


def test_a_protected_tag_is_not_deleted_and_the_page_says_why(
    pages: Client, owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace, tags=("v1",))
    set_rules(namespace, protected_tags=["v*"])
    for url, chosen in (
        (reverse("admin:catalog_tag_delete", args=[pushed.tag("v1").pk]), {"post": "yes"}),
        (
            reverse("admin:catalog_tag_changelist"),
            {"action": "delete_selected", "_selected_action": [str(pushed.tag("v1").pk)], "post": "yes"},
        ),
        (reverse("admin:catalog_image_delete", args=[pushed.image_id]), {"post": "yes"}),
        (reverse("admin:namespaces_namespace_delete", args=[namespace.pk]), {"post": "yes"}),
    ):
        response = pages.post(url, chosen, follow=True)
        assert "is protected by the rule &quot;v*&quot;" in response.content.decode(), url
    assert Tag.objects.get(image=pushed.image_id).status == "ready"
    namespace.refresh_from_db()
    assert namespace.status == "ready"
