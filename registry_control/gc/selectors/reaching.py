"""Which tags reach manifests: their own, those of the indexes that list them, and those of their subjects.

All manifests are followed together, a step at a time, so the number of queries does not depend on theirs.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from registry_control.catalog.selectors.listing import newest_tags_on
from registry_control.db.sql import batches, placeholders, rows

MOST_MANIFESTS: Final = 1000  # of one step
_DEEPEST: Final = 5  # steps from a manifest to its tags
_AT_ONCE: Final = 200  # SQLite refuses a UNION ALL of more than 500 queries

_PARENTS: Final = """
SELECT up.child_id, up.parent_id FROM (
    SELECT child_id, parent_id FROM catalog_manifestchild WHERE child_id = %s LIMIT 100
) up
"""
_SUBJECTS: Final = """
SELECT m.id, s.id FROM catalog_manifest m
JOIN catalog_manifest s ON s.image_id = m.image_id AND s.digest = m.subject_digest
WHERE m.id IN
"""

_K = TypeVar("_K")
_V = TypeVar("_V")


class Reached(NamedTuple):
    """The names of the tags that reach each manifest."""

    tags: Mapping[int, Collection[str]]
    is_complete: bool  # False: manifests without tags here may have some, and the others more


def tags_reaching(manifest_ids: Sequence[int], *, enough: int) -> Reached:
    """Find the tags of at most `MOST_MANIFESTS` manifests; ends once there are more than `enough`."""
    names: dict[int, dict[str, None]] = {id_: {} for id_ in manifest_ids}
    level = {id_: {id_} for id_ in manifest_ids}  # manifests of a step, each with those that it keeps
    examined: defaultdict[int, set[int]] = defaultdict(set)
    tags, is_complete = set[tuple[int, str]](), True
    for _ in range(_DEEPEST):
        for id_, name in _tags_on(sorted(level), enough=enough - len(tags)):
            tags.add((id_, name))
            for kept in level[id_]:
                names[kept][name] = None
        if len(tags) > enough:
            return Reached(names, is_complete=False)
        for id_, kept_by_it in level.items():
            examined[id_] |= kept_by_it
        level, is_whole = _above(level, examined)
        is_complete = is_complete and is_whole
        if not level:
            break
    return Reached(names, is_complete)


def in_turn(pairs: Iterable[tuple[_K, _V]]) -> list[tuple[_K, _V]]:
    """The pairs in another order: the first of each key, then the second of each, and so on."""
    count = Counter[_K]()
    ranked = list[tuple[int, tuple[_K, _V]]]()
    for pair in pairs:
        ranked.append((count[pair[0]], pair))
        count[pair[0]] += 1
    return [pair for _, pair in sorted(ranked, key=lambda each: each[0])]


def _tags_on(manifest_ids: Sequence[int], *, enough: int) -> list[tuple[int, str]]:
    """Manifests with the names of their newest tags; of some manifests if that is more than `enough`."""
    found = list[tuple[int, str]]()
    for part in batches(manifest_ids, _AT_ONCE):
        if len(found) > enough:
            break
        found += [(id_, name) for id_, names in newest_tags_on(part).items() for name in names]
    return found


def _above(
    level: Mapping[int, set[int]], examined: Mapping[int, set[int]]
) -> tuple[dict[int, set[int]], bool]:
    """The manifests of the next step, and whether these are all.

    If there are too many, each manifest of this step gets its share of the next one.
    """
    found, is_whole = dict[int, set[int]](), True
    for below, above in in_turn(_links(sorted(level))):
        new = level[below] - examined.get(above, set())
        if above in found:
            found[above] |= new
        elif new and len(found) < MOST_MANIFESTS:
            found[above] = new
        elif new:
            is_whole = False
    return found, is_whole


def _links(manifest_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Manifests with the indexes that list them, and with their subjects."""
    found = list[tuple[int, int]]()
    for part in batches(manifest_ids, _AT_ONCE):
        found += rows(" UNION ALL ".join([_PARENTS] * len(part)), part)
        found += rows(f"{_SUBJECTS} {placeholders(part)}", part)
    return sorted(found)
