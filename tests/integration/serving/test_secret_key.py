"""The record of the secret key: the first node that starts writes it, one with another key is refused."""

import pytest

from registry_control.serving import roles, secret_key
from registry_control.serving.models import Installation
from registry_control.serving.secret_key import check_secret_key
from registry_control.settings.environment import ConfigurationError

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_role_that_starts_on_a_migrated_database_records_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a database that `manage.py migrate` has prepared, so without a recorded key
    assert not Installation.objects.exists()
    monkeypatch.setattr(roles, "_RUN", {"data": lambda: 0})

    # when a role is started, and then one with another key
    assert roles.run("data") == 0
    monkeypatch.setattr(secret_key, "_hash", lambda: "another")

    # then the second is refused
    assert roles.run("data") == 1
    with pytest.raises(ConfigurationError, match=r"if this node's key is the right one, it loses nothing"):
        check_secret_key()


def test_a_database_that_cannot_be_used_does_not_prevent_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installation._meta, "db_table", "missing")
    check_secret_key()
