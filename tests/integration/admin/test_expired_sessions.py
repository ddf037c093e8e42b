"""Expired sessions of the administration are deleted, and no others."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session

from registry_control.administration.tasks import delete_batch
from registry_control.common.clock import now

pytestmark = pytest.mark.django_db


def test_expired_sessions_are_deleted_in_batches() -> None:
    # given more expired sessions than a batch, and one that is valid
    for number in range(4):
        Session.objects.create(session_key=f"old{number}", expire_date=now() - timedelta(minutes=number + 1))
    Session.objects.create(session_key="valid", expire_date=now() + timedelta(minutes=1))

    # when two batches are deleted, then only the valid one is left
    assert delete_batch(limit=3) == 3
    assert Session.objects.count() == 2
    assert delete_batch(limit=3) == 1
    assert [session.session_key for session in Session.objects.all()] == ["valid"]
