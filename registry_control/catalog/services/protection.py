"""Refuses to move or delete protected tags (ADR 62).

The caller has locked the image's row, so that no other transaction changes its tags. The globs are read after
that lock, and their row is shared until the transaction ends: a push that waited sees rules that were stored
meanwhile, and rules are stored when the pushes that have read the old ones have ended.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from registry_control.catalog.errors import ImageNotFound, TagProtected
from registry_control.catalog.models import Image, Manifest
from registry_control.common.clock import database_now
from registry_control.common.models import not_deleting_sql
from registry_control.db.sql import (
    Parameter,
    Rows,
    Statement,
    id_parameter,
    json_from_db,
    placeholders,
    row,
    rows,
    time_from_db,
    uuid_from_db,
)
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.protection import UNPROTECTED, Protection, protection

_TAG: Final = f"""
SELECT statement_timestamp(), t.id, t.manifest_id, COALESCE(t.pushed_at, t.updated_at),
       r.protected_tags, r.protected_except
FROM catalog_image i
LEFT JOIN (
    SELECT s.namespace_id, s.protected_tags, s.protected_except
    FROM namespaces_retention s JOIN catalog_image o ON o.namespace_id = s.namespace_id
    WHERE o.id = %s FOR SHARE OF s
) r ON r.namespace_id = i.namespace_id
LEFT JOIN catalog_tag t ON t.image_id = i.id AND t.name = %s AND {not_deleting_sql("t")}
WHERE i.id = %s
"""
_OF_IMAGE: Final = """
SELECT r.protected_tags, r.protected_except FROM catalog_image i
JOIN namespaces_retention r ON r.namespace_id = i.namespace_id
WHERE i.id = %s FOR SHARE OF r
"""
_OF_NAMESPACE: Final = """
SELECT protected_tags, protected_except FROM namespaces_retention WHERE namespace_id = %s FOR UPDATE
"""
_NAMESPACE_EXISTS: Final = f"""
SELECT n.id FROM catalog_image i JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE i.id = %s AND {not_deleting_sql("n")}
"""
_NAMES_ON: Final = f"""
SELECT name, name FROM catalog_tag
WHERE manifest_id IN {{ids}} AND {not_deleting_sql()} AND name > %s ORDER BY name LIMIT %s
"""
_NAMES_IN: Final = f"""
SELECT name, name FROM catalog_tag
WHERE image_id = %s AND {not_deleting_sql()} AND name > %s ORDER BY name LIMIT %s
"""
_IMAGES: Final = f"""
SELECT id, name FROM catalog_image
WHERE namespace_id = %s AND {not_deleting_sql()} AND name > %s ORDER BY name LIMIT %s
"""
_PAGE: Final = 1000  # names that are read at a time


class ExistingTag(NamedTuple):
    """A tag that is not being deleted."""

    id: UUID | str  # as the database returns it
    manifest_id: int
    pushed_at: datetime  # exact to an hour


class NamedTag(NamedTuple):
    """A name in an image: the tag of that name, if there is one, and what may protect it."""

    existing: ExistingTag | None
    protection: Protection
    read_at: datetime  # by the clock of the database, which all nodes share


def named_tag(image_id: UUID, name: str) -> NamedTag:
    """Find a tag of an image, and share the protection of its namespace."""
    return named(rows(*tag_statement(image_id, name)))


def tag_statement(image_id: UUID, name: str) -> Statement:
    """The statement of `named_tag`, to send it with others; `named` converts its rows."""
    return _TAG, [id_parameter(image_id), name, id_parameter(image_id)]


def named(found: Rows) -> NamedTag:
    """Convert the rows of `tag_statement`."""
    if not found:
        return NamedTag(None, UNPROTECTED, database_now())
    read_at, tag_id, manifest_id, pushed_at, *protected = found[0]
    existing = None if tag_id is None else ExistingTag(tag_id, manifest_id, time_from_db(pushed_at))
    return NamedTag(existing, _protection((*protected,)), time_from_db(read_at))


def check_new_tag(name: str, *, image_id: UUID, by: Protection) -> None:
    """Refuse to create a protected tag in a namespace that was deleted since the push read it.

    The deletion locks the row of the protection that `named_tag` shares: one of both waits for the other.

    Raises:
        ImageNotFound: the namespace was deleted.
    """
    if by.rule_for(name) is not None and row(_NAMESPACE_EXISTS, [id_parameter(image_id)]) is None:
        raise ImageNotFound


def of_image(image_id: UUID) -> Protection:
    """The protection of the tags of an image."""
    return _protection(row(_OF_IMAGE, [id_parameter(image_id)]))


def check_tag(name: str, *, image: str, by: Protection, action: str) -> None:
    """Refuse to change a protected tag.

    Raises:
        TagProtected: it is protected.
    """
    rule = by.rule_for(name)
    if rule is not None:
        raise TagProtected(action, image=image, tag=name, rule=rule)


def check_move(image: Image, name: str, *, to: str) -> None:
    """Refuse to let a tag point to another digest, before the content of that one is transferred.

    `set_tag` checks it again under the lock of the image.

    Raises:
        TagProtected: the tag points to another manifest, and the namespace protects it.
    """
    existing, by, _ = named_tag(image.pk, name)
    if existing is not None and not Manifest.objects.filter(pk=existing.manifest_id, digest=to).exists():
        check_tag(name, image=str(image), by=by, action="write")


def check_tags_of_manifests(image: Image, manifest_ids: Sequence[int]) -> None:
    """Refuse to delete manifests of an image to which a protected tag points.

    Raises:
        TagProtected: one of their tags is protected.
    """
    by = of_image(image.pk)
    if by:
        sql = _NAMES_ON.replace("{ids}", placeholders(manifest_ids))
        _check(_names(sql, *manifest_ids), image=str(image), by=by)


def check_tags_of_image(image: Image) -> None:
    """Refuse to delete an image that has a protected tag.

    Raises:
        TagProtected: one of its tags is protected.
    """
    by = of_image(image.pk)
    if by:
        _check(_names(_NAMES_IN, id_parameter(image.pk)), image=str(image), by=by)


def check_tags_of_namespace(namespace: Namespace) -> None:
    """Refuse to delete a namespace of which an image has a protected tag.

    Locks the row of the protection: a push that is creating a protected tag ends before, or finds the
    namespace deleted afterwards.

    Raises:
        TagProtected: a tag is protected.
    """
    by = _protection(row(_OF_NAMESPACE, [id_parameter(namespace.pk)]))
    if not by:
        return
    for image_id, name in _pages(_IMAGES, id_parameter(namespace.pk)):
        names = _names(_NAMES_IN, id_parameter(uuid_from_db(image_id)))
        _check(names, image=f"{namespace.name}/{name}", by=by)


def _check(names: Iterator[str], *, image: str, by: Protection) -> None:
    for name in names:
        check_tag(name, image=image, by=by, action="delete")


def _names(sql: str, *of: Parameter) -> Iterator[str]:
    return (name for _, name in _pages(sql, *of))


def _pages(sql: str, *of: Parameter) -> Iterator[tuple[Any, str]]:
    """All rows of a query of two columns, of which the last is the name that they are ordered by."""
    after = ""
    while found := rows(sql, [*of, after, _PAGE]):
        yield from ((each[0], each[1]) for each in found)
        if len(found) < _PAGE:
            return
        after = found[-1][1]


def _protection(globs: tuple[Any, ...] | None) -> Protection:
    if globs is None or globs[0] is None:
        return UNPROTECTED
    tags, exceptions = (json_from_db(each) for each in globs)
    return protection(tuple(tags), tuple(exceptions))
