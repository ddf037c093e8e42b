"""The figures of the review queue: how many blobs wait, and how many bytes (ADR 65).

`references` inserts rows without a size. `count_new` looks at each row once: it drops the row of a blob that
has other references, and otherwise sets its size and adds it to the figures. So pushes and deletions write
no counter, and the figures are read in constant time. A row that is deleted before it is counted is in none.
"""

from collections.abc import Iterable
from typing import Final

from django.db import transaction

from registry_control.db.sql import execute, placeholders, rows
from registry_control.gc.policy import Action, Rules, judge
from registry_control.gc.selectors.candidates import load

_ONLY_ROW: Final = 1
# Rows of one call are locked in the order of their ids, as `references` inserts them.
_NEW: Final = """
SELECT blob_id FROM catalog_blobreview WHERE size IS NULL ORDER BY blob_id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_IS_NEW: Final = "SELECT blob_id FROM catalog_blobreview WHERE size IS NULL ORDER BY blob_id LIMIT 1"
_SET_SIZES: Final = """
UPDATE catalog_blobreview SET size = (SELECT b.size FROM catalog_blob b WHERE b.id = blob_id) WHERE blob_id IN
"""
_DROP: Final = "DELETE FROM catalog_blobreview WHERE blob_id IN"
_ADD: Final = """
INSERT INTO gc_queuefigures (id, entries, bytes) VALUES (%s, %s, %s)
ON CONFLICT (id) DO UPDATE SET entries = gc_queuefigures.entries + excluded.entries,
                               bytes = gc_queuefigures.bytes + excluded.bytes
"""


def count_new(rules: Rules, *, limit: int) -> int:
    """Look at up to `limit` new rows of the queue; returns how many there were."""
    if not rows(_IS_NEW, []):  # without the write lock of a transaction on SQLite
        return 0
    return _count_new(rules, limit=limit)


@transaction.atomic
def _count_new(rules: Rules, *, limit: int) -> int:
    """Count new rows; returns how many there were.

    The blobs are not locked. A transaction that deletes a reference which is found here has not yet written
    its row of the queue: it waits for this transaction and then inserts the row that was dropped.
    """
    found = [blob_id for (blob_id,) in rows(_NEW, [limit])]
    candidates = load(found)
    kept = [each.id for each in candidates if judge(each.facts, rules).action is Action.KEEP]
    counted = [each for each in candidates if each.id not in set(kept)]
    drop_rows(kept)
    if counted:
        ids = [each.id for each in counted]
        execute(f"{_SET_SIZES} {placeholders(ids)}", ids)
        _add(len(counted), sum(each.size for each in counted))
    return len(found)


def drop_rows(blob_ids: Iterable[int]) -> None:
    """Delete rows of the queue that the transaction has locked, and subtract them from the figures.

    A transaction locks the row of the figures after those of blobs and of the queue, before that of a run.
    """
    ids = [*blob_ids]
    if not ids:
        return
    dropped = rows(f"{_DROP} {placeholders(ids)} RETURNING size", ids)
    sizes = [size for (size,) in dropped if size is not None]
    if sizes:
        _add(-len(sizes), -sum(sizes))


def _add(entries: int, size: int) -> None:
    execute(_ADD, [_ONLY_ROW, entries, size])
