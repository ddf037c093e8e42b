"""The counts of all blobs."""

from datetime import timedelta
from typing import Final, NamedTuple

from django.db.models import QuerySet

from registry_control.common.clock import database_now
from registry_control.db.sql import row, rows
from registry_control.gc.models import Inventory

# Of the links of a blob that millions of manifests list, the first ones decide whether a tag reaches it.
_LINKS: Final = 100

# The subqueries visit blobs in the order of their ids.
_COUNT: Final = """
SELECT found.kind, COUNT(*), SUM(found.size), MAX(found.id) FROM (
    SELECT slice.id AS id, slice.size AS size, CASE
        WHEN slice.state = 'deleting' THEN 'deleting'
        WHEN slice.reachable > 0 THEN 'tagged'
        WHEN slice.reachable = 0 THEN 'untagged'
        WHEN (SELECT l.id FROM catalog_bloblease l WHERE l.blob_id = slice.id LIMIT 1) IS NOT NULL
        THEN 'leased'
        ELSE 'unreferenced' END AS kind
    FROM (
        SELECT b.id AS id, b.size AS size, b.state AS state, (
            SELECT SUM(CASE WHEN link.is_reachable THEN 1 ELSE 0 END)
            FROM (SELECT k.is_reachable FROM catalog_bloblink k WHERE k.blob_id = b.id LIMIT %s) link
        ) AS reachable
        FROM catalog_blob b WHERE b.id > %s ORDER BY b.id LIMIT %s
    ) slice
) found GROUP BY found.kind
"""

_PUSHED: Final = """
SELECT COALESCE(SUM(pushed.size), 0) FROM (
    SELECT size FROM catalog_blob WHERE id > %s ORDER BY id LIMIT 10000
) pushed
"""


class Count(NamedTuple):
    """The blobs of a slice that one kind of reference keeps."""

    kind: str
    blobs: int
    bytes: int
    last_id: int


def newest() -> Inventory | None:
    """The last complete count."""
    return Inventory.objects.filter(finished_at__isnull=False).order_by("-finished_at").first()


def age() -> timedelta | None:
    """The age of the last complete count; None before the first one."""
    found = newest()
    if found is None or found.finished_at is None:
        return None
    return abs(database_now() - found.finished_at)  # the clock may have been set back meanwhile


def pushed_since(found: Inventory) -> int:
    """Bytes of the blobs that are newer than a complete count, of the first 10,000."""
    sums = row(_PUSHED, [found.cursor])
    return int(sums[0]) if sums else 0


def count_slice(after: int, limit: int) -> list[Count]:
    """Count the next `limit` blobs by what keeps them."""
    found = rows(_COUNT, [_LINKS, after, limit])
    return [Count(kind, int(blobs), int(size), int(last_id)) for kind, blobs, size, last_id in found]


def unfinished() -> QuerySet[Inventory]:
    """Counts that a worker has to continue, the oldest first."""
    return Inventory.objects.filter(finished_at__isnull=True).order_by("pk")
