"""Commits with synchronous_commit off: only the transactions that request it; the next one is synchronous."""

import pytest
from django.db import DEFAULT_DB_ALIAS, connections

from registry_control.db.durability import unsynced_transaction
from registry_control.db.sqlite.base import DatabaseWrapper
from registry_control.identity.models import Organization
from tests.factories import make_organization


def _synced() -> bool:
    """Whether a commit now is synchronous (tests/unit/control/test_wal_sync.py measures its fsync)."""
    here = connections[DEFAULT_DB_ALIAS]
    if isinstance(here, DatabaseWrapper):
        return here.sync_on_commit
    with here.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        (answer,) = cursor.fetchone()
    return bool(answer == "on")


@pytest.mark.django_db(transaction=True)
def test_only_the_requesting_transaction_is_asynchronous() -> None:
    assert _synced()
    with unsynced_transaction():
        assert not _synced()
    assert _synced()


@pytest.mark.django_db(transaction=True)
def test_a_failed_transaction_writes_nothing_and_later_commits_are_synchronous() -> None:
    def fail() -> None:
        with unsynced_transaction():
            make_organization(name="never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _synced()
    assert not Organization.objects.filter(name="never").exists()


@pytest.mark.django_db
def test_inside_another_transaction_the_outer_one_decides() -> None:
    with unsynced_transaction():
        assert _synced()
