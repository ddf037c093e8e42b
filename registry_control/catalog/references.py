"""The only place where a blob gains or loses a reference.

A reference is a link (a manifest of an image lists the blob) or a lease (the registry has promised the blob
to an image until a time, invariant 2). A blob without references is garbage. Functions that end references
insert the blobs into the review queue of garbage collection in the same transaction (ADR 52): a live blob
always has a link, a lease or a row in that queue. They insert them whether or not other references are left,
because another transaction may be ending these at the same time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Final, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import transaction

from registry_control.catalog.models import live_sql
from registry_control.catalog.selectors.resolve import ANSWER_TIME
from registry_control.common.clock import database_now
from registry_control.db.sql import (
    Parameter,
    Rows,
    Statement,
    execute,
    id_parameter,
    insert_many,
    interval_parameter,
    placeholders,
    row,
    rows,
    rows_of_each,
    time_from_db,
    time_parameter,
    uuid_from_db,
)

_LINK: Final = "INSERT INTO catalog_bloblink (image_id, manifest_id, blob_id, is_reachable) VALUES"
_SKIP_EXISTING: Final = "ON CONFLICT (manifest_id, blob_id) DO NOTHING"
_UNLINK: Final = "DELETE FROM catalog_bloblink WHERE manifest_id IN"
_RETURNING: Final = "RETURNING blob_id, statement_timestamp()"
# Writes only the links whose mark changes: an image may have millions of links.
_COPY_MARKS: Final = """
UPDATE catalog_bloblink SET is_reachable = NOT is_reachable
WHERE image_id = %s AND is_reachable <> (
    SELECT m.is_reachable FROM catalog_manifest m WHERE m.id = catalog_bloblink.manifest_id
)
"""
_MARK: Final = "UPDATE catalog_bloblink SET is_reachable = %s WHERE manifest_id IN"
_MARK_AS_MANIFEST: Final = """
UPDATE catalog_bloblink SET is_reachable = FALSE WHERE manifest_id = %s AND is_reachable AND NOT (
    SELECT m.is_reachable FROM catalog_manifest m WHERE m.id = catalog_bloblink.manifest_id
)
"""
_SUMS: Final = """
SELECT COALESCE(SUM(CASE WHEN linked.reachable > 0 THEN b.size ELSE 0 END), 0),
       COALESCE(SUM(CASE WHEN linked.reachable > 0 THEN 0 ELSE b.size END), 0)
