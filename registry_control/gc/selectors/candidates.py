"""The blobs of the review queue with the facts that decide about them.

`load` reads the facts for the collector, for dry runs and for `explain`, so that all of them agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from registry_control.db.sql import (
    Parameter,
    optional_time,
    optional_uuid,
    placeholders,
    rows,
)
from registry_control.gc.policy import Facts
from registry_data.storage.base import Key

# Not EXISTS: PostgreSQL might read all links for it.
LINKED: Final = "(SELECT k.id FROM catalog_bloblink k WHERE k.blob_id = b.id LIMIT 1) IS NOT NULL"
LEASED_UNTIL: Final = """
(SELECT l.expires_at FROM catalog_bloblease l WHERE l.blob_id = b.id ORDER BY l.expires_at DESC LIMIT 1)
"""
# Only constants are interpolated in this module, apart from placeholders.
_FACTS: Final = f"""
SELECT b.id, b.digest, b.size, b.storage_key, b.state, r.organization_id, r.cause, r.unreferenced_since,
       r.retry_at, r.attempts, r.error, {LINKED}, {LEASED_UNTIL}
FROM catalog_blob b LEFT JOIN catalog_blobreview r ON r.blob_id = b.id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Candidate:
    """A blob, and why its last reference ended; `cause` is empty if it is not in the review queue."""

    id: int
    digest: str
    size: int  # bytes
    key: Key
    organization_id: UUID | None
    cause: str
    attempts: int
    error: str
    is_broken: bool  # its content was found damaged or missing
    facts: Facts


def load(blob_ids: Sequence[int]) -> list[Candidate]:
    """Blobs with their facts, by digest."""
    if not blob_ids:
        return []
    found = rows(f"{_FACTS} WHERE b.id IN {placeholders(blob_ids)} ORDER BY b.digest, b.id", blob_ids)
    return [_candidate(*each) for each in found]


def by_digest(digest: str) -> list[Candidate]:
    """The current blob of a digest and those that are being deleted, the current one first."""
    found = rows(f"{_FACTS} WHERE b.digest = %s AND NOT (b.state = 'deleting')", [digest])
    found += rows(f"{_FACTS} WHERE b.digest = %s AND b.state = 'deleting' ORDER BY b.id", [digest])
    return [_candidate(*each) for each in found]


def _candidate(
    blob_id: int,
    digest: str,
    size: int,
    key: str,
    state: str,
    organization_id: UUID | str | None,
    cause: str | None,
    since: datetime | str | None,
    retry_at: datetime | str | None,
    attempts: int | None,
    error: str | None,
    is_linked: Parameter,
    leased_until: datetime | str | None,
) -> Candidate:
    facts = Facts(
        is_deleting=state == "deleting",
        is_linked=bool(is_linked),
        leased_until=optional_time(leased_until),
        unreferenced_since=optional_time(since),
        retry_at=optional_time(retry_at),
    )
    owner = optional_uuid(organization_id)
    return Candidate(
        id=blob_id,
        digest=digest,
        size=size,
        key=Key(key),
        organization_id=owner,
        cause=cause or "",
        attempts=attempts or 0,
        error=error or "",
        is_broken=state in ("damaged", "missing"),
        facts=facts,
    )
