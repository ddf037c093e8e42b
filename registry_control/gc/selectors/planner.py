"""The plan of garbage collection: what a run removes, and what waits, read in bounded pages."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from registry_control.catalog.selectors.recycled import recycled_blobs
from registry_control.db.sql import optional_time, row, rows, time_parameter
from registry_control.gc.policy import Action, Budget, Rules, Stop, Verdict, judge
from registry_control.gc.selectors.candidates import Candidate, load

_IS_DUE: Final = """
SELECT 1 WHERE (
    SELECT unreferenced_since FROM catalog_blobreview WHERE retry_at IS NULL
    ORDER BY unreferenced_since LIMIT 1
) <= %s OR (
    SELECT retry_at FROM catalog_blobreview WHERE retry_at IS NOT NULL ORDER BY retry_at LIMIT 1
) <= %s
"""
_DELETING: Final = """
SELECT blob_id, NULL FROM catalog_blobreview WHERE retry_at IS NOT NULL AND blob_id > %s
ORDER BY blob_id LIMIT %s
"""
_WAITING: Final = """
SELECT blob_id, unreferenced_since FROM catalog_blobreview
WHERE retry_at IS NULL AND (unreferenced_since, blob_id) > (%s, %s) AND unreferenced_since <= %s
ORDER BY unreferenced_since, blob_id LIMIT %s
"""
# The last lease of each blob that no manifest lists; most leases belong to blobs that have been linked since.
_LEASES: Final = """
SELECT l.id, l.blob_id FROM catalog_bloblease l
WHERE l.id > %s
  AND (SELECT k.id FROM catalog_bloblink k WHERE k.blob_id = l.blob_id LIMIT 1) IS NULL
  AND (SELECT o.id FROM catalog_bloblease o
       WHERE o.blob_id = l.blob_id AND (o.expires_at, o.id) > (l.expires_at, l.id) LIMIT 1) IS NULL
ORDER BY l.id LIMIT %s
"""
_FIGURES: Final = "SELECT entries, bytes FROM gc_queuefigures"
# Rows that the figures lack, as long as there are few; more are added within seconds.
_NEW: Final = "SELECT blob_id FROM catalog_blobreview WHERE size IS NULL ORDER BY blob_id LIMIT %s"
_OLDEST: Final = """
SELECT blob_id FROM catalog_blobreview WHERE retry_at IS NULL ORDER BY unreferenced_since, blob_id LIMIT %s
"""
_NEXT_RETRY: Final = "SELECT MIN(retry_at) FROM catalog_blobreview WHERE retry_at IS NOT NULL"
_FEW: Final = 500
_BATCH: Final = 500


class Cursor(NamedTuple):
    """A position in the review queue: first the blobs that are being deleted, by id, then those that wait."""

    since: datetime | None  # since when the blob is unreferenced; None among those that are being deleted
    blob_id: int


BEGIN: Final = Cursor(None, 0)
_FIRST_WAITING: Final = Cursor(datetime(1970, 1, 1, tzinfo=UTC), 0)
_END_OF_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the queue with the verdicts on its blobs, and where the next part begins; None at the end."""

    verdicts: Sequence[tuple[Candidate, Verdict]]
    next: Cursor | None

    def collectable(self, stop: Stop | None) -> list[Candidate]:
        """The blobs that a run removes: if the collector has stopped, those that it had marked before."""
        goes = (Action.DELETE,) if stop is not None else (Action.COLLECT, Action.DELETE)
        return [candidate for candidate, verdict in self.verdicts if verdict.action in goes]


def exempt_bytes(candidates: Iterable[Candidate], budget: Budget) -> int:
    """The bytes of marked blobs and of those that an operator released: the limit does not count them."""
    return sum(each.size for each in candidates if each.facts.is_deleting or budget.is_released(each.facts))


class QueueSummary(NamedTuple):
    """The unreferenced blobs of the review queue."""

    entries: int
    bytes: int
    oldest_since: datetime | None  # of the blobs whose deletion has not begun
    next_retry_at: datetime | None  # of the others


def is_due(rules: Rules) -> bool:
    """Whether the queue has rows that a run under these rules looks at."""
    due = [time_parameter(rules.released_before), time_parameter(rules.retries_before)]
    return row(_IS_DUE, due) is not None


def review(rules: Rules, *, after: Cursor = BEGIN, limit: int = _BATCH, only_due: bool = False) -> Page:
    """Judge the next blobs of the queue; with `only_due` those that a run under these rules looks at."""
    if after.since is None:
        found = rows(_DELETING, [after.blob_id, limit])
        end = _FIRST_WAITING
    else:
        until = rules.released_before if only_due else _END_OF_TIME
        position = [time_parameter(after.since), after.blob_id]
        found = rows(_WAITING, [*position, time_parameter(until), limit])
        end = None
    verdicts = [(each, judge(each.facts, rules)) for each in load([blob_id for blob_id, _ in found])]
    if len(found) < limit:
        return Page(verdicts, end)
    last_id, last_since = found[-1]
    return Page(verdicts, Cursor(optional_time(last_since), last_id))


def pages(rules: Rules, *, only_due: bool = False) -> Iterator[Page]:
    """Judge the blobs of the queue, a page at a time."""
    after: Cursor | None = BEGIN
    while after is not None:
        page = review(rules, after=after, only_due=only_due)
        yield page
        after = page.next


def waiting(rules: Rules, *, also: Collection[Action] = ()) -> Iterator[tuple[Candidate, Verdict]]:
    """All blobs that only a grace period, a lease or the recycle bin keeps.

    `also` adds some that are due: after a run, what has stopped the collector or the storage keeps.
    """
    kept = {Action.WAIT, *also}
    for page in pages(rules):
        yield from (each for each in page.verdicts if each[1].action in kept)
    yield from (each for each in recycled(rules) if each[1].action is Action.RECYCLED)
    after = 0
    while found := rows(_LEASES, [after, _BATCH]):
        after = found[-1][0]
        for candidate in load([blob_id for _, blob_id in found]):
            verdict = judge(candidate.facts, rules)
            if verdict.action is Action.KEEP and verdict.goes_at is not None:
                yield candidate, verdict


def recycled(rules: Rules) -> Iterator[tuple[Candidate, Verdict]]:
    """All blobs that only the recycle bin keeps."""
    for page in recycled_blobs():
        for candidate in load([*page]):
            facts = replace(candidate.facts, recycled_until=page[candidate.id].until)
            yield candidate, judge(facts, rules)


def summary(rules: Rules) -> QueueSummary:
    """The figures of the queue, in constant time.

    A blob that got a reference again after it was counted is part of them until its review.
    """
    found = row(_FIGURES, [])
    entries, size = found or (0, 0)
    new = _unreferenced([blob_id for (blob_id,) in rows(_NEW, [_FEW])], rules)
    oldest = _unreferenced([blob_id for (blob_id,) in rows(_OLDEST, [_FEW])], rules)
    times = [each.facts.unreferenced_since for each in oldest]
    retry = row(_NEXT_RETRY, [])
    return QueueSummary(
        int(entries) + len(new),
        int(size) + sum(each.size for each in new),
        min((since for since in times if since is not None), default=None),
        optional_time(retry[0]) if retry else None,
    )


def _unreferenced(blob_ids: Sequence[int], rules: Rules) -> list[Candidate]:
    return [each for each in load(blob_ids) if judge(each.facts, rules).action is not Action.KEEP]
