"""A random sample of blobs."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from registry_control.db.sql import row, rows

_ID_RANGE: Final = "SELECT (SELECT MIN(id) FROM catalog_blob), (SELECT MAX(id) FROM catalog_blob)"
_NEXT: Final = """
SELECT id, size, storage_key FROM catalog_blob WHERE id >= %s AND state = 'live' ORDER BY id LIMIT 1
"""
_NEWEST: Final = (
    "SELECT id, size, storage_key FROM catalog_blob WHERE state = 'live' ORDER BY id DESC LIMIT %s"
)


class SampledBlob(NamedTuple):
    """A live blob."""

    id: int
    size: int  # bytes
    key: str


def random_blobs(number: int) -> Sequence[SampledBlob]:
    """Some live blobs, of any age; fewer than `number` if the registry has few."""
    first, last = row(_ID_RANGE, []) or (None, None)
    if first is None:
        return []
    # Twice as many, because some are drawn more than once.
    drawn = (row(_NEXT, [random.randint(first, last)]) for _ in range(2 * number))  # noqa: S311 - no secret
    found: dict[int, SampledBlob] = {}
    for each in drawn:
        if each is not None:
            found[each[0]] = SampledBlob(*each)
        if len(found) == number:
            return [*found.values()]
    # Ids have gaps: then most draws may return the row behind the largest.
    for each in rows(_NEWEST, [number]):
        found.setdefault(each[0], SampledBlob(*each))
    return [*found.values()][:number]
