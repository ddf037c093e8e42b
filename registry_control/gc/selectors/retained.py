"""What retention decides about the tags and untagged manifests of an image, in pages of bounded size.

One planner: the preview shows these decisions, and the enforcement makes them again under the image's lock.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.conf import settings

from registry_control.common.models import not_deleting_sql
from registry_control.db.sql import (
    batches,
    id_parameter,
    interval_parameter,
    optional_time,
    placeholders,
    rows,
    time_from_db,
    time_parameter,
    uuid_from_db,
)
from registry_control.gc.retention import (
    Decision,
    ImageRules,
    Newest,
    Tag,
    Times,
    Untagged,
    is_over,
    last_use,
    removable,
)
from registry_control.namespaces.models import Namespace

PAGE: Final = 1000

_TAG: Final = """
SELECT t.id, t.name, t.manifest_id, t.updated_at, t.last_pulled_at, t.restored_at, t.pushed_at
FROM catalog_tag t WHERE
"""
_TAGS: Final = f"""
{_TAG} t.image_id = %s AND {not_deleting_sql("t")} AND t.name > %s ORDER BY t.name LIMIT %s
"""
_TAGS_BY_ID: Final = f"{_TAG} {not_deleting_sql('t')} AND t.id IN"
_DIGESTS: Final = "SELECT id, digest FROM catalog_manifest WHERE id IN"
_NAMED: Final = f"""
SELECT COUNT(*) FROM catalog_tag WHERE image_id = %s AND {not_deleting_sql()} AND name IN
"""  # noqa: S608
_IMAGES: Final = f"""
SELECT id, name, status, size_is_stale, restored_at FROM catalog_image
WHERE namespace_id = %s AND {not_deleting_sql()} AND pushed_at IS NOT NULL AND name > %s
ORDER BY name LIMIT %s
"""  # noqa: S608
_UNTAGGED: Final = """
SELECT id, created_at FROM catalog_manifest
WHERE image_id = %s AND NOT is_reachable AND (created_at, id) > (%s, %s) ORDER BY created_at, id LIMIT %s
"""
_BY_ID: Final = """
SELECT m.id, m.id, m.is_reachable, m.created_at, m.untagged_at, m.last_pulled_at, m.restored_at
FROM catalog_manifest m
WHERE m.id IN
"""
_PARENTS: Final = """
SELECT c.child_id, p.id, p.is_reachable, p.created_at, p.untagged_at, p.last_pulled_at, p.restored_at,
       p.image_id = m.image_id
FROM catalog_manifestchild c
JOIN catalog_manifest p ON p.id = c.parent_id
JOIN catalog_manifest m ON m.id = c.child_id
WHERE c.child_id IN
"""
_SUBJECTS: Final = """
SELECT m.id, s.id, s.is_reachable, s.created_at, s.untagged_at, s.last_pulled_at, s.restored_at
FROM catalog_manifest m
JOIN catalog_manifest s ON s.image_id = m.image_id AND s.digest = m.subject_digest
WHERE m.id IN
"""
_REFERRERS: Final = """
SELECT r.manifest_id FROM catalog_manifest s
JOIN catalog_referrer r ON r.image_id = s.image_id AND r.subject_digest = s.digest
JOIN catalog_manifest m ON m.id = r.manifest_id AND NOT m.is_reachable
WHERE s.id IN {ids} AND r.manifest_id > %s ORDER BY r.manifest_id LIMIT %s
"""
# What an entry of the recycle bin needs that stays longer than one of this moment would: the children and
# referrers of its manifest, and the manifest of its tag.
_OUTLIVES: Final = """
SELECT id FROM namespaces_recyclebinentry WHERE expires_at > statement_timestamp() + %s LIMIT 1
"""
_NEEDED: Final = """
SELECT c.child_id FROM catalog_manifestchild c
JOIN catalog_manifest p ON p.id = c.parent_id
JOIN namespaces_recyclebinentry e ON e.row_id = p.image_id
WHERE e.expires_at > statement_timestamp() + %s AND c.child_id IN {ids}
UNION
SELECT m.id FROM namespaces_recyclebinentry e
JOIN catalog_manifest m ON m.image_id = e.image_id AND m.digest = e.digest
WHERE e.kind = 'tag' AND e.expires_at > statement_timestamp() + %s AND m.id IN {ids}
UNION
SELECT m.id FROM namespaces_recyclebinentry e
JOIN catalog_manifest m ON m.image_id = e.image_id AND m.subject_digest = e.digest
WHERE e.kind = 'manifest' AND e.expires_at > statement_timestamp() + %s AND m.id IN {ids}
"""
_AT_ONCE: Final = 500  # ids in one statement


class ImageRow(NamedTuple):
    """An image of a namespace to which something was pushed."""

    id: UUID
    name: str
    status: str
    is_stale: bool  # the worker has not evaluated yet what its tags reach
    restored_at: datetime | None = None  # when it left the recycle bin last


@dataclass(frozen=True, slots=True)
class TagRow:
    """A tag with its facts."""

    id: UUID
    manifest_id: int
    tag: Tag


@dataclass(frozen=True, slots=True)
class Days:
    """How long untagged manifests of an image are kept, and the times that decide."""

    untagged: int
    times: Times


class Position(NamedTuple):
    """A position in the list of the untagged manifests of an image, the oldest first."""

    created_at: datetime
    id: int


BEGIN: Final = Position(datetime(1970, 1, 1, tzinfo=UTC), 0)


def times_of(namespace: Namespace, restored_at: datetime | None, *, now: datetime) -> Times:
    """The times of an image that was restored then, for decisions at a moment of the database's clock."""
    found = [each for each in (namespace.restored_at, restored_at) if each is not None]
    return Times(
        now=now,
        pulls_since=namespace.pulls_recorded_from,
        restored_at=max(found, default=None),
        restored_stays=settings.RECYCLE_BIN,
    )


