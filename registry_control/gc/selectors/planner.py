"""The plan of garbage collection: what a run removes, and what waits, read in bounded pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from registry_control.catalog.selectors.recycled import recycled_blobs
from registry_control.db.sql import optional_time, row, rows, time_from_db, time_parameter
from registry_control.gc.policy import Action, Rules, Verdict, judge
from registry_control.gc.selectors.candidates import LEASED_UNTIL, LINKED, Candidate, load

_IS_DUE: Final = """
SELECT 1 WHERE EXISTS (SELECT 1 FROM catalog_blobreview WHERE retry_at IS NULL AND unreferenced_since <= %s)
            OR EXISTS (SELECT 1 FROM catalog_blobreview WHERE retry_at IS NOT NULL AND retry_at <= %s)
"""
_IN_QUEUE: Final = """
SELECT blob_id, unreferenced_since FROM catalog_blobreview WHERE (unreferenced_since, blob_id) > (%s, %s)
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
# CROSS JOIN fixes the join order in SQLite, which would otherwise read all blobs.
_SUMMARY: Final = f"""
SELECT count(*), COALESCE(SUM(found.size), 0), MIN(found.since), MIN(found.retry_at) FROM (
    SELECT b.size AS size, r.retry_at AS retry_at,
           CASE WHEN r.retry_at IS NULL THEN r.unreferenced_since END AS since
    FROM catalog_blobreview r CROSS JOIN catalog_blob b
    WHERE b.id = r.blob_id AND NOT ({LINKED}) AND {LEASED_UNTIL} IS NULL
) found
"""  # noqa: S608
_BATCH: Final = 500


class Cursor(NamedTuple):
    """A position in the review queue, in the order of the times since when blobs are unreferenced."""

    since: datetime
    blob_id: int


BEGIN: Final = Cursor(datetime(1970, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the queue with the verdicts on its blobs, and where the next part begins; None at the end."""

    verdicts: Sequence[tuple[Candidate, Verdict]]
    next: Cursor | None

    @property
    def collectable(self) -> list[Candidate]:
        """The blobs that a run removes."""
        goes = (Action.COLLECT, Action.DELETE)
        return [candidate for candidate, verdict in self.verdicts if verdict.action in goes]


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


def review(rules: Rules, *, after: Cursor = BEGIN, limit: int = _BATCH) -> Page:
    """Judge the next blobs of the queue."""
    found = rows(_IN_QUEUE, [time_parameter(after.since), after.blob_id, limit])
    verdicts = [(each, judge(each.facts, rules)) for each in load([blob_id for blob_id, _ in found])]
    if len(found) < limit:
        return Page(verdicts, None)
    last_id, last_since = found[-1]
    return Page(verdicts, Cursor(time_from_db(last_since), last_id))


def pages(rules: Rules) -> Iterator[Page]:
    """Judge all blobs of the queue, a page at a time."""
    after: Cursor | None = BEGIN
    while after is not None:
        page = review(rules, after=after)
        yield page
        after = page.next


def waiting(rules: Rules) -> Iterator[tuple[Candidate, Verdict]]:
    """All blobs that only a grace period, a lease or the recycle bin keeps."""
    for page in pages(rules):
        yield from (each for each in page.verdicts if each[1].action is Action.WAIT)
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


def summary() -> QueueSummary:
    """The number and size of the unreferenced blobs in the queue."""
    found = row(_SUMMARY, [])
    if found is None:
        return QueueSummary(0, 0, None, None)
    entries, size, since, retry_at = found
    return QueueSummary(int(entries), int(size), optional_time(since), optional_time(retry_at))
