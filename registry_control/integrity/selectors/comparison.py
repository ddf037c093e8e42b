"""Reads the rows that reconciling compares with the storage, and which objects no row knows."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from registry_control.db.sql import id_parameter, placeholders, row, rows, uuid_from_db
from registry_control.integrity.models import UnknownObject
from registry_data.storage.base import Kind, StoredObject

_ROWS: Final = """
SELECT id, digest, size, storage_key, state FROM catalog_blob
WHERE id > %s AND NOT (state = 'deleting') ORDER BY id LIMIT %s
"""
_SESSIONS: Final = "SELECT id FROM catalog_uploadsession WHERE id IN"
# The same expression as in the index `blobs_by_generation`.
_GENERATION: Final = "substr(storage_key, length(storage_key) - 31)"
_BLOBS: Final = f"SELECT {_GENERATION} FROM catalog_blob WHERE {_GENERATION} IN"  # noqa: S608
_AT_LEAST: Final = "SELECT count(*) FROM (SELECT 1 FROM catalog_blob LIMIT %s) AS found"


class ComparedBlob(NamedTuple):
    """A blob that is not being deleted."""

    id: int
    digest: str
    size: int  # bytes
    key: str
    state: str


def blobs_after(blob_id: int, *, limit: int) -> Sequence[ComparedBlob]:
    """The next blobs in the order of their ids."""
    return [ComparedBlob(*found) for found in rows(_ROWS, [blob_id, limit])]


def unknown(objects: Collection[StoredObject]) -> list[StoredObject]:
    """The objects of this registry that no row knows: neither an upload session nor a blob.

    An upload's session is committed before its first object is written. It is removed after the blob was
    recorded, so sessions are read first: an object without a session has its blob row by then, or will never
    have one. Ids of uploads are never used again (invariant 1).
    """
    ours = [each for each in objects if each.kind is not Kind.FOREIGN]
    sessions = _with_session({each.upload for each in ours})
    orphaned = [each for each in ours if each.upload not in sessions]
    blobs = _with_blob({each.upload for each in orphaned if each.kind is Kind.CONTENT})
    return [each for each in orphaned if each.kind is not Kind.CONTENT or each.upload not in blobs]


def known_again(found: Collection[UnknownObject]) -> set[int]:
    """The ids of the rows whose objects are known now."""
    objects = {each.pk: StoredObject(Kind(each.kind), each.name, each.upload, each.size) for each in found}
    still = set(unknown(objects.values()))
    return {pk for pk, each in objects.items() if each not in still}


def fewer_blobs_than(number: int) -> bool:
    """Whether the registry has fewer blobs than that."""
    found = row(_AT_LEAST, [number])
    return found is None or int(found[0]) < number


def _with_session(uploads: Collection[str]) -> set[str]:
    if not uploads:
        return set()
    ids = [id_parameter(UUID(upload)) for upload in uploads]
    return {uuid_from_db(found).hex for (found,) in rows(f"{_SESSIONS} {placeholders(ids)}", ids)}


def _with_blob(uploads: Collection[str]) -> set[str]:
    if not uploads:
        return set()
    wanted = [*uploads]
    return {found for (found,) in rows(f"{_BLOBS} {placeholders(wanted)}", wanted)}