FROM (
    SELECT blob_id, SUM(CASE WHEN is_reachable THEN 1 ELSE 0 END) AS reachable
    FROM catalog_bloblink WHERE image_id = %s GROUP BY blob_id
) linked
JOIN catalog_blob b ON b.id = linked.blob_id
"""
_LEASE: Final = "INSERT INTO catalog_bloblease (image_id, blob_id, expires_at) VALUES"
_FROM_NOW: Final = "(%s, %s, statement_timestamp() + %s)"
# Nothing shortens what was promised before: no slow clock, no lower `REGISTRY_LEASE`, no HEAD of a blob that
# replication has leased for a day.
_RENEW: Final = """
ON CONFLICT (image_id, blob_id) DO UPDATE SET expires_at = excluded.expires_at
WHERE catalog_bloblease.expires_at < excluded.expires_at
"""
_SHORTEN: Final = """
UPDATE catalog_bloblease SET expires_at = statement_timestamp() + %s
WHERE image_id = %s AND expires_at > statement_timestamp() + %s
  AND blob_id IN (SELECT id FROM catalog_blob WHERE digest IN
"""
_SHORTEN_LONGEST: Final = """
UPDATE catalog_bloblease SET expires_at = statement_timestamp() + %s WHERE id IN (
    SELECT id FROM catalog_bloblease WHERE expires_at > statement_timestamp() + %s
    ORDER BY expires_at DESC LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING id
"""
_END_LEASE: Final = """
DELETE FROM catalog_bloblease WHERE image_id = %s AND blob_id = %s
RETURNING blob_id, image_id, expires_at, statement_timestamp()
"""
# SKIP LOCKED: a lease that another transaction renews at this moment stays.
_END_EXPIRED_LEASES: Final = """
WITH expired AS MATERIALIZED (
    SELECT id FROM catalog_bloblease WHERE expires_at <= statement_timestamp()
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
)
DELETE FROM catalog_bloblease WHERE id IN (SELECT id FROM expired)
RETURNING blob_id, image_id, expires_at, statement_timestamp()
"""
_END_LEASES_OF_IMAGE: Final = """
WITH batch AS MATERIALIZED (SELECT id FROM catalog_bloblease WHERE image_id = %s ORDER BY id LIMIT %s)
DELETE FROM catalog_bloblease WHERE id IN (SELECT id FROM batch)
RETURNING blob_id, image_id, expires_at, statement_timestamp()
"""
# Not EXISTS: PostgreSQL might gather all links of the image for it, of which there may be a million.
_LINKED: Final = """
(SELECT k.id FROM catalog_bloblink k WHERE k.image_id = %s AND k.blob_id = b.id LIMIT 1) IS NOT NULL
"""
# NULL if no manifest of the image lists the blob.
_LINKED_REACHABLY: Final = """
(SELECT k.is_reachable FROM catalog_bloblink k WHERE k.image_id = %s AND k.blob_id = b.id
 ORDER BY k.is_reachable DESC LIMIT 1)
"""
_LEASED: Final = """
(SELECT l.id FROM catalog_bloblease l
 WHERE l.image_id = %s AND l.blob_id = b.id AND l.expires_at > statement_timestamp() LIMIT 1) IS NOT NULL
"""
_IS_LINKED: Final = "SELECT 1 FROM catalog_bloblink WHERE image_id = %s AND blob_id = %s LIMIT 1"
# The later end of a reference counts; a queue row never moves to an earlier time.
_REVIEW: Final = """
INSERT INTO catalog_blobreview (blob_id, organization_id, cause, unreferenced_since, attempts, error) VALUES
"""
_REVIEW_LATER: Final = """
ON CONFLICT (blob_id) DO UPDATE SET organization_id = excluded.organization_id, cause = excluded.cause,
                                    unreferenced_since = excluded.unreferenced_since
WHERE catalog_blobreview.unreferenced_since < excluded.unreferenced_since
"""
_ADD_DELETING: Final = """
INSERT INTO catalog_blob (digest, size, storage_key, state, created_at)
VALUES (%s, %s, %s, 'deleting', %s) RETURNING id
"""
_DELETE_NOW: Final = """
INSERT INTO catalog_blobreview (blob_id, cause, unreferenced_since, retry_at, attempts, error)
VALUES (%s, %s, %s, %s, 0, '')
"""
_BROKEN: Final = """
SELECT b.digest FROM catalog_bloblink k JOIN catalog_blob b ON b.id = k.blob_id
WHERE k.manifest_id = %s AND b.state IN ('damaged', 'missing') ORDER BY b.digest
"""
# The first statement runs without a transaction, and finds nothing unless a row was lost.
_FORGOTTEN: Final = """
SELECT b.id, b.state FROM catalog_blob b
WHERE b.id > %s AND b.id <= %s
  AND (SELECT r.blob_id FROM catalog_blobreview r WHERE r.blob_id = b.id) IS NULL
  AND (b.state = 'deleting'
       OR ((SELECT k.id FROM catalog_bloblink k WHERE k.blob_id = b.id LIMIT 1) IS NULL
           AND (SELECT l.id FROM catalog_bloblease l WHERE l.blob_id = b.id LIMIT 1) IS NULL))
"""
_IN_ORDER: Final = "ORDER BY b.digest, b.id FOR UPDATE OF b SKIP LOCKED"
_QUEUE_FORGOTTEN: Final = """
INSERT INTO catalog_blobreview (blob_id, cause, unreferenced_since, retry_at, attempts, error) VALUES
"""
_ORGANIZATIONS: Final = "SELECT id, organization_id FROM catalog_image WHERE id IN"


@unique
class Cause(Enum):
    """Why a blob loses a reference."""

    MANIFEST_DELETED = "manifest deleted"
    IMAGE_DELETED = "image deleted"
    BLOB_DELETED = "blob deleted"
    LEASE_EXPIRED = "lease expired"
    CONTENT_REPLACED = "content replaced"
    FORGOTTEN = "queue row was missing"


class _Release(NamedTuple):
    """A reference that has ended."""

    blob_id: int
    image_id: UUID
    at: datetime  # when the reference ended


class SharedBlob(NamedTuple):
    """A blob that an image references and whose row the transaction shares."""

    id: int
    digest: str
    size: int  # bytes
    is_linked: bool  # by a manifest of the image
    is_reachable: bool  # by one that a tag of the image reaches


def share_blobs(digests: Collection[str], *, image_id: UUID) -> list[SharedBlob]:
    """Lock the live blobs that an image references `FOR SHARE`, in digest order (invariant 11, ADR 30)."""
    return shared(rows(*share_statement(digests, image_id=image_id))) if digests else []


def share_statement(digests: Collection[str], *, image_id: UUID) -> Statement:
    """The statement of `share_blobs` for at least one digest; `shared` converts its rows."""
    image = id_parameter(image_id)
    # Only placeholders and constants are interpolated.
    sql = f"""
        SELECT b.id, b.digest, b.size, {_LINKED_REACHABLY} FROM catalog_blob b
        WHERE b.digest IN {placeholders([*digests])} AND {live_sql("b")} AND ({_LINKED} OR {_LEASED})
        ORDER BY b.digest FOR SHARE OF b
    """  # noqa: S608
    return sql, [image, *digests, image, image]


def shared(found: Rows) -> list[SharedBlob]:
    """Convert the rows of `share_statement`."""
    return [_shared(*each) for each in found]


def kept_only_by(keeper_id: UUID, *, image_id: UUID, manifest_id: int) -> list[SharedBlob]:
    """The blobs that an image row in the recycle bin links, and a manifest of another image does not.

    The links of the locked row keep them until they are linked to the manifest.
    """
    # Only constants are interpolated.
    sql = f"""
        SELECT b.id, b.digest, b.size, {_LINKED_REACHABLY}
        FROM catalog_bloblink k JOIN catalog_blob b ON b.id = k.blob_id
        WHERE k.image_id = %s
            AND NOT EXISTS (SELECT 1 FROM catalog_bloblink o WHERE o.manifest_id = %s AND o.blob_id = b.id)
        ORDER BY b.digest
    """  # noqa: S608
    found = rows(sql, [id_parameter(image_id), id_parameter(keeper_id), manifest_id])
    return [_shared(*each) for each in found]


def _shared(blob_id: int, digest: str, size: int, linked: bool | None) -> SharedBlob:
    return SharedBlob(blob_id, digest, size, linked is not None, bool(linked))


def link(blob_ids: Iterable[int], *, image_id: UUID, manifest_id: int, is_reachable: bool) -> None:
    """Link blobs, whose rows the caller shares, to a manifest; links that exist stay."""
    image = id_parameter(image_id)
    links = ([image, manifest_id, blob_id, is_reachable] for blob_id in blob_ids)
    insert_many(_LINK, links, conflict=_SKIP_EXISTING)


def set_reachable(manifest_ids: Sequence[int], *, image_id: UUID, to: bool) -> dict[int, int]:
    """Mark the links of manifests of a locked image, whether a tag reaches them.

    Returns how many bytes of blobs that makes reachable, or unreachable, that were not so by other links, by
    manifest; a blob of several manifests counts for the first.
    """
    mark = f"{_MARK} {placeholders(manifest_ids)}"
    if not to:
        execute(mark, [to, *manifest_ids])
    found = rows(*_not_reachable_otherwise(manifest_ids, image_id=image_id))
    if to:
        execute(mark, [to, *manifest_ids])
    return _sizes(found)


def set_unreachable(update: Statement, manifest_id: int, *, image_id: UUID) -> int:
    """Run an UPDATE that makes a manifest of a locked image unreachable, or not, and mark its links so then.

    The UPDATE returns a row if it did. Returns how many bytes of blobs are no longer reachable.
    """
    mark = (_MARK_AS_MANIFEST, [manifest_id])
    updated, _, found = rows_of_each(update, mark, _not_reachable_otherwise([manifest_id], image_id=image_id))
    return sum(_sizes(found).values()) if updated else 0


def _not_reachable_otherwise(manifest_ids: Sequence[int], *, image_id: UUID) -> Statement:
    """Sum up the sizes of blobs that manifests list and no reachable link of the image has."""
    which = placeholders(manifest_ids)
    # Only placeholders and constants are interpolated.
    sql = f"""
        SELECT own.manifest_id, SUM(b.size) FROM (
            SELECT blob_id, MIN(manifest_id) AS manifest_id FROM catalog_bloblink
            WHERE manifest_id IN {which} GROUP BY blob_id
        ) own JOIN catalog_blob b ON b.id = own.blob_id
        WHERE (
            SELECT k.id FROM catalog_bloblink k
            WHERE k.image_id = %s AND k.blob_id = own.blob_id AND k.is_reachable LIMIT 1
        ) IS NULL GROUP BY own.manifest_id
    """  # noqa: S608
    return sql, [*manifest_ids, id_parameter(image_id)]


def _sizes(found: Rows) -> dict[int, int]:
    return {manifest_id: int(size) for manifest_id, size in found}


def move_links(to: Mapping[int, UUID]) -> None:
    """Let the links of unreachable manifests belong to other images, as the manifests do."""
    execute(*moving("UPDATE catalog_bloblink SET image_id = moved.image_id, is_reachable = FALSE", to))


def moving(update: str, to: Mapping[int, UUID]) -> Statement:
    """An UPDATE of manifests, or of rows that belong to them, with the images that the manifests move to.

    `update` ends before FROM, and can use `moved.image_id`.
    """
    lists = ", ".join(["(%s, %s)"] * len(to))
    parameters = [each for id_, image_id in to.items() for each in (id_, id_parameter(image_id))]
    sql = f"WITH moved (manifest_id, image_id) AS (VALUES {lists}) {update} FROM moved"
    table = update.split()[1]
    column = "id" if table == "catalog_manifest" else "manifest_id"
    return f"{sql} WHERE {table}.{column} = moved.manifest_id", parameters


class Sizes(NamedTuple):
    """Bytes of the distinct blobs that an image links."""

    reachable: int
    unreachable: int


def recount(image_id: UUID) -> Sizes:
    """Mark all links of a locked image as their manifests are marked, and sum up the sizes."""
    image = id_parameter(image_id)
    execute(_COPY_MARKS, [image])
    found = row(_SUMS, [image])
    return Sizes(*map(int, found)) if found else Sizes(0, 0)


def lease(blob_ids: Iterable[int], *, image_id: UUID, at_least: timedelta | None = None) -> None:
    """Lease blobs to an image for `BLOB_LEASE` or longer, or renew the lease (invariant 2).

    A lease that ends later stays as it is.

    The lease is longer by the time that the response may take.

    The caller has locked the image's row or shares the blobs' rows.
    """
    image = id_parameter(image_id)
    duration = interval_parameter(max(at_least or timedelta(0), settings.BLOB_LEASE + ANSWER_TIME))
    leases = ([image, blob_id, duration] for blob_id in blob_ids)
    insert_many(_LEASE, leases, conflict=_RENEW, values=_FROM_NOW)


def shorten_leases(digests: Collection[str], *, image_id: UUID) -> None:
    """Let leases that are longer than a new one would be end with the time of a new one."""
    if digests:
        end = interval_parameter(settings.BLOB_LEASE + ANSWER_TIME)
        sql = f"{_SHORTEN} {placeholders([*digests])})"
        execute(sql, [end, id_parameter(image_id), end, *digests])


def shorten_longest_leases(*, to: timedelta, tolerance: timedelta, limit: int) -> int:
    """Let leases end that were written while the clock was ahead; returns how many of at most `limit`."""
    ends = [interval_parameter(to), interval_parameter(to + tolerance)]
    return len(rows(_SHORTEN_LONGEST, [*ends, limit]))


def is_linked(blob_id: int, *, image_id: UUID) -> bool:
    """Whether a manifest of the image lists the blob."""
    return row(_IS_LINKED, [id_parameter(image_id), blob_id]) is not None


class OwnBlob(NamedTuple):
    """A blob that only some manifests of an image link; `manifest_id` is the first of them."""

    manifest_id: int
    id: int
    size: int  # bytes


def lists_broken_sql(manifest: str) -> str:
    """Whether a manifest links damaged or missing blobs, on the row of a table that is named by its alias."""
    return f"""(
        SELECT k.id FROM catalog_bloblink k JOIN catalog_blob b ON b.id = k.blob_id
        WHERE k.manifest_id = {manifest}.id AND b.state IN ('damaged', 'missing') LIMIT 1
    ) IS NOT NULL"""  # noqa: S608


def broken_blobs(manifest_id: int) -> list[str]:
    """The digests of the damaged and missing blobs that a manifest links."""
    return [digest for (digest,) in rows(_BROKEN, [manifest_id])]


def linked_only_by(manifest_ids: Sequence[int]) -> list[OwnBlob]:
    """The blobs that manifests of one image link and no other one of it, by digest."""
    which = placeholders(manifest_ids)
    # Only placeholders are interpolated.
    sql = f"""
        SELECT own.manifest_id, b.id, b.size FROM (
            SELECT image_id, blob_id, MIN(manifest_id) AS manifest_id FROM catalog_bloblink
            WHERE manifest_id IN {which} GROUP BY image_id, blob_id
        ) own JOIN catalog_blob b ON b.id = own.blob_id
        WHERE (
            SELECT o.id FROM catalog_bloblink o
            WHERE o.image_id = own.image_id AND o.blob_id = own.blob_id AND o.manifest_id NOT IN {which}
            LIMIT 1
        ) IS NULL
        ORDER BY b.digest
    """  # noqa: S608
    return [OwnBlob(*found) for found in rows(sql, [*manifest_ids, *manifest_ids])]


def release_links(manifest_ids: Collection[int], *, image_id: UUID, cause: Cause) -> None:
    """Delete all links of manifests of an image, whose row the caller has locked."""
    if not manifest_ids:
        return
    found = rows(f"{_UNLINK} {placeholders([*manifest_ids])} {_RETURNING}", [*manifest_ids])
    _queue([_Release(blob_id, image_id, time_from_db(moment)) for blob_id, moment in found], cause)


def release_lease(blob_id: int, *, image_id: UUID, cause: Cause) -> bool:
    """End an image's lease of one blob before it expires; False if there is none."""
    return _end_leases(_END_LEASE, [id_parameter(image_id), blob_id], cause) > 0


def release_leases_of_image(image_id: UUID, *, limit: int) -> int:
    """End up to `limit` leases of an image that is being deleted; returns how many."""
    return _end_leases(_END_LEASES_OF_IMAGE, [id_parameter(image_id), limit], Cause.IMAGE_DELETED)


def release_expired_leases(*, limit: int) -> int:
    """Delete up to `limit` expired leases, the oldest first; returns how many."""
    return _end_leases(_END_EXPIRED_LEASES, [limit], Cause.LEASE_EXPIRED)


def discard_content(digest: str, *, size: int, key: str) -> None:
    """Let garbage collection delete what is left under a storage key that a blob no longer has."""
    moment = time_parameter(database_now())
    for (blob_id,) in rows(_ADD_DELETING, [digest, size, key, moment]):
        execute(_DELETE_NOW, [blob_id, Cause.CONTENT_REPLACED.value, moment, moment])


def queue_forgotten(*, after: int, until: int) -> int:
    """Queue the blobs of a range of ids that have no reference and no row in the queue; returns how many.

    A bug or an administrator may have removed that row. The grace period begins now.
    """
    if not rows(_FORGOTTEN, [after, until]):
        return 0
    with transaction.atomic():
        moment = time_parameter(database_now())
        # Locked, so that no transaction adds a reference or deletes the blob until the row is written.
        found = rows(f"{_FORGOTTEN} {_IN_ORDER}", [after, until])
        entries = [
            [blob_id, Cause.FORGOTTEN.value, moment, moment if state == "deleting" else None, 0, ""]
            for blob_id, state in sorted(found)
        ]
        insert_many(_QUEUE_FORGOTTEN, entries, conflict="ON CONFLICT (blob_id) DO NOTHING")
    return len(found)


def _end_leases(sql: str, parameters: Sequence[Parameter], cause: Cause) -> int:
    # An expired lease ended when it expired, however late the worker deletes it.
    ended = [
        _Release(blob_id, uuid_from_db(image_id), min(time_from_db(expires_at), time_from_db(moment)))
        for blob_id, image_id, expires_at, moment in rows(sql, parameters)
    ]
    _queue(ended, cause)
    return len(ended)


def _queue(releases: Iterable[_Release], cause: Cause) -> None:
    """Insert blobs into the review queue, or move their rows to the time of a later release.

    A transaction calls this once: the rows of one call are locked in the order of their ids, so that
    concurrent transactions cannot deadlock.
    """
    last = {release.blob_id: release for release in sorted(releases, key=lambda each: each.at)}
    if not last:
        return
    organizations = _organizations({release.image_id for release in last.values()})
    entries = [
        [
            blob_id,
            id_parameter(organizations[release.image_id]),
            cause.value,
            time_parameter(release.at),
            0,
            "",
        ]
        for blob_id, release in sorted(last.items())
    ]
    insert_many(_REVIEW, entries, conflict=_REVIEW_LATER)


def _organizations(image_ids: Collection[UUID]) -> dict[UUID, UUID]:
    wanted = [id_parameter(image_id) for image_id in image_ids]
    found = rows(f"{_ORGANIZATIONS} {placeholders(wanted)}", wanted)
    return {uuid_from_db(image_id): uuid_from_db(owner) for image_id, owner in found}
