"""Administrators change their own password: limited like a sign-in, and audited."""

import threading
from http import HTTPStatus
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.db.models.signals import post_save
from django.test import Client

from registry_control.administration import sign_in
from registry_control.audit.models import AuditEvent
from registry_control.identity.models import User

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/admin/password_change/"
OLD, NEW = "correct horse battery", "another horse battery"


def change(pages: Client, old: str = OLD, new: str = NEW, repeated: str = NEW) -> Any:
    return pages.post(PAGE, {"old_password": old, "new_password1": new, "new_password2": repeated})


def audited(user: User) -> list[str]:
    found = AuditEvent.objects.filter(actor_id=str(user.pk), target_id=str(user.pk)).order_by("pk")
    return list(found.values_list("verb", flat=True))


def test_changing_the_own_password_is_audited(pages: Client, administrator: User) -> None:
    assert pages.get(PAGE).status_code == 200
    answer = change(pages)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/password_change/done/")
    administrator.refresh_from_db()
    assert administrator.check_password(NEW)
    assert audited(administrator) == ["user.password"]
    event = AuditEvent.objects.get(verb="user.password")
    assert event.organization_id == administrator.organization_id

    # and this session remains signed in
    assert pages.get("/admin/").status_code == 200


def test_wrong_old_passwords_are_limited_and_audited(pages: Client, administrator: User) -> None:
    statuses = [change(pages, old=f"guess {number}").status_code for number in range(10)]
    assert statuses == [200] * 10

    # then even the right one is not checked, here and on the sign-in page
    refused = change(pages)
    assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert 1 <= int(refused.headers["Retry-After"]) <= sign_in.WINDOW
    form = {"username": administrator.username, "password": OLD}
    assert Client().post("/admin/login/", form).status_code == 429
    administrator.refresh_from_db()
    assert administrator.check_password(OLD)
    # and all refusals beyond the limit have one audit event in common
    assert audited(administrator) == ["sign_in.refused"] * 11


def test_the_right_old_password_does_not_count(pages: Client, administrator: User) -> None:
    for _ in range(11):
        assert change(pages, repeated="a typing error").status_code == 200
    assert change(pages).status_code == 302
    assert audited(administrator) == ["user.password"]


def test_the_own_password_waits_for_a_turn_to_hash(pages: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(sign_in, "_admitted", turns)
    with turns:
        answer = change(pages)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert change(pages).status_code == 302


def test_a_new_own_password_writes_no_other_column(pages: Client, administrator: User) -> None:
    written: list[frozenset[str] | None] = []

    def note(update_fields: frozenset[str] | None, **_: Any) -> None:
        written.append(update_fields)

    post_save.connect(note, sender=User)
    try:
        assert change(pages).status_code == 302
    finally:
        post_save.disconnect(note, sender=User)
    assert written == [frozenset({"password"})]
    administrator.refresh_from_db()
    assert administrator.check_password(NEW)


def test_an_old_password_that_was_just_replaced_is_wrong(
    pages: Client, administrator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a superuser who replaces the password after the session was checked
    attempt_of = sign_in.attempt_of

    def replaced(*arguments: Any) -> sign_in.Attempt:
        User.objects.filter(pk=administrator.pk).update(password=make_password("a superuser's choice"))
        return attempt_of(*arguments)

    monkeypatch.setattr(sign_in, "attempt_of", replaced)
    assert change(pages).status_code == 200
    administrator.refresh_from_db()
    assert administrator.check_password("a superuser's choice")