def images_of(namespace_id: UUID, *, after: str = "") -> Iterator[ImageRow]:
    """The images of a namespace in the order of their names, after a name."""
    while found := rows(_IMAGES, [id_parameter(namespace_id), after, PAGE]):
        for image_id, name, status, is_stale, restored_at in found:
            restored = optional_time(restored_at)
            yield ImageRow(uuid_from_db(image_id), name, status, bool(is_stale), restored)
        after = found[-1][1]


def tag_pages(image_id: UUID, *, after: str = "") -> Iterator[list[TagRow]]:
    """The tags of an image in the order of their names, after a name."""
    while found := rows(_TAGS, [id_parameter(image_id), after, PAGE]):
        page = list(map(_tag_row, found))
        yield page
        after = page[-1].tag.name


def newest_tags(image_id: UUID, rules: ImageRules) -> dict[int, frozenset[str]]:
    """The names of the newest tags that each rule keeps by their number."""
    newest = Newest(rules.limits())
    if rules.limits():
        for page in tag_pages(image_id):
            for row in page:
                newest.add(rules.rule_for(row.tag.name), row.tag)
    return newest.chosen()


def decide(rules: ImageRules, row: TagRow, newest: Mapping[int, frozenset[str]]) -> Decision:
    """Decide about a tag; `newest` is the result of `newest_tags`."""
    number = rules.rule_for(row.tag.name)
    is_newest = number is not None and row.tag.name in newest.get(number, ())
    return rules.decide(row.tag, number=number, is_newest=is_newest)


def tags_by_id(ids: Sequence[UUID]) -> list[TagRow]:
    """The tags of these ids that still exist."""
    wanted = [id_parameter(tag_id) for tag_id in ids]
    return (
        [_tag_row(each) for each in rows(f"{_TAGS_BY_ID} {placeholders(wanted)}", wanted)] if wanted else []
    )


def have_all(image_id: UUID, names: Collection[str]) -> bool:
    """Whether an image still has all tags of these names."""
    wanted, image = sorted(names), id_parameter(image_id)
    for part in batches(wanted, _AT_ONCE):
        ((number,),) = rows(f"{_NAMED} {placeholders(part)}", [image, *part])
        if number < len(part):
            return False
    return True


def digests_of(manifest_ids: Collection[int]) -> dict[int, str]:
    """The digests of manifests by their ids."""
    found: dict[int, str] = {}
    for part in batches(sorted(manifest_ids), _AT_ONCE):
        found |= dict[int, str](rows(f"{_DIGESTS} {placeholders(part)}", part))
    return found


