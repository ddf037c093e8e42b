"""Corrects times of scrubbing and reconciling in the future after the clock was set back (ADR 66)."""

from datetime import timedelta
from typing import Final

from django.db import transaction

from registry_control.common.clock_repair import correct
from registry_control.common.clock_watch import TOLERANCE
from registry_control.db.sql import interval_parameter, rows
from registry_control.integrity.models import BlobCheck, Job, UnknownObject
from registry_control.integrity.policy import LAST_RECHECK, LAST_RETRY

_BATCH: Final = 1000
_ONE_LEASE: Final = timedelta(minutes=2)
_VERIFIED: Final = """
UPDATE catalog_blob SET verified_at = statement_timestamp() WHERE id IN (
    SELECT id FROM catalog_blob
    WHERE state = 'live' AND COALESCE(verified_at, created_at) > statement_timestamp() + %s
    ORDER BY COALESCE(verified_at, created_at) DESC LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING id
"""


def repair() -> None:
    """Let nothing wait longer than it would if it had been written now."""
    correct(UnknownObject.objects.all(), "first_seen_at")
    correct(UnknownObject.objects.all(), "retry_at", longest=LAST_RETRY)
    correct(BlobCheck.objects.all(), "due_at", longest=LAST_RECHECK)
    for field in ("worked_at", "counted_at", "started_at", "finished_at"):
        correct(Job.objects.all(), field)
    correct(Job.objects.all(), "retry_at", longest=LAST_RETRY)
    correct(Job.objects.all(), "leased_until", longest=_ONE_LEASE)
    while _correct_verified() == _BATCH:
        pass


@transaction.atomic
def _correct_verified() -> int:
    """Content that was verified in the future would not be read again before that time."""
    return len(rows(_VERIFIED, [interval_parameter(TOLERANCE), _BATCH]))
