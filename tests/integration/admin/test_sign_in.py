"""Sign-ins with a password are rate-limited before the password is hashed, audited and logged."""

import logging
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
from django.contrib.auth.hashers import check_password, identify_hasher, make_password
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from registry_control import settings as product_settings
from registry_control.administration import sign_in
from registry_control.administration.models import SignInCounter
from registry_control.audit.models import AuditEvent
from registry_control.identity.models import User
from tests.factories import make_user, unique

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse battery"
HERE, NEIGHBOUR, ELSEWHERE = "203.0.113.7", "203.0.113.200", "198.51.100.9"


def try_password(
    username: str, password: str, address: str = HERE, to: str = "/admin/login/"
) -> HttpResponse:
    form = {"username": username, "password": password}
    response = Client(REMOTE_ADDR=address).post(to, form)
    assert isinstance(response, HttpResponse)
    return response


def fail(username: str, times: int, address: str = HERE) -> list[int]:
    return [try_password(username, "wrong", address).status_code for _ in range(times)]


def verbs(username: str) -> list[str]:
    found = AuditEvent.objects.filter(actor_name=username, verb__startswith="sign_in").order_by("pk")
    return list(found.values_list("verb", flat=True))


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "http:///evil.example", ""]
)
def test_a_sign_in_with_a_foreign_next_redirects_to_the_index(administrator: User, target: str) -> None:
    for to, form in ((f"/admin/login/?next={target}", {}), ("/admin/login/", {"next": target})):
        answer = Client().post(to, {"username": administrator.username, "password": PASSWORD, **form})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_a_sign_in_redirects_to_a_page_of_the_administration(administrator: User) -> None:
    answer = try_password(administrator.username, PASSWORD, to="/admin/login/?next=/admin/catalog/image/")
    assert answer.headers["Location"] == "/admin/catalog/image/"


def test_after_ten_failures_an_address_is_blocked_for_every_user(administrator: User) -> None:
    assert fail(unique("nobody"), 5) + fail(administrator.username, 5) == [200] * 10
    refused = try_password(unique("another"), "wrong")
    assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert 1 <= int(refused.headers["Retry-After"]) <= sign_in.WINDOW
    assert b"Try again in" in refused.content
    assert try_password(administrator.username, PASSWORD).status_code == 429


def test_a_user_is_blocked_for_one_network_and_not_for_others(administrator: User) -> None:
    # given guesses of the administrator's password from one network
    assert fail(administrator.username, 10) == [200] * 10

    # then the network is blocked for this user
    assert try_password(administrator.username, PASSWORD, NEIGHBOUR).status_code == 429
    assert fail(unique("nobody"), 1, NEIGHBOUR) == [200]

    # and the administrator signs in from elsewhere
    assert try_password(administrator.username, PASSWORD, ELSEWHERE).status_code == 302


def test_an_ipv6_network_has_64_bits(administrator: User) -> None:
    for number in range(10):
        assert fail(administrator.username, 1, f"2001:db8:0:1::{number}") == [200]
    assert fail(administrator.username, 1, "2001:db8:0:1:ffff::1") == [429]
    assert try_password(administrator.username, PASSWORD, "2001:db8:0:2::1").status_code == 302


def test_one_ipv6_network_counts_as_one_address_for_every_user(administrator: User) -> None:
    # given guesses with rotating names from rotating addresses of one /64
    for number in range(10):
        assert fail(unique("nobody"), 1, f"2001:db8:0:1:{number}::{number}") == [200]

    # then the /64 is blocked for every name, and the next /64 is not
    assert fail(unique("nobody"), 1, "2001:db8:0:1:ffff::1") == [429]
    assert try_password(administrator.username, PASSWORD, "2001:db8:0:1::ffff").status_code == 429
    assert fail(unique("nobody"), 1, "2001:db8:0:2::1") == [200]


def test_a_success_neither_counts_nor_resets_the_counter(administrator: User) -> None:
    assert fail(administrator.username, 9) == [200] * 9
    for _ in range(3):
        assert try_password(administrator.username, PASSWORD).status_code == 302
    assert fail(administrator.username, 2) == [200, 429]


def test_failures_count_for_five_minutes(administrator: User) -> None:
    fail(administrator.username, 11)
    for counter in SignInCounter.objects.all():
        counter.failures = [failure - sign_in.WINDOW for failure in counter.failures]
        counter.save()
    assert try_password(administrator.username, PASSWORD).status_code == 302


def test_concurrent_guesses_do_not_exceed_the_limit(administrator: User) -> None:
    def guess(number: int) -> int:
        try:
            return try_password(administrator.username, f"guess {number}", f"203.0.113.{number}").status_code
        finally:
            connection.close()

    # when 40 addresses of one network guess concurrently
    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(guess, range(40)))

    # then at most ten of them are checked; those that find all hashing slots in use are not counted
    assert set(statuses) == {200, 429}
    assert statuses.count(200) <= sign_in.LIMIT
    checked = AuditEvent.objects.filter(detail__reason="wrong user name or password")
    assert checked.count() == statuses.count(200)


def test_sign_ins_are_audited_and_logged_without_secrets(
    administrator: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    try_password(administrator.username, "a wrong secret")
    try_password(administrator.username, PASSWORD)
    try_password("my-password-in-the-wrong-field", "x")
    fail(administrator.username, 12)

    # every checked password has its event, and all refusals beyond the limit have one in common
    assert verbs(administrator.username) == [
        "sign_in.refused",
        "sign_in.succeeded",
        *["sign_in.refused"] * 9,
    ]
    event = AuditEvent.objects.get(verb="sign_in.succeeded")
    assert (event.target_id, event.detail) == (str(administrator.pk), {"address": HERE})
    assert event.organization_id == administrator.organization_id
    reasons = AuditEvent.objects.filter(verb="sign_in.refused").values_list("detail__reason", flat=True)
    assert set(reasons) == {"wrong user name or password", "too many failures"}

    # and each attempt has a line in the log
    assert caplog.text.count("sign-in ") == 15
    recorded = (
        caplog.text + str(list(AuditEvent.objects.values())) + str(list(SignInCounter.objects.values()))
    )
    assert "a wrong secret" not in recorded
    assert "in-the-wrong-field" not in recorded


def test_expired_counters_are_deleted(administrator: User) -> None:
    for number in range(3):
        fail(unique("nobody"), 1, f"198.51.100.{number}")
    SignInCounter.objects.update(updated_at=0)
    fail(unique("nobody"), 1)
    assert SignInCounter.objects.count() == 2


def test_a_sign_in_without_staff_rights_counts_as_a_failure() -> None:
    user = make_user(password=PASSWORD)
    assert try_password(user.username, PASSWORD).status_code == 200
    assert verbs(user.username) == ["sign_in.refused"]


def test_passwords_are_hashed_with_argon2_and_old_hashes_are_upgraded(settings: Settings) -> None:
    # given the product's own hashers, which other tests replace by a fast one
    settings.PASSWORD_HASHERS = product_settings.PASSWORD_HASHERS
    administrator = make_user(password=PASSWORD, is_administrator=True)
    assert identify_hasher(administrator.password).algorithm == "argon2"

    # when a password that an earlier release hashed is used, then it is hashed again
    User.objects.filter(pk=administrator.pk).update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    assert try_password(administrator.username, PASSWORD).status_code == 302
    administrator.refresh_from_db()
    assert administrator.password.startswith("argon2$")
    assert check_password(PASSWORD, administrator.password)
