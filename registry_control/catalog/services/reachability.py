"""Which manifests of an image its tags reach, and so what the image's `size` counts (ADR 45).

A manifest is reachable when it has a tag, when a reachable index lists it, or when its subject is reachable
(signatures, SBOMs). `size` of the image is the sum of the distinct blobs that reachable manifests link,
`untagged_size` that of all other linked blobs. Both change in the transaction that changes a tag or a
manifest, under the lock of the image's row: only manifests that can be reached from the changed ones are
evaluated again. Where these are too many for a request, the worker recounts the image.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from django.db import OperationalError, transaction
from django.db.models import Case, F, When

from registry_control.catalog import references
from registry_control.catalog.models import Image
from registry_control.common.models import NOT_DELETING, not_deleting_sql
from registry_control.db.sql import Rows, Statement, execute, id_parameter, placeholders, rows

logger = logging.getLogger(__name__)

MAX_AFFECTED: Final = 1000  # manifests that one request evaluates

_MARK_STALE: Final = "UPDATE catalog_image SET size_is_stale = TRUE WHERE id = %s"
_CHILDREN: Final = "SELECT parent_id, child_id FROM catalog_manifestchild WHERE parent_id IN"
_REFERRERS: Final = """
SELECT s.id, r.manifest_id FROM catalog_manifest s
JOIN catalog_referrer r ON r.image_id = s.image_id AND r.subject_digest = s.digest
WHERE s.id IN
"""
_SET_REACHABLE: Final = "UPDATE catalog_manifest SET is_reachable = TRUE, untagged_at = NULL WHERE id IN"
_SET_UNREACHABLE: Final = """
UPDATE catalog_manifest SET is_reachable = FALSE, untagged_at = statement_timestamp() WHERE id IN
"""
# Whether a manifest is tagged, or can be reached from manifests other than some.
_IS_ROOT: Final = f"""
(SELECT t.id FROM catalog_tag t
 WHERE t.manifest_id = {{manifest}}.id AND {not_deleting_sql("t")} LIMIT 1) IS NOT NULL
OR (SELECT c.id FROM catalog_manifestchild c JOIN catalog_manifest p ON p.id = c.parent_id
    WHERE c.child_id = {{manifest}}.id AND p.is_reachable AND p.id NOT IN {{which}} LIMIT 1) IS NOT NULL
OR (SELECT s.id FROM catalog_manifest s
    WHERE s.image_id = {{manifest}}.image_id AND s.digest = {{manifest}}.subject_digest AND s.is_reachable
    AND s.id NOT IN {{which}} LIMIT 1) IS NOT NULL
