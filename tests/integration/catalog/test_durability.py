"""Commits that do not wait for the disk: only those that say so, and the next one waits again."""

import pytest
from django.db import DEFAULT_DB_ALIAS, connections

from registry_control.db.durability import unsynced_transaction
from registry_control.db.sqlite.base import DatabaseWrapper
from registry_control.identity.models import Organization
from tests.factories import make_organization


def _synced() -> bool:
    """Whether a commit made now waits for the disk (tests/unit/control/test_wal_sync.py sees it wait)."""
    here = connections[DEFAULT_DB_ALIAS]
    if isinstance(here, DatabaseWrapper):
        return here.sync_on_commit
    with here.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        (answer,) = cursor.fetchone()
    return bool(answer == "on")


@pytest.mark.django_db(transaction=True)
def test_only_the_transaction_itself_does_not_wait() -> None:
    assert _synced()
    with unsynced_transaction():
        assert not _synced()
    assert _synced()


@pytest.mark.django_db(transaction=True)
def test_after_a_failure_commits_wait_again_and_nothing_was_written() -> None:
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
