"""Reports content that a download found missing or damaged; a worker takes the second look (ADR 64)."""

import logging
from typing import Final

from django.db import DatabaseError

from registry_control.common.clock import database_now
from registry_control.db.sql import execute, time_parameter
from registry_control.integrity.policy import Content, confirm_after
from registry_data.storage.base import Key

logger = logging.getLogger(__name__)

_REPORT: Final = """
INSERT INTO integrity_blobcheck (blob_id, storage_key, found, reason, due_at, attempts, created_at)
SELECT b.id, b.storage_key, %s, %s, %s, 0, %s FROM catalog_blob b
WHERE b.storage_key = %s AND b.state = 'live'
ON CONFLICT (blob_id) DO NOTHING
"""


def report(key: Key, reason: str, *, is_missing: bool) -> None:
    """Let a worker look at the content under a key within seconds. Never fails."""
    content = Content.MISSING if is_missing else Content.DAMAGED
    try:
        moment = database_now()
        due = moment + confirm_after(content)
        execute(_REPORT, [content.value, reason, time_parameter(due), time_parameter(moment), key])
    except DatabaseError as error:
        logger.warning("the content under %s could not be reported: %s", key, error)