def untagged_pages(image_id: UUID, *, after: Position = BEGIN) -> Iterator[tuple[list[int], Position]]:
    """The ids of the manifests of an image that no tag reaches, with the position after each page."""
    while found := rows(
        _UNTAGGED, [id_parameter(image_id), time_parameter(after.created_at), after.id, _AT_ONCE]
    ):
        last_id, last_created_at = found[-1]
        after = Position(time_from_db(last_created_at), last_id)
        yield [id_ for id_, _ in found], after


def doomed(ids: Collection[int], days: Days) -> list[int]:
    """Those of the manifests that go now, in ascending order.

    Loads them with all indexes and subjects from which they can be reached. If the recycle bin was turned
    off or its time was shortened, what is in it keeps what it would have to be restored with.
    """
    facts, waiting, needed = dict[int, _Facts](), set(ids), set[int]()
    is_shorter = bool(rows(_OUTLIVES, [interval_parameter(settings.RECYCLE_BIN)]))
    parents, subjects = dict[int, list[int]](), dict[int, int]()
    _add(facts, _select(_BY_ID, waiting))
    while waiting:
        level = []
        for *found, is_beside in _select(_PARENTS, waiting):
            if is_beside:
                level.append(tuple(found))
                parents.setdefault(found[0], []).append(found[1])
        if is_shorter:
            needed |= _needed_by_bin(waiting)
        of_subjects = _select(_SUBJECTS, waiting)
        subjects |= {each[0]: each[1] for each in of_subjects}
        waiting = {each[1] for each in (*level, *of_subjects)} - facts.keys()
        _add(facts, [*level, *of_subjects])
    going = removable(
        {
            id_: Untagged(
                is_kept=each.is_reachable or id_ in needed or days.times.is_held(each.restored(days.times)),
                is_over=is_over(each.used_at(days.times), days.untagged, days.times.now),
                parents=tuple(parents.get(id_, ())),
                subject=subjects.get(id_),
            )
            for id_, each in facts.items()
        }
    )
    return sorted(going.intersection(ids))


def _needed_by_bin(ids: Collection[int]) -> set[int]:
    """Those of the manifests that must go later than an entry of the recycle bin."""
    period, found = interval_parameter(settings.RECYCLE_BIN), set[int]()
    for part in batches(sorted(ids), _AT_ONCE):
        sql = _NEEDED.replace("{ids}", placeholders(part))
        found |= {id_ for (id_,) in rows(sql, [period, *part, period, *part, period, *part])}
    return found


def required_before(ids: Collection[int], days: Days, *, known: set[int], limit: int) -> set[int]:
    """What must not go later than these manifests: the indexes that list them, and their referrers that go.

    Without those that are known; if they are more than `limit`, some of them, but more than `limit`.
    """
    found = {parent for _, parent, *_, is_beside in _select(_PARENTS, ids) if is_beside} - known
    for part in batches(sorted(ids), _AT_ONCE):
        after = 0
        while page := rows(_REFERRERS.replace("{ids}", placeholders(part)), [*part, after, _AT_ONCE]):
            found |= set(doomed([id_ for (id_,) in page], days)) - known
            if len(found) > limit:
                return found
            ((after,),) = page[-1:]
    return found


class _Facts(NamedTuple):
    is_reachable: bool
    created_at: datetime
    untagged_at: datetime | None
    pulled_at: datetime | None
    restored_at: datetime | None

    def restored(self, times: Times) -> datetime | None:
        return times.restored(self.created_at, self.restored_at)

    def used_at(self, times: Times) -> datetime:
        known = (self.created_at, self.untagged_at, self.restored(times))
        since = max(each for each in known if each is not None)
        return last_use(since, self.pulled_at, pulls_since=times.pulls_since)


def _add(facts: dict[int, _Facts], found: Collection[tuple[Any, ...]]) -> None:
    for _, id_, is_reachable, created_at, *others in found:
        times = [optional_time(each) for each in others]
        facts[id_] = _Facts(bool(is_reachable), time_from_db(created_at), *times)


def _select(sql: str, ids: Collection[int]) -> list[tuple[Any, ...]]:
    parts = batches(sorted(ids), _AT_ONCE)
    return [each for part in parts for each in rows(f"{sql} {placeholders(part)}", part)]


def _tag_row(found: tuple[Any, ...]) -> TagRow:
    tag_id, name, manifest_id, tagged_at, *others = found
    times = [optional_time(each) for each in others]
    return TagRow(uuid_from_db(tag_id), manifest_id, Tag(name, time_from_db(tagged_at), *times))
