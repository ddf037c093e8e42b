"""Which blobs to look at next."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from registry_control.db.sql import row, rows, time_from_db, time_parameter

_BY_AGE: Final = "COALESCE(verified_at, created_at)"
# Both conditions on the state: the first one is that of the index.
_OLDEST: Final = f"""
SELECT id, digest, size, storage_key, {_BY_AGE} FROM catalog_blob
WHERE state = 'live' AND ({_BY_AGE}, id) > (%s, %s) AND {_BY_AGE} <= %s
  AND (SELECT c.blob_id FROM integrity_blobcheck c WHERE c.blob_id = catalog_blob.id) IS NULL
ORDER BY {_BY_AGE}, id LIMIT %s
"""  # noqa: S608 - only a constant is interpolated
_TOTALS: Final = "SELECT count(*), COALESCE(SUM(size), 0) FROM catalog_blob WHERE NOT (state = 'deleting')"
_BY_ID: Final = """
SELECT id, digest, size, storage_key, COALESCE(verified_at, created_at) FROM catalog_blob
WHERE id = %s AND NOT (state = 'deleting')
"""
_BY_DIGEST: Final = """
SELECT id, digest, size, storage_key, COALESCE(verified_at, created_at) FROM catalog_blob
WHERE digest = %s AND NOT (state = 'deleting')
"""


class StoredBlob(NamedTuple):
    """A blob that is not being deleted."""

    id: int
    digest: str
    size: int  # bytes
    key: str
    verified_at: datetime  # when its content was hashed last: at its upload, or by a later look


class Position(NamedTuple):
    """A position in the order in which blobs are verified."""

    verified_at: datetime
    blob_id: int


BEGIN: Final = Position(datetime(1970, 1, 1, tzinfo=UTC), 0)


def longest_unverified(*, until: datetime, after: Position = BEGIN, limit: int) -> Sequence[StoredBlob]:
    """Live blobs that were hashed last at a time up to `until`, the longest unverified first.

    Without those that wait for a second look: a few that cannot be read would stop all others.
    """
    parameters = [time_parameter(after.verified_at), after.blob_id, time_parameter(until), limit]
    return [_blob(each) for each in rows(_OLDEST, parameters)]


def blob_with_id(blob_id: int) -> StoredBlob | None:
    """A blob, unless it is being deleted."""
    found = row(_BY_ID, [blob_id])
    return None if found is None else _blob(found)


def blob_with_digest(digest: str) -> StoredBlob | None:
    """The blob of a digest, unless it is being deleted."""
    found = row(_BY_DIGEST, [digest])
    return None if found is None else _blob(found)


class Totals(NamedTuple):
    """All blobs that are not being deleted."""

    blobs: int
    bytes: int


def totals() -> Totals:
    """Count all blobs. Reads the whole table."""
    found = row(_TOTALS, [])
    return Totals(*map(int, found)) if found else Totals(0, 0)


def _blob(found: tuple[int, str, int, str, datetime | str]) -> StoredBlob:
    blob_id, digest, size, key, verified_at = found
    return StoredBlob(blob_id, digest, size, key, time_from_db(verified_at))
