"""Moves manifests between an image and the rows that keep them in the recycle bin (ADR 60)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from registry_control.audit.services import Actor, record_many
from registry_control.catalog import references
from registry_control.catalog.models import Image
from registry_control.catalog.services import images, sparse
from registry_control.db.sql import batches, execute, id_parameter, placeholders, rows, uuid_from_db
from registry_control.namespaces.models import RecycleBinEntry

_AT_ONCE: Final = 500  # rows in one statement: PostgreSQL takes 65,535 parameters
_MOVE_MANIFEST: Final = "UPDATE catalog_manifest SET image_id = moved.image_id, is_reachable = FALSE"
_MOVE_REFERRER: Final = "UPDATE catalog_referrer SET image_id = moved.image_id"
# What a rule removed (in `{of}`) with some manifests. CROSS JOIN: SQLite begins with these.
_REMOVED: Final = """
SELECT m.digest, m.id, e.id, e.row_id, e.deleted_at FROM {of}
CROSS JOIN namespaces_recyclebinentry e
CROSS JOIN catalog_manifest m
WHERE e.image_id = %s AND e.kind = 'manifest' AND e.is_by_rule AND m.image_id = e.row_id
AND (SELECT o.id FROM catalog_manifest o WHERE o.image_id = e.image_id AND o.digest = e.digest) IS NULL
"""
_IN_BIN: Final = f"""
{_REMOVED.format(of="catalog_missingchild w")} AND e.digest = w.digest AND w.parent_id IN {{ids}}
UNION ALL
{_REMOVED.format(of="catalog_manifest s")}
AND e.subject_digest = s.digest AND e.subject_digest > '' AND s.id IN {{ids}}
ORDER BY 5, 3
"""


def move(to: Mapping[int, UUID]) -> None:
    """Move unreachable manifests with their links to other image rows; their tags and children stay."""
    execute(*references.moving(_MOVE_MANIFEST, to))
    execute(*references.moving(_MOVE_REFERRER, to))
    references.move_links(to)


class _InBin(NamedTuple):
    """A manifest in the recycle bin."""

    digest: str
    id: int
    entry_id: UUID | str
    keeper_id: UUID | str
    deleted_at: datetime | str  # as the database returns it


def bring_back(image: Image, manifest_id: int, *, actor: Actor) -> list[int]:
    """Move what rules of retention removed with a manifest back to its image; returns the ids.

    That is its children and referrers, theirs too, unless the image has them again. They had no tags. The
    caller has locked the namespace's row. What expires at this moment stays deleted.
    """
    found, level = list[int](), [manifest_id]
    while level:
        level = [each for part in batches(level, _AT_ONCE) for each in _bring_back(image, part, actor)]
        found += level
    return found


def _bring_back(image: Image, manifest_ids: Sequence[int], actor: Actor) -> list[int]:
    which = placeholders(manifest_ids)
    parameters = 2 * [id_parameter(image.pk), *manifest_ids]
    found = [_InBin(*each) for each in rows(_IN_BIN.replace("{ids}", which), parameters)]
    there = _lock_entries(sorted(uuid_from_db(each.entry_id) for each in found))
    latest = {each.digest: each for each in found if uuid_from_db(each.entry_id) in there}
    for part in batches([*latest.items()], _AT_ONCE):
        _move_back(image, dict(part), actor)
    return [each.id for each in latest.values()]


def _move_back(image: Image, latest: Mapping[str, _InBin], actor: Actor) -> None:
    ids = [each.id for each in latest.values()]
    move(dict.fromkeys(ids, image.pk))
    sparse.adopt_all(image.pk, ids)
    entries = [uuid_from_db(each.entry_id) for each in latest.values()]
    RecycleBinEntry.objects.filter(pk__in=entries).delete()
    Image.objects.filter(pk__in=[uuid_from_db(each.keeper_id) for each in latest.values()]).delete()
    target = images.target_of(image)
    details = ((target, {"digest": digest, "tags": ""}) for digest in latest)
    record_many(details, actor=actor, verb="manifest.restore")


def _lock_entries(entry_ids: Sequence[UUID]) -> set[UUID]:
    """Lock entries of the bin, which are sorted; the worker may have taken some out of it since then."""
    found = set[UUID]()
    for part in batches(entry_ids, _AT_ONCE):
        entries = RecycleBinEntry.objects.select_for_update().filter(pk__in=part).order_by("pk")
        found.update(entries.values_list("pk", flat=True))
    return found
