"""Corrects times that lie in the future after the clock has jumped backward (ADR 66).

They were written while the clock was ahead. Without a correction, a blob that was released a second ago could
wait for years. Each statement is a transaction of its own; an interrupted repair starts again.
"""

from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import F

from registry_control.catalog import references
from registry_control.catalog.models import TagHistory, UploadSession
from registry_control.catalog.selectors.resolve import ANSWER_TIME
from registry_control.common import clock_watch
from registry_control.common.clock_repair import correct
from registry_control.common.clock_watch import TOLERANCE
from registry_control.common.models import ClockWatch
from registry_control.common.signals import clock_set_back
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import Parameter, interval_parameter, rows
from registry_control.gc.policy import LAST_RETRY
from registry_control.namespaces.models import RecycleBinEntry

_BATCH: Final = 1000
_LONGEST_LEASE: Final = timedelta(days=1)  # of replication, however short `REGISTRY_LEASE` is

# SKIP LOCKED: a transaction that holds a row writes the right time.
_SINCE: Final = """
UPDATE catalog_blobreview SET unreferenced_since = statement_timestamp() WHERE blob_id IN (
    SELECT blob_id FROM catalog_blobreview
    WHERE retry_at IS NULL AND unreferenced_since > statement_timestamp() + %s
    ORDER BY unreferenced_since DESC LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING blob_id
"""
_RETRY: Final = """
UPDATE catalog_blobreview SET retry_at = statement_timestamp() WHERE blob_id IN (
    SELECT blob_id FROM catalog_blobreview
    WHERE retry_at IS NOT NULL AND retry_at > statement_timestamp() + %s
    ORDER BY retry_at DESC LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING blob_id
"""


def repair_if_needed() -> None:
    """After a jump backward, let nothing wait longer than it would if it had been written now."""
    if not clock_watch.check().needs_repair:
        return
    longest = max(clock_watch.longest_lease(), _LONGEST_LEASE) + ANSWER_TIME
    for sql, ahead in ((_SINCE, TOLERANCE), (_RETRY, LAST_RETRY + TOLERANCE)):
        while _update(sql, [interval_parameter(ahead), _BATCH]) == _BATCH:
            pass
    while _shorten_leases(longest) == _BATCH:
        pass
    _repair_expiry()
    clock_set_back.send(sender=ClockWatch)
    clock_watch.repaired()


def _repair_expiry() -> None:
    """Let uploads, the recycle bin and the history of tags expire as if they were of this moment.

    An entry of the bin keeps its own period, whatever `REGISTRY_RECYCLE_BIN` is now.
    """
    expires_at = DatabaseNow() + settings.UPLOAD_LIFE
    correct(UploadSession.objects.all(), "expires_at", longest=settings.UPLOAD_LIFE, expires_at=expires_at)
    kept: dict[str, Any] = {
        "deleted_at": DatabaseNow(),
        "expires_at": DatabaseNow() + (F("expires_at") - F("deleted_at")),
    }
    # Found by the index of `expires_at`, which is later than `deleted_at`.
    entries = RecycleBinEntry.objects.filter(deleted_at__gt=DatabaseNow() + TOLERANCE)
    correct(entries, "expires_at", **kept)
    correct(TagHistory.objects.all(), "until")


@transaction.atomic
def _update(sql: str, parameters: list[Parameter]) -> int:
    return len(rows(sql, parameters))


@transaction.atomic
def _shorten_leases(longest: timedelta) -> int:
    return references.shorten_longest_leases(to=longest, tolerance=TOLERANCE, limit=_BATCH)
