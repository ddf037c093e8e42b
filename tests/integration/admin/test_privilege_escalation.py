"""Staff with permissions on users cannot escalate privileges."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from registry_control.audit.models import AuditEvent
from registry_control.identity.models import User
from tests.factories import make_user, unique
from tests.integration.admin.forms import fields, url

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = {"password1": "another horse battery", "password2": "another horse battery"}
SET_ALL = {"is_staff": "on", "is_superuser": "on"}


@pytest.fixture
def staff() -> User:
    """Staff with all permissions on users and groups, but no superuser."""
    user = make_user(password="correct horse battery")
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="identity"))
    return user


@pytest.fixture
def staffs(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def permissions() -> list[str]:
    return [str(pk) for pk in Permission.objects.values_list("pk", flat=True)]


def rights(user: User) -> tuple[bool, bool, int]:
    user.refresh_from_db()
    return user.is_staff, user.is_superuser, user.user_permissions.count()


@pytest.mark.parametrize("opened", [True, False], ids=["from the page", "by a script"])
@pytest.mark.parametrize("whose", ["own", "another's"])
def test_staff_cannot_grant_rights_that_they_do_not_have(
    staffs: Client, staff: User, whose: str, opened: bool
) -> None:
    # given a page that shows rights read-only
    user = staff if whose == "own" else make_user(password="correct horse battery")
    before = rights(user)
    page = url(User, "change", user.pk)
    form: dict[str, Any] = fields(staffs.get(page).content)
    assert not {"is_staff", "is_superuser", "user_permissions"} & form.keys()
    if not opened:
        form = {"username": user.username, "is_active": "on"}

    # when they are submitted all the same, with or without the initial values
    form |= SET_ALL | {"user_permissions": permissions(), "first_name": "Ada"}
    form |= {"initial-is_superuser": "False"} if opened else {}
    assert staffs.post(page, form).status_code == 302

    # then only the other fields are saved
    assert rights(user) == before
    assert user.first_name == "Ada"


def test_staff_does_not_revoke_rights_by_saving(staffs: Client, staff: User) -> None:
    before = rights(staff)
    form = {"username": staff.username, "is_active": "on", "first_name": "Ada"}
    assert staffs.post(url(User, "change", staff.pk), form).status_code == 302
    assert rights(staff) == before


def test_staff_adds_users_without_rights(staffs: Client) -> None:
    page = url(User, "add")
    assert "is_staff" not in fields(staffs.get(page).content)
    name = unique("person")
    form: dict[str, Any] = {"username": name, "usable_password": "true", **PASSWORD, **SET_ALL}
    assert staffs.post(page, form).status_code == 302
    assert rights(User.objects.get(username=name)) == (False, False, 0)

    # nor with Django's `save as new`
    name = unique("person")
    form |= {"username": name, "_saveasnew": "1", "user_permissions": permissions()}
    staffs.post(url(User, "change", User.objects.earliest("date_joined").pk), form)
    assert not User.objects.filter(username=name, is_staff=True).exists()


def test_staff_may_view_superusers_and_not_change_them(staffs: Client, administrator: User) -> None:
    page = url(User, "change", administrator.pk)
    shown = staffs.get(page)
    assert shown.status_code == 200
    assert administrator.password not in shown.content.decode()
    form = {"username": "mine", "email": "mine@example.com", "is_active": ""}
    assert staffs.post(page, form).status_code == 403
    assert staffs.get(f"/admin/identity/user/{administrator.pk}/password/").status_code == 403
    assert staffs.post(f"/admin/identity/user/{administrator.pk}/password/", PASSWORD).status_code == 403
    now = User.objects.get(pk=administrator.pk)
    assert (now.username, now.email, now.password) == (administrator.username, "", administrator.password)
    assert now.is_active


def test_staff_sets_its_own_password_and_not_that_of_other_staff(staffs: Client, staff: User) -> None:
    # given other staff, with fewer rights at this moment
    other = make_user(password="correct horse battery")
    other.is_staff = True
    other.save()
    page = f"/admin/identity/user/{other.pk}/password/"

    # then its password can be neither set nor disabled
    assert staffs.get(page).status_code == 403
    assert staffs.post(page, PASSWORD).status_code == 403
    disable = {"usable_password": "false", "unset-password": "1"}
    assert staffs.post(page, disable).status_code == 403
    assert User.objects.get(pk=other.pk).password == other.password
    assert not AuditEvent.objects.filter(verb="user.password").exists()

    # and the own one can be set
    assert staffs.post(f"/admin/identity/user/{staff.pk}/password/", PASSWORD).status_code == 302
    staff.refresh_from_db()
    assert staff.check_password("another horse battery")


def test_a_superuser_sets_the_password_of_staff(pages: Client, staff: User) -> None:
    assert pages.post(f"/admin/identity/user/{staff.pk}/password/", PASSWORD).status_code == 302
    staff.refresh_from_db()
    assert staff.check_password("another horse battery")


@pytest.mark.parametrize("way", ["page", "action"])
def test_staff_cannot_delete_superusers(staffs: Client, administrator: User, way: str) -> None:
    # given a superuser among other users
    other = make_user(administrator.organization)
    page, form = url(User, "delete", administrator.pk), {"post": ["yes"]}
    if way == "action":
        page = url(User, "changelist")
        chosen = [str(other.pk), str(administrator.pk)]
        form |= {"action": ["delete_selected"], "_selected_action": chosen}

    # when all are deleted with the action, then none is deleted
    assert staffs.post(page, form).status_code == 403
    assert User.objects.filter(pk__in=[other.pk, administrator.pk]).count() == 2
    assert not AuditEvent.objects.filter(verb__endswith=".delete").exists()


def test_staff_may_edit_and_delete_all_other_users(staffs: Client) -> None:
    user = make_user(password="correct horse battery")
    assert staffs.post(f"/admin/identity/user/{user.pk}/password/", PASSWORD).status_code == 302
    user.refresh_from_db()
    assert user.check_password("another horse battery")
    assert staffs.post(url(User, "delete", user.pk), {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=user.pk).exists()


def test_a_superuser_creates_administrators(pages: Client) -> None:
    name = unique("person")
    page = url(User, "add")
    assert "usable_password" in fields(pages.get(page).content)
    form: dict[str, Any] = {"username": name, "usable_password": "true", **PASSWORD, "is_staff": "on"}
    assert pages.post(page, form).status_code == 302
    user = User.objects.get(username=name)
    assert rights(user) == (True, False, 0)
    page = url(User, "change", user.pk)
    form = fields(pages.get(page).content) | SET_ALL | {"user_permissions": permissions()[:2]}
    assert pages.post(page, form).status_code == 302
    assert rights(user) == (True, True, 2)
    form = fields(pages.get(page).content)
    form.pop("is_superuser")
    assert pages.post(page, form).status_code == 302
    assert rights(user) == (True, False, 2)