"""
_LEAVE: Final = f"""
{_SET_UNREACHABLE} (%s) AND is_reachable AND NOT (
    {_IS_ROOT.format(manifest="catalog_manifest", which="(%s)")}
) RETURNING id
"""

# A full recount: all manifests become unreachable, then the tagged ones reachable, then the children and
# referrers of those that have just become reachable, so that each manifest is visited once.
_BATCH: Final = 500  # manifests whose children and referrers one statement marks
_CLEAR: Final = """
UPDATE catalog_manifest SET is_reachable = FALSE, untagged_at = statement_timestamp()
WHERE image_id = %s AND is_reachable
"""
_SET_TAGGED: Final = f"""
UPDATE catalog_manifest SET is_reachable = TRUE, untagged_at = NULL WHERE id IN (
    SELECT manifest_id FROM catalog_tag WHERE image_id = %s AND {not_deleting_sql()}
) RETURNING id
"""
_SET_NEXT: Final = """
UPDATE catalog_manifest SET is_reachable = TRUE, untagged_at = NULL WHERE NOT is_reachable AND id IN
"""
_SET_SIZES: Final = """
UPDATE catalog_image SET size = %s, untagged_size = %s, size_is_stale = FALSE WHERE id = %s
"""


class Edge(NamedTuple):
    """The target is reachable if the source is: a child of an index, or a referrer of a subject."""

    source: int
    target: int


class _State(NamedTuple):
    id: int
    was_reachable: bool
    is_root: bool  # tagged, or reachable from a manifest that is not among the affected ones


@dataclass(frozen=True, slots=True)
class _Affected:
    """The changed manifests with all that can be reached from them."""

    manifests: frozenset[int]
    edges: Sequence[Edge]


class _Bytes(NamedTuple):
    """What an evaluation moved: the bytes of manifests that entered `size`, and of those that left it."""

    entered: dict[int, int]
    left: dict[int, int]


def update(image_id: UUID, changed: Collection[int], *, deleted: Collection[int] = ()) -> int:
    """Evaluate manifests of a locked image again after their tags have changed.

    `deleted` are those of them that the caller is about to delete. Returns how many bytes moved from
    `untagged_size` to `size`, for the caller to write.
    """
    affected = _find_affected(changed)
    if affected is None:
        execute(_MARK_STALE, [id_parameter(image_id)])
        return 0
    moved = _evaluate(image_id, affected, frozenset(deleted))
    return sum(moved.entered.values()) - sum(moved.left.values())


def successors_statement(manifests: Collection[int]) -> Statement:
    """Find the children and referrers of at least one manifest, in rows of `Edge`."""
    which = placeholders([*manifests])
    return f"{_CHILDREN} {which} UNION ALL {_REFERRERS} {which}", [*manifests, *manifests]


def leave(image_id: UUID, untagged: Collection[int], *, successors: Rows | None = None) -> dict[int, int]:
    """Evaluate manifests of a locked image again that have lost tags.

    `successors` are the rows of `successors_statement`, if the caller has read them since the lock.

    Returns how many bytes left `size` with each of them, for the caller to write; what several of them
    reached counts for one. If they are too many for one evaluation, each half is evaluated by itself: while
    the second half is still marked as reachable, what it reaches is so, too.
    """
    affected = _find_affected(untagged, successors)
    if affected is not None and not affected.edges and len(affected.manifests) == 1:
        return _leave_alone(image_id, *affected.manifests)
    if affected is not None:
        return _divide(_evaluate(image_id, affected, frozenset()).left, untagged, affected.edges)
    if len(untagged) == 1:
        execute(_MARK_STALE, [id_parameter(image_id)])
        return {}
    ordered = sorted(untagged)
    middle = len(ordered) // 2
    return leave(image_id, ordered[:middle]) | leave(image_id, ordered[middle:])


def _leave_alone(image_id: UUID, manifest_id: int) -> dict[int, int]:
    """`leave` for a manifest from which no other one can be reached: one round trip."""
    update = (_LEAVE, [manifest_id] * 3)
    return {manifest_id: references.set_unreachable(update, manifest_id, image_id=image_id)}


def _evaluate(image_id: UUID, affected: _Affected, deleted: frozenset[int]) -> _Bytes:
    states = _states(affected.manifests)
    roots = {state.id for state in states if state.is_root} - deleted
    reachable = reach(roots, [edge for edge in affected.edges if edge.target not in deleted])
    before = {state.id for state in states if state.was_reachable}
    return _Bytes(_set(image_id, reachable - before, to=True), _set(image_id, before - reachable, to=False))


def _divide(left: Mapping[int, int], roots: Collection[int], edges: Collection[Edge]) -> dict[int, int]:
    """Assign the bytes of each manifest to the first of the roots that reaches it."""
    remaining, found = dict(left), dict[int, int]()
    for root in sorted(roots):
        if not remaining:
            break
        found[root] = sum(remaining.pop(each, 0) for each in reach([root], edges))
    return found


def changed_sizes(*, size: int, untagged_size: int) -> dict[str, Case]:
    """The values of both columns in an UPDATE of an image that adds these bytes.

    A stale image keeps its values: they may be of an older release, and the recount replaces them.
    """
    return {
        name: Case(When(size_is_stale=True, then=F(name)), default=F(name) + added)
        for name, added in (("size", size), ("untagged_size", untagged_size))
    }


def _find_affected(changed: Collection[int], successors: Rows | None = None) -> _Affected | None:
    """None where they are more than `MAX_AFFECTED`."""
    found, edges, frontier = set(changed), list[Edge](), list(changed)
    while frontier:
        if successors is None:
            successors = rows(*successors_statement(frontier))
        edges += [Edge(*each) for each in successors]
        frontier = sorted({target for _, target in successors} - found)
        successors = None
        found.update(frontier)
        if len(found) > MAX_AFFECTED:
            return None
    return _Affected(frozenset(found), edges)


def _states(manifests: Collection[int]) -> list[_State]:
    which, several = placeholders([*manifests]), [*manifests]
    # Only placeholders and constants are interpolated.
    sql = f"""
        SELECT m.id, m.is_reachable, {_IS_ROOT.format(manifest="m", which=which)}
        FROM catalog_manifest m WHERE m.id IN {which}
    """
    found = rows(sql, [*several, *several, *several])
    return [_State(id_, bool(was_reachable), bool(is_root)) for id_, was_reachable, is_root in found]


def reach(roots: Collection[int], edges: Collection[Edge]) -> set[int]:
    """All that can be reached from the roots, along edges that may form cycles."""
    targets: dict[int, list[int]] = {}
    for edge in edges:
        targets.setdefault(edge.source, []).append(edge.target)
    found, waiting = set(roots), list(roots)
    while waiting:
        new = set(targets.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def _set(image_id: UUID, manifests: Collection[int], *, to: bool) -> dict[int, int]:
    """Mark manifests and their links; returns by how many bytes each of them changes `size`."""
    if not manifests:
        return {}
    which = sorted(manifests)
    execute(f"{_SET_REACHABLE if to else _SET_UNREACHABLE} {placeholders(which)}", which)
    return references.set_reachable(which, image_id=image_id, to=to)


@transaction.atomic
def recount(image_id: UUID) -> None:
    """Evaluate all manifests of an image and write its sizes; nothing happens while it is being deleted."""
    locked = Image.objects.select_for_update().filter(NOT_DELETING, pk=image_id).values_list("pk")
    if not locked.first():
        return
    image = id_parameter(image_id)
    execute(_CLEAR, [image])
    _set_reached([id_ for (id_,) in rows(_SET_TAGGED, [image])])
    sizes = references.recount(image_id)
    execute(_SET_SIZES, [sizes.reachable, sizes.unreachable, image])


def _set_reached(waiting: list[int]) -> None:
    """Mark all that can be reached from manifests that have just been marked; empties the list."""
    while waiting:
        batch = waiting[-_BATCH:]
        del waiting[-_BATCH:]
        which = placeholders(batch)
        # Only placeholders and constants are interpolated.
        sql = f"""
            {_SET_NEXT} (
                SELECT child_id FROM catalog_manifestchild WHERE parent_id IN {which}
                UNION
                SELECT r.manifest_id FROM catalog_manifest s
                JOIN catalog_referrer r ON r.image_id = s.image_id AND r.subject_digest = s.digest
                WHERE s.id IN {which}
            ) RETURNING id
        """
        waiting += [id_ for (id_,) in rows(sql, [*batch, *batch])]


def recount_stale(*, limit: int) -> int:
    """Recount up to `limit` images that a request has left to the worker; returns how many were recounted.

    An image whose recount fails stays stale and does not stop the others. The order starts at a random id,
    so that images whose recount fails every time cannot keep the others out of the batch.
    """
    stale = Image.objects.filter(NOT_DELETING, size_is_stale=True).order_by("pk").values_list("pk", flat=True)
    start = uuid4()
    found = [*stale.filter(pk__gte=start)[:limit], *stale.filter(pk__lt=start)[:limit]][:limit]
    return sum(_try_recount(image_id) for image_id in found)


def _try_recount(image_id: UUID) -> bool:
    """Whether the recount succeeded."""
    try:
        recount(image_id)
    except OperationalError as error:
        logger.warning("image %s was not recounted, left for a later batch: %s", image_id, error)
        return False
    return True
