"""Quarantines blobs whose content is damaged or missing, and releases them when they have it again (ADR 64).

A quarantined blob is absent for every request from the commit on, as if it had never been pushed. Its row,
links and leases stay, so the next upload of the digest makes all images whole again. Its bytes stay under
their key until then.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from django.db import transaction

from registry_control.audit.services import SYSTEM, Target, record
from registry_control.catalog.models import Blob
from registry_control.common.changes import EVERYTHING, record_change
from registry_control.common.clock import database_now
from registry_control.db.sql import execute, placeholders, row, rows, time_parameter
from registry_control.integrity.models import BlobCheck, BlobFault
from registry_control.integrity.policy import Content, Finding

logger = logging.getLogger(__name__)

_LONGEST: Final = 255  # characters of a detail
# A row that has another key has been healed meanwhile.
_LOCK: Final = """
SELECT digest, size, state FROM catalog_blob
WHERE id = %s AND storage_key = %s AND NOT (state = 'deleting') FOR UPDATE
"""
_SET_STATE: Final = "UPDATE catalog_blob SET state = %s WHERE id = %s"
_VERIFIED: Final = "UPDATE catalog_blob SET verified_at = %s WHERE id = %s AND storage_key = %s"
_LOCK_MANY: Final = "SELECT id, storage_key FROM catalog_blob WHERE id IN"
_VERIFIED_MANY: Final = "UPDATE catalog_blob SET verified_at = %s WHERE id IN"
_IS_OPEN: Final = "healed_at IS NULL AND dropped_at IS NULL"  # the condition of the index
_HEAL: Final = f"UPDATE integrity_blobfault SET healed_at = %s WHERE {_IS_OPEN} AND blob_id = %s"  # noqa: S608
_DROP: Final = f"UPDATE integrity_blobfault SET dropped_at = %s WHERE {_IS_OPEN} AND blob_id IN"  # noqa: S608
_STATES: Final = {Content.DAMAGED: Blob.State.DAMAGED, Content.MISSING: Blob.State.MISSING}


class _Locked(NamedTuple):
    digest: str
    size: int  # bytes
    state: str


@transaction.atomic
def settle(blob_id: int, *, key: str, finding: Finding) -> bool:
    """Give a blob the state that confirmed looks at its content have found; returns whether that changed it.

    A blob that was healed or is being deleted since the look is left alone.
    """
    found = row(_LOCK, [blob_id, key])
    if found is None or finding.content is Content.UNKNOWN:
        return False
    blob = _Locked(*found)
    if finding.content is Content.WHOLE:
        execute(_VERIFIED, [time_parameter(database_now()), blob_id, key])
        if blob.state == Blob.State.LIVE:
            return False
        _release(blob_id, blob)
        return True
    if blob.state == _STATES[finding.content]:
        return False
    _quarantine(blob_id, blob, key, finding)
    return True


def _quarantine(blob_id: int, blob: _Locked, key: str, finding: Finding) -> None:
    state = _STATES[finding.content]
    execute(_SET_STATE, [state.value, blob_id])
    record_change(EVERYTHING)  # any number of images may have the blob
    _drop([blob_id])  # damaged content may be missing later, and the reverse
    BlobFault.objects.create(
        blob_id=blob_id,
        digest=blob.digest,
        kind=state.value,
        size=blob.size,
        storage_key=key,
        detail=finding.detail[:_LONGEST],
        found_at=database_now(),
    )
    target = Target("blob", blob_id, blob.digest, None)
    record(actor=SYSTEM, verb=f"blob.{state.value}", target=target, storage_key=key, detail=finding.detail)
    logger.error(
        "the content of the blob %s is %s (%s): requests get 404 until it is pushed again",
        blob.digest,
        state.value,
        finding.detail,
    )


def _release(blob_id: int, blob: _Locked) -> None:
    execute(_SET_STATE, [Blob.State.LIVE.value, blob_id])
    record_change(EVERYTHING)
    heal(blob_id)
    target = Target("blob", blob_id, blob.digest, None)
    record(actor=SYSTEM, verb="blob.healed", target=target, state=blob.state)
    logger.warning("the content of the blob %s, which was %s, is whole again", blob.digest, blob.state)


def heal(blob_id: int) -> None:
    """End the finding of a blob that has its content again, if there is one; in the caller's transaction."""
    execute(_HEAL, [time_parameter(database_now()), blob_id])


def _drop(blob_ids: Sequence[int]) -> None:
    """End the findings of blobs that were not healed."""
    execute(f"{_DROP} {placeholders(blob_ids)}", [time_parameter(database_now()), *blob_ids])


def verified(keys: Mapping[int, str]) -> None:
    """Record that the content of blobs, given as storage keys by id, was read and is whole."""
    if not keys:
        return
    with transaction.atomic():
        locked = rows(f"{_LOCK_MANY} {placeholders([*keys])} ORDER BY digest FOR UPDATE", [*keys])
        same = [blob_id for blob_id, key in locked if keys[blob_id] == key]  # others were healed meanwhile
        if same:
            execute(f"{_VERIFIED_MANY} {placeholders(same)}", [time_parameter(database_now()), *same])


_GONE: Final = """
SELECT f.blob_id FROM integrity_blobfault f LEFT JOIN catalog_blob b ON b.id = f.blob_id
WHERE f.healed_at IS NULL AND f.dropped_at IS NULL AND (b.id IS NULL OR b.state = 'deleting') LIMIT %s
"""


def drop_of_deleted(*, limit: int) -> Sequence[int]:
    """End the findings of blobs that garbage collection deletes or has deleted; returns the ids of these."""
    gone = [blob_id for (blob_id,) in rows(_GONE, [limit])]  # a blob that is being deleted never comes back
    if gone:
        with transaction.atomic():
            _drop(gone)
            BlobCheck.objects.filter(pk__in=gone).delete()
    return gone
