"""Content that a closed upload left under its storage key, although no blob has that key (ADR 35).

It is a copy of a blob of another organization, which the worker deletes. Before that it asks the storage for
the blob's own bytes: if they are lost, the blob gets those of the copy (ADR 34). The request that sent them
does not ask, because that would take longer than storing new content, and reveal what other tenants have.

A copy is either taken by a blob or given up, once, under the lock of its session's row: two workers at the
same session cannot do both. Only content that was given up is deleted.
"""

from contextlib import suppress
from typing import Final, NamedTuple
from uuid import UUID

from django.db import transaction

from registry_control.catalog.models import CURRENT_BLOB, Blob
from registry_control.catalog.services import blobs, plausibility
from registry_control.db.sql import execute, id_parameter, row, rows
from registry_data.storage.base import BlobStore, Key, NotStored
from registry_data.storage.keys import parse_key

# The index of generations is on this expression.
_KEY_OF_BLOB: Final = """
SELECT storage_key FROM catalog_blob WHERE substr(storage_key, length(storage_key) - 31) = %s LIMIT 1
"""
# One row, also if there is no such session any more.
_LEFT: Final = f"""
SELECT ({_KEY_OF_BLOB}), s.stored_as, s.is_surplus
FROM (SELECT 1 AS number) AS one_row LEFT JOIN catalog_uploadsession s ON s.id = %s AND NOT s.is_open
"""
_HOLD: Final = """
SELECT stored_as, is_surplus FROM catalog_uploadsession WHERE id = %s AND NOT is_open FOR UPDATE
"""
_GIVE_UP: Final = "UPDATE catalog_uploadsession SET is_surplus = TRUE WHERE id = %s"
_CURRENT: Final = f"""
SELECT size, storage_key, state FROM catalog_blob WHERE digest = %s AND {CURRENT_BLOB}
"""


class Outcome(NamedTuple):
    """What was decided about the content of a closed session."""

    key: Key | None
    """The storage key with which the session was closed as a blob, or that a blob has."""

    is_used: bool
    """Whether a blob has the key. If not, none ever will, and the content can be deleted."""


def resolve(session_id: UUID, *, store: BlobStore) -> Outcome:
    """Decide about the content of a closed session.

    Raises:
        StorageError: the storage does not respond, or lacks most other content as well.
    """
    ((named, copy, is_surplus),) = rows(_LEFT, [session_id.hex, id_parameter(session_id)])
    if named or not copy:
        return Outcome(Key(named) if named else None, is_used=bool(named))
    if not is_surplus and (lost := _lost_by_blob(copy, store)) is not None:
        _heal_from(session_id, Key(copy), lost=lost, store=store)
    return Outcome(Key(copy), is_used=give_up(session_id) is not None)


@transaction.atomic
def give_up(session_id: UUID) -> Key | None:
    """Let no blob get the content of a closed session; returns its key if one has it already."""
    execute(_GIVE_UP, [id_parameter(session_id)])
    return _key_of_blob(session_id)


def _key_of_blob(session_id: UUID) -> Key | None:
    """The storage key of the blob that an upload became, in whatever state."""
    found = row(_KEY_OF_BLOB, [session_id.hex])
    return Key(found[0]) if found else None


def _lost_by_blob(key: Key, store: BlobStore) -> Key | None:
    """The key of the blob with the same digest, if the storage does not have its bytes."""
    found = row(_CURRENT, [parse_key(key)[0]])
    if found is None:
        return None
    size, current, state = found
    with suppress(NotStored):
        if state == Blob.State.LIVE and store.size(Key(current)) == size:
            return None
    return Key(current)


def _heal_from(session_id: UUID, key: Key, *, lost: Key, store: BlobStore) -> None:
    """Let the blob that has lost its bytes have those of a closed session."""
    try:
        size = store.size(key)
    except NotStored:  # deleted before
        return
    plausibility.require_plausible(store)
    _heal(session_id, blobs.NewBlob(parse_key(key)[0], size, key), lost)


@transaction.atomic
def _heal(session_id: UUID, content: blobs.NewBlob, lost: Key) -> None:
    if rows(_HOLD, [id_parameter(session_id)]) != [(content.storage_key, False)]:
        return  # given up by another worker
    if _key_of_blob(session_id) is None:
        blobs.heal(content, lost)
