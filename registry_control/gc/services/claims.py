"""Which rows of the review queue a batch works on: fair to failing rows and between organizations (ADR 66).

Every query locks the rows that it returns and skips those that another worker has locked.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from registry_control.db.sql import Parameter, id_parameter, rows, time_parameter, uuid_from_db
from registry_control.gc.policy import Rules

_MOST_ORGANIZATIONS: Final = 8  # of one batch
_NO_ID: Final = UUID(int=0)

_RETRIES: Final = """
SELECT blob_id FROM catalog_blobreview WHERE retry_at IS NOT NULL AND retry_at <= %s
ORDER BY retry_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
_OLDEST: Final = """
SELECT blob_id FROM catalog_blobreview WHERE retry_at IS NULL AND unreferenced_since <= %s
ORDER BY unreferenced_since, blob_id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_OF_ORGANIZATION: Final = """
SELECT blob_id FROM catalog_blobreview
WHERE retry_at IS NULL AND organization_id = %s AND unreferenced_since <= %s
ORDER BY organization_id, unreferenced_since, blob_id LIMIT %s FOR UPDATE SKIP LOCKED
"""
# Skips from one organization to the next in the index, however many rows each has.
_ORGANIZATIONS: Final = """
WITH RECURSIVE step (organization_id, number) AS (
    SELECT (SELECT r.organization_id FROM catalog_blobreview r
            WHERE r.retry_at IS NULL AND r.organization_id > %s ORDER BY r.organization_id LIMIT 1), 1
    UNION ALL
    SELECT (SELECT r.organization_id FROM catalog_blobreview r
            WHERE r.retry_at IS NULL AND r.organization_id > s.organization_id
            ORDER BY r.organization_id LIMIT 1), s.number + 1
    FROM step s WHERE s.organization_id IS NOT NULL AND s.number < 200
)
SELECT s.organization_id FROM step s
WHERE s.organization_id IS NOT NULL AND (
    SELECT r.unreferenced_since FROM catalog_blobreview r
    WHERE r.retry_at IS NULL AND r.organization_id = s.organization_id
    ORDER BY r.organization_id, r.unreferenced_since LIMIT 1
) <= %s
ORDER BY s.number LIMIT %s
"""


class Rows(NamedTuple):
    """Locked rows of the queue, as ids of blobs."""

    retries: Sequence[int]  # marked by an earlier batch; their deletion did not end
    reviews: Sequence[int]
    is_full: bool  # whether there may be more


def claim_rows(rules: Rules, *, limit: int, reviews: bool = True) -> Rows:
    """Lock rows that are due.

    Retries get half of the batch at most: content that the storage never deletes must not keep the rest of
    the queue from being reviewed. Half of the rest is divided evenly among some organizations, so that the
    blobs of one do not wait for a million of another. What is left of the batch goes by time.

    Args:
        rules: the time and the grace period.
        limit: the size of the batch.
        reviews: whether to claim blobs that no batch has marked yet.
    """
    most_retries = (limit + 1) // 2
    retries = _ids(_RETRIES, [time_parameter(rules.retries_before), most_retries])
    if not reviews:
        return Rows(retries, [], len(retries) == most_retries)
    room = limit - len(retries)
    fair = set(_of_each_organization(rules, room=room // 2)) if room > 1 else set[int]()
    before = time_parameter(rules.released_before)
    oldest = _ids(_OLDEST, [before, room])
    others = [blob_id for blob_id in oldest if blob_id not in fair]
    is_full = len(retries) == most_retries or len(oldest) == room
    return Rows(retries, [*fair, *others[: room - len(fair)]], is_full)


def _of_each_organization(rules: Rules, *, room: int) -> Iterator[int]:
    """Some of the oldest due rows of organizations that a random position in the index begins with."""
    before, start = time_parameter(rules.released_before), uuid4()
    found = _organizations(start, before, _MOST_ORGANIZATIONS)
    if len(found) < _MOST_ORGANIZATIONS:
        found = list(dict.fromkeys([*found, *_organizations(_NO_ID, before, _MOST_ORGANIZATIONS)]))
    if len(found) < 2:
        return
    share = max(1, room // len(found))
    for organization_id in found[:room]:
        yield from _ids(_OF_ORGANIZATION, [id_parameter(organization_id), before, share])


def _organizations(after: UUID, before: Parameter, limit: int) -> list[UUID]:
    found = rows(_ORGANIZATIONS, [id_parameter(after), before, limit])
    return [uuid_from_db(organization_id) for (organization_id,) in found]


def _ids(sql: str, parameters: Sequence[Parameter]) -> list[int]:
    return [found for (found,) in rows(sql, parameters)]
