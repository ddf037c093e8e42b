"""Staff who may only view: no page offers them a change, and nothing that they send changes anything."""

from html.parser import HTMLParser

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from registry_control.administration.confirmation import CONFIRMED
from registry_control.audit.models import AuditEvent
from registry_control.identity.models import User
from tests.factories import Pushed, make_user
from tests.integration.admin.forms import url
from tests.integration.admin.world import MODELS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.only_on("sqlite")]  # permissions, no SQL

# Connects to a target without changing anything; who may read a target may do it in the API, too.
_CHECK = {"action check_connection", "button index"}


@pytest.fixture
def viewers() -> Client:
    """The session of a user with all permissions to view and no other."""
    user = make_user(password="correct horse battery")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


class _Offers(HTMLParser):
    """What a page offers besides signing out and searching: forms with a URL, actions and named buttons."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._select = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and given.get("method", "").lower() == "post" and given.get("action"):
            self.found.add(f"form {given['action']}")
        elif tag == "select":
            self._select = given.get("name", "")
        elif tag == "option" and self._select == "action" and given.get("value"):
            self.found.add(f"action {given['value']}")
        elif tag in ("input", "button") and given.get("type") == "submit" and given.get("name"):
            self.found.add(f"button {given['name']}")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_viewers_are_offered_no_change_and_cannot_make_one(
    viewers: Client, world: Pushed, model: type[Model]
) -> None:
    row = model._default_manager.first()
    assert row is not None

    # when they look at the pages, then nothing on them leads to a change
    for page in (url(model, "changelist"), url(model, "change", row.pk)):
        response = viewers.get(page)
        assert response.status_code == 200
        assert _Offers(response.content).found - _CHECK == {f"form {reverse('admin:logout')}"}

    # when they send what the pages of administrators send, then nothing has changed
    rows = model._default_manager.filter(pk=row.pk).values()
    before, events = rows.get(), AuditEvent.objects.exclude(verb="target.check").count()
    pages = admin.site.get_model_admin(model)
    sent = {"post": "yes", CONFIRMED: "yes", "_selected_action": [str(row.pk)]}
    for action in ("delete_selected", *(pages.actions or ())):
        assert viewers.post(url(model, "changelist"), {**sent, "action": action}).status_code in (
            200,
            302,
            403,
        )
    for pattern in pages.get_urls():
        if pattern.name:
            path = reverse(f"admin:{pattern.name}", args=[row.pk] * len(pattern.pattern.converters))
            assert viewers.post(path, sent).status_code in (200, 302, 403, 404, 405)
    assert rows.get() == before
    assert AuditEvent.objects.exclude(verb="target.check").count() == events
