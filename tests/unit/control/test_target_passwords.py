"""Passwords of targets: encrypted with a key of the secret key, for one target."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.test import override_settings

from registry_control.common.secrets import derived_key
from registry_control.replication.credentials import Unreadable, seal, unseal

TARGET = uuid4()


@pytest.fixture(autouse=True)
def _forget_keys() -> Iterator[None]:
    yield
    derived_key.cache_clear()


@pytest.mark.parametrize("password", ["", "a password", "päss wörd", "x" * 4096])
def test_a_password_is_read_as_it_was_written(password: str) -> None:
    sealed = seal(password, target_id=TARGET)
    assert unseal(sealed, target_id=TARGET) == password
    assert password.encode() not in sealed or not password
    assert seal(password, target_id=TARGET) != sealed or not password


def test_a_password_of_another_target_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        unseal(seal("secret", target_id=TARGET), target_id=uuid4())


def test_a_changed_password_is_unreadable() -> None:
    sealed = bytearray(seal("secret", target_id=TARGET))
    for at in (0, 5, len(sealed) - 1):
        changed = bytes(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(Unreadable):
            unseal(changed, target_id=TARGET)
    with pytest.raises(Unreadable):
        unseal(b"\x01", target_id=TARGET)


def test_a_password_is_unreadable_with_another_secret_key() -> None:
    sealed = seal("secret", target_id=TARGET)
    derived_key.cache_clear()
    with (
        override_settings(SECRET_KEY="another secret key of more than 32 characters"),
        pytest.raises(Unreadable),
    ):
        unseal(sealed, target_id=TARGET)
