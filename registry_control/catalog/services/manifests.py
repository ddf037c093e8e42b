"""Pushing and deleting manifests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from registry_control.access.policy import Action, Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, Event, record, record_events, record_many
from registry_control.catalog import references
from registry_control.catalog.errors import ManifestNotFound, MissingContent, StoredAsAnotherType
from registry_control.catalog.models import Image, Manifest, MissingChild, Tag
from registry_control.catalog.references import Cause, OwnBlob, SharedBlob
from registry_control.catalog.selectors.listing import get_visible_manifest
from registry_control.catalog.services import (
    conditions,
    images,
    moves,
    protection,
    reachability,
    sparse,
    tags,
)
from registry_control.catalog.services.images import ImageForUpdate
from registry_control.catalog.services.protection import NamedTag
from registry_control.catalog.services.tags import TagChange
from registry_control.common.changes import image_scope, record_change, repositories_scope
from registry_control.common.clock import database_now
from registry_control.common.errors import AlreadyExists, PermissionsDenied
from registry_control.common.models import DELETED, NOT_DELETING, Status
from registry_control.common.signals import content_pushed
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import (
    Rows,
    Statement,
    execute,
    id_parameter,
    insert_many,
    placeholders,
    row,
    rows,
    rows_of_each,
)
from registry_control.namespaces import recycling
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.namespaces.policy import check_deletable
from registry_control.namespaces.selectors import may
from registry_data.oci.preconditions import Preconditions

_NAMED: Final = 10  # tags in an error


@dataclass(frozen=True, slots=True)
class NewManifest:
    """A parsed manifest to push. `children` may be manifests or, from BuildKit, blobs.

    `optional_blobs` may be missing; those that exist are linked (OCI 98).

    `platforms` maps the children whose media type is that of a manifest to their platforms, "" for none.
    """

    digest: str
    media_type: str
    payload: bytes
    blobs: frozenset[str]
    children: frozenset[str]
    subject: str
    artifact_type: str
    descriptor: bytes  # for the referrers list of its subject; empty without a subject
    platforms: Mapping[str, str] = field(default_factory=dict)
    optional_blobs: frozenset[str] = frozenset()


_BY_DIGEST: Final = f"""
SELECT m.id, m.media_type, m.is_reachable, {references.lists_broken_sql("m")} FROM catalog_manifest m
WHERE m.image_id = %s AND m.digest = %s
"""
_CHILDREN: Final = "SELECT digest, id FROM catalog_manifest WHERE image_id = %s AND digest IN"
_INSERT: Final = """
INSERT INTO catalog_manifest (image_id, digest, media_type, artifact_type, subject_digest, payload,
                              size, is_reachable, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, statement_timestamp()) RETURNING id
"""
_PUSHED_AGAIN: Final = """
UPDATE catalog_manifest SET untagged_at = statement_timestamp() WHERE id = %s AND NOT is_reachable
"""
_RELATIVES: Final = """
SELECT 'index', p.id, p.is_reachable FROM catalog_missingchild w
JOIN catalog_manifest p ON p.id = w.parent_id
WHERE w.image_id = %s AND w.digest = %s
UNION ALL
SELECT 'subject', s.id, s.is_reachable FROM catalog_manifest s WHERE s.image_id = %s AND s.digest = %s
UNION ALL
SELECT 'referrer', found.manifest_id, FALSE FROM (
    SELECT r.manifest_id FROM catalog_referrer r WHERE r.image_id = %s AND r.subject_digest = %s LIMIT 1
) found
"""
_REFERRER: Final = """
INSERT INTO catalog_referrer (manifest_id, image_id, subject_digest, artifact_type, size, descriptor)
VALUES (%s, %s, %s, %s, %s, %s)
"""
_CHILD: Final = "INSERT INTO catalog_manifestchild (parent_id, child_id) VALUES"
_DELETE_TAGS: Final = "DELETE FROM catalog_tag WHERE manifest_id IN"
_DELETE_CHILDREN: Final = "DELETE FROM catalog_manifestchild WHERE parent_id IN"
_DELETE_PARENTS: Final = "DELETE FROM catalog_manifestchild WHERE child_id IN"
_DELETE_REFERRERS: Final = "DELETE FROM catalog_referrer WHERE manifest_id IN"
_DELETE_MISSING: Final = "DELETE FROM catalog_missingchild WHERE parent_id IN"
_DELETE: Final = "DELETE FROM catalog_manifest WHERE id IN"
_MOVE_TAGS: Final = "UPDATE catalog_tag SET image_id = moved.image_id"
_TAGS_ON: Final = "SELECT manifest_id, name FROM catalog_tag WHERE manifest_id IN"
_PUSHED: Final = """
UPDATE catalog_image SET size = size + CASE WHEN size_is_stale THEN 0 ELSE %s END,
                         untagged_size = untagged_size + CASE WHEN size_is_stale THEN 0 ELSE %s END,
                         tag_rows = tag_rows + %s,
                         pushed_at = statement_timestamp(), updated_at = statement_timestamp()
WHERE id = %s
"""


class Growth(NamedTuple):
    """The bytes that a manifest's links add to an image."""

    size: int = 0
    untagged_size: int = 0


class _Stored(NamedTuple):
    """A stored manifest and the changes that its push made."""

    id: int
    is_reachable: bool
    changes_others: bool  # a reachable one that other manifests may be reached from
    grown: Growth
    successors: Rows | None = None  # of the manifests that its tags leave


class _Found(NamedTuple):
    """A row of `_BY_DIGEST`: the image has the manifest already."""

    id: int
    media_type: str
    is_reachable: bool
    lists_broken: bool  # blobs that are damaged or missing


class _Relatives(NamedTuple):
    """Existing manifests that reference a new manifest, or that it references as its subject."""

    waiting_indexes: list[int]  # sparse indexes that list it
    is_reached: bool  # by one of these indexes, or by its subject
    has_referrers: bool


@dataclass(frozen=True, slots=True)
class _Content:
    """The content that a manifest references: children, blobs, and manifests that a sparse index may lack."""

    children: Sequence[int]
    blobs: Sequence[SharedBlob]
    missing: Mapping[str, str]  # digest to platform


class _Relative(NamedTuple):
    kind: str
    id: int
    is_reachable: bool


@transaction.atomic
def put(
    *,
    actor: Actor,
    image_id: UUID,
    new: NewManifest,
    tag_names: Sequence[str],
    only_if: Preconditions | None = None,
) -> None:
    """Validate, store, link and tag a manifest in one transaction (invariant 3). Idempotent.

    Raises:
        ImageNotFound: the image or its namespace is deleted or being deleted.
        ImageReadOnly: the image or its namespace is locked by an administrator.
        ConditionUnmet: a precondition of the request does not hold.
        MissingContent: the manifest references digests that the image does not have.
        StoredAsAnotherType: the image has the manifest with another media type, which cannot change.
        TagProtected: a tag points to another manifest, and the namespace protects it.
    """
    locked, found, *tag_rows = rows_of_each(
        images.lock_statement(image_id),
        (_BY_DIGEST, [id_parameter(image_id), new.digest]),
        *(protection.tag_statement(image_id, name) for name in tag_names),
    )
    image = images.locked(image_id, locked)
    conditions.check(image_id, only_if)
    named = {name: protection.named(each) for name, each in zip(tag_names, tag_rows, strict=True)}
    if not found:
        stored = _create(image, new, replaces=[*named.values()])
    else:
        stored = _add_optional_blobs(image, _Found(*found[0]), new)
        if not stored.is_reachable and not tag_names:
            execute(_PUSHED_AGAIN, [stored.id])  # so that it stays until the index that lists it is pushed
    changes = {
        name: tags.set_tag(image, name, stored.id, found=each, actor=actor) for name, each in named.items()
    }
    moved = [name for name, change in changes.items() if change.is_change]
    _record(image, new.digest, is_new=not found, tag_names=moved, actor=actor)
    if not found or moved:
        record_change(image_scope(image_id))
        content_pushed.send(sender=Manifest, image_id=image_id, digest=new.digest, tags=moved)
    if not image.was_pushed:
        record_change(repositories_scope(image.organization_id))
    if not found or moved or stored.grown != Growth() or not image.was_pushed:
        _update_image(image_id, stored, [*changes.values()])


def _record(
    image: ImageForUpdate, digest: str, *, is_new: bool, tag_names: Sequence[str], actor: Actor
) -> None:
    """Record a new manifest and the tags that point to it now."""
    events = [Event("manifest.push", image.target, {"digest": digest})] if is_new else []
    events += [Event("tag.set", image.target, {"tag": name, "digest": digest}) for name in tag_names]
    record_events(events, actor=actor)


def _update_image(image_id: UUID, stored: _Stored, changes: Sequence[TagChange]) -> None:
    """Write what a push has changed: sizes, number of tags, times."""
    left = {change.moved_from for change in changes if change.moved_from is not None}
    if stored.changes_others or (changes and not stored.is_reachable):
        moved = reachability.update(image_id, left | {stored.id})
    elif left:
        moved = -sum(reachability.leave(image_id, left, successors=stored.successors).values())
    else:
        moved = 0
    sizes = (stored.grown.size + moved, stored.grown.untagged_size - moved)
    created = sum(change.is_new for change in changes)
    execute(_PUSHED, [*sizes, created, id_parameter(image_id)])


def _create(image: ImageForUpdate, new: NewManifest, *, replaces: Sequence[NamedTag]) -> _Stored:
    """Insert a manifest; `replaces` are the tags that will point to it."""
    content, relatives = _content(image, new)
    is_reachable = bool(replaces) or relatives.is_reached
    left = {tag.existing.manifest_id for tag in replaces if tag.existing is not None}
    after = [reachability.successors_statement(sorted(left))] if left else []
    inserted, *successors = rows_of_each(_insert(image.id, new, is_reachable=is_reachable), *after)
    manifest_id = int(inserted[0][0])
    if new.subject:
        listed = (new.subject, new.artifact_type, len(new.descriptor), new.descriptor)
        execute(_REFERRER, [manifest_id, id_parameter(image.id), *listed])
    grown = _link(image.id, manifest_id, content.blobs, is_reachable=is_reachable)
    insert_many(_CHILD, ([manifest_id, child] for child in content.children))
    sparse.record_missing_children(image.id, manifest_id, content.missing)
    sparse.adopt(image.id, relatives.waiting_indexes, manifest_id=manifest_id, digest=new.digest)
    has_successors = bool(content.children) or relatives.has_referrers
    changes_others = is_reachable and has_successors
    return _Stored(manifest_id, is_reachable, changes_others, grown, next(iter(successors), None))


def _add_optional_blobs(image: ImageForUpdate, found: _Found, new: NewManifest) -> _Stored:
    """Link optional blobs that have been pushed since the manifest was pushed first.

    Raises:
        StoredAsAnotherType: the image has the manifest with another media type.
        MissingContent: blobs of it are damaged or missing (ADR 64).
    """
    if found.media_type != new.media_type:
        raise StoredAsAnotherType(found.media_type)
    if found.lists_broken:
        needed = new.blobs | new.children
        if broken := [digest for digest in references.broken_blobs(found.id) if digest in needed]:
            raise MissingContent(dict.fromkeys(broken, ""))
    shared = references.share_blobs(sorted(new.optional_blobs), image_id=image.id)
    grown = _link(image.id, found.id, shared, is_reachable=bool(found.is_reachable))
    return _Stored(found.id, bool(found.is_reachable), changes_others=False, grown=grown)


def _link(image_id: UUID, manifest_id: int, blobs: Sequence[SharedBlob], *, is_reachable: bool) -> Growth:
    references.link(
        (blob.id for blob in blobs), image_id=image_id, manifest_id=manifest_id, is_reachable=is_reachable
    )
    if not is_reachable:
        return Growth(untagged_size=sum(blob.size for blob in blobs if not blob.is_linked))
    new = [blob for blob in blobs if not blob.is_reachable]
    return Growth(
        size=sum(blob.size for blob in new),
        untagged_size=-sum(blob.size for blob in new if blob.is_linked),
    )


def _relatives_statement(image_id: UUID, new: NewManifest) -> Statement:
    image = id_parameter(image_id)
    return _RELATIVES, [image, new.digest, image, new.subject, image, new.digest]


def _relatives(rows_found: Rows) -> _Relatives:
    found = [_Relative(*each) for each in rows_found]
    return _Relatives(
        waiting_indexes=[each.id for each in found if each.kind == "index"],
        is_reached=any(each.is_reachable for each in found if each.kind != "referrer"),
        has_referrers=any(each.kind == "referrer" for each in found),
    )


def _content(image: ImageForUpdate, new: NewManifest) -> tuple[_Content, _Relatives]:
    """Find all content that a manifest references, share the rows of its blobs, and find its relatives.

    Raises:
        MissingContent: the image lacks content that is not optional.
    """
    children = _children(image.id, new.children)
    # A blob with the digest of a child that is a manifest by its type could not be pulled as one (OCI 104).
    missing_manifests = new.platforms.keys() - children.keys()
    needed = new.blobs | (new.children - children.keys() - missing_manifests)
    wanted = sorted(needed | new.optional_blobs)
    share = [references.share_statement(wanted, image_id=image.id)] if wanted else []
    related, *found = rows_of_each(_relatives_statement(image.id, new), *share)
    shared = references.shared([each for shared_rows in found for each in shared_rows])
    missing = sorted(missing_manifests | (needed - {blob.digest for blob in shared}))
    dispensable = new.platforms if image.accepts_sparse_indexes else {}
    if refused := [digest for digest in missing if digest not in dispensable]:
        raise MissingContent({digest: new.platforms.get(digest, "") for digest in refused})
    listed = {digest: new.platforms[digest] for digest in missing}
    return _Content(list(children.values()), shared, listed), _relatives(related)


def _children(image_id: UUID, digests: frozenset[str]) -> dict[str, int]:
    """The ids of manifests of a locked image by their digests.

    Their rows need no lock: who deletes a manifest has locked its image's row before (invariant 11).
    """
    if not digests:
        return {}
    wanted = sorted(digests)
    return dict(rows(f"{_CHILDREN} {placeholders(wanted)}", [id_parameter(image_id), *wanted]))


def _insert(image_id: UUID, new: NewManifest, *, is_reachable: bool) -> Statement:
    return (
        _INSERT,
        [
            id_parameter(image_id),
            new.digest,
            new.media_type,
            new.artifact_type,
            new.subject,
            new.payload,
            len(new.payload),
            is_reachable,
        ],
    )


@transaction.atomic
def delete(*, actor: Actor, image_id: UUID, digest: str, only_if: Preconditions | None = None) -> None:
    """Delete a manifest and every tag on it (OCI 135).

    Raises:
        ImageNotFound, ManifestNotFound: there is no such image or manifest.
        ImageReadOnly: the image or its namespace is locked by an administrator.
        ConditionUnmet: a precondition of the request does not hold.
        TagProtected: the namespace protects a tag on it.
    """
    image = images.get_for_update(image_id)
    manifest = Manifest.objects.select_for_update().filter(image=image, digest=digest).first()
    if manifest is None:
        raise ManifestNotFound
    conditions.check(image_id, only_if)
    delete_locked(image, [manifest], actor=actor)


@transaction.atomic
def delete_visible(*, principal: Principal, manifest_id: UUID) -> Manifest:
    """Delete a manifest that the principal names by its id, with all its tags.

    Raises:
        NotFound: there is no such manifest, or the principal may not know of it.
        PermissionsDenied: the principal may see the manifest and not delete it.
        Locked: the image or its namespace is locked by an administrator.
        TagProtected: the namespace protects a tag on it.
    """
    manifest = get_visible_manifest(principal, manifest_id, lock=True)
    image = manifest.image
    if not may(principal, Action.DELETE, image.namespace):
        raise PermissionsDenied("delete", "registry_manifest")
    check_deletable("namespace", image.namespace_id, image.namespace.status)
    check_deletable("image", image.pk, image.status)
    delete_locked(image, [manifest], actor=actor_of(principal))
    return manifest


def delete_with_tags(manifest: Manifest, *, actor: Actor) -> None:
    """Delete a manifest for an administrator, who has locked its row and that of its image.

    Nothing happens if it has been deleted since the administrator's page was shown.
    """
    if manifest.image.status not in DELETED:
        delete_locked(manifest.image, [manifest], actor=actor)


def delete_locked(image: Image, doomed: Sequence[Manifest], *, actor: Actor) -> None:
    """Delete manifests of a locked image with their tags, with as many statements for any number of them.

    The rows of the manifests are locked, or were read since the image is. Blobs that no other manifest links
    stay leased to the image, so that a client may push the manifests again.

    Raises:
        TagProtected: the namespace protects one of the tags.
    """
    ids = [manifest.pk for manifest in doomed]
    protection.check_tags_of_manifests(image, ids)
    # What no tag reaches keeps nothing reachable.
    reachable = [manifest.pk for manifest in doomed if manifest.is_reachable]
    moved = reachability.update(image.pk, reachable, deleted=ids) if reachable else 0
    own = references.linked_only_by(ids)
    references.lease((blob.id for blob in own), image_id=image.pk)
    sparse.orphan(image.pk, ids)
    if recycling.is_on():
        tags_on = _by_manifest(rows(f"{_TAGS_ON} {placeholders(ids)}", ids))
        _recycle(image, doomed, tags_on, own, actor=actor)
    else:
        tags_on = delete_rows(ids, image_id=image.pk, cause=Cause.MANIFEST_DELETED)
    record_change(image_scope(image.pk))
    removed = sum(blob.size for blob in own)
    Image.objects.filter(pk=image.pk).update(
        **reachability.changed_sizes(size=moved, untagged_size=-moved - removed),
        tag_rows=F("tag_rows") - sum(map(len, tags_on.values())),
        updated_at=DatabaseNow(),
    )
    target = images.target_of(image)
    details = ({"digest": each.digest, "tags": " ".join(sorted(tags_on.get(each.pk, ())))} for each in doomed)
    record_many(((target, detail) for detail in details), actor=actor, verb="manifest.delete")


def _by_manifest(tags_on: Rows) -> dict[int, list[str]]:
    """The names of tags on manifests, of rows with both."""
    found: dict[int, list[str]] = {}
    for manifest_id, name in tags_on:
        found.setdefault(manifest_id, []).append(name)
    return found


def _recycle(
    image: Image,
    doomed: Sequence[Manifest],
    tags_on: Mapping[int, Sequence[str]],
    own: Sequence[OwnBlob],
    *,
    actor: Actor,
) -> None:
    """Move each manifest with its tags and links to an image row in the recycle bin, which no request finds.

    Rows of its children stay: they follow what happens to the children.
    """
    keepers = {
        manifest.pk: Image(
            namespace=image.namespace,
            organization_id=image.organization_id,
            name=image.name,
            visibility=image.visibility,
            status=Status.RECYCLED,
            origin_id=image.pk,
            tag_rows=len(tags_on.get(manifest.pk, ())),
        )
        for manifest in doomed
    }
    Image.objects.bulk_create(keepers.values())
    execute(f"{_DELETE_PARENTS} {placeholders([*keepers])}", [*keepers])
    to = {manifest_id: keeper.pk for manifest_id, keeper in keepers.items()}
    moves.move(to)
    if tags_on:
        execute(*references.moving(_MOVE_TAGS, to))
    sizes = Counter[int]()
    for blob in own:
        sizes[blob.manifest_id] += blob.size
    entries = [
        recycling.Deleted(
            name=f"{image}@{manifest.digest}",
            object_id=UUID(int=manifest.pk),
            row_id=to[manifest.pk],
            size=sizes[manifest.pk],
            columns={"digest": manifest.digest, "subject_digest": manifest.subject_digest},
        )
        for manifest in doomed
    ]
    kind = RecycleBinEntry.Kind.MANIFEST
    recycling.keep(kind, entries, namespace=image.namespace, image_id=image.pk, actor=actor)


def restore(image: Image, keeper: Image, entry: RecycleBinEntry, *, name: str | None, actor: Actor) -> int:
    """Move a deleted manifest back to its image, with its tags; returns its id.

    Children and referrers that a rule of retention removed come back with it.

    If the manifest was pushed again meanwhile, that one gets the tags. `name` is a tag for it: the new name
    of its tag that another manifest has meanwhile, or a further one if none or several of them are taken.
    Taken tags that are not renamed stay in the recycle bin, each with an entry of its own. The rows of both
    images and of the entry are locked.

    Raises:
        AlreadyExists: other manifests have some of the tags, and `name` is None or taken as well.
    """
    again = row(_BY_DIGEST, [id_parameter(image.pk), entry.digest])
    linked = _link_kept(image, keeper, _Found(*again)) if again else Growth()
    manifest_id = _Found(*again).id if again else _move_back(image, keeper, entry.digest)
    others = moves.bring_back(image, manifest_id, actor=actor)
    Manifest.objects.filter(pk__in=[manifest_id, *others]).update(restored_at=DatabaseNow())
    new = others if again else [manifest_id, *others]
    grown = sum(blob.size for blob in references.linked_only_by(new)) if new else 0
    restored = _restore_tags(image, keeper, entry, manifest_id=manifest_id, name=name, actor=actor)
    moved = reachability.update(image.pk, [manifest_id, *others])
    Image.objects.filter(pk=image.pk).update(
        **reachability.changed_sizes(
            size=moved + linked.size, untagged_size=grown - moved + linked.untagged_size
        ),
        tag_rows=F("tag_rows") + len(restored),
    )
    record_change(image_scope(image.pk))
    names = " ".join(sorted(restored))
    record(
        actor=actor,
        verb="manifest.restore",
        target=images.target_of(image),
        digest=entry.digest,
        tags=names,
    )
    if again:
        images.mark_deleting(keeper)
    else:
        keeper.delete()
    return manifest_id


def _link_kept(image: Image, keeper: Image, found: _Found) -> Growth:
    """Link what only the deleted manifest had: foreign layers, which the new push may have left out."""
    kept = references.kept_only_by(keeper.pk, image_id=image.pk, manifest_id=found.id)
    return _link(image.pk, found.id, kept, is_reachable=bool(found.is_reachable))


def _move_back(image: Image, keeper: Image, digest: str) -> int:
    manifest_id = Manifest.objects.values_list("pk", flat=True).get(image=keeper, digest=digest)
    moves.move({manifest_id: image.pk})
    awaited = MissingChild.objects.filter(image=image, digest=digest).values_list("parent", flat=True)
    sparse.adopt(image.pk, list(awaited), manifest_id=manifest_id, digest=digest)
    return manifest_id


def _restore_tags(
    image: Image,
    keeper: Image,
    entry: RecycleBinEntry,
    *,
    manifest_id: int,
    name: str | None,
    actor: Actor,
) -> list[str]:
    """Move the tags back that no other manifest has; returns the names of all tags that the image gains."""
    own = Tag.objects.filter(image=keeper)
    names = set(own.values_list("name", flat=True))
    same = Q(name__in=own.values("name")) | Q(name=name or "")
    there = dict(Tag.objects.filter(NOT_DELETING, same, image=image).values_list("name", "manifest"))
    others = {each for each, manifest in there.items() if manifest != manifest_id}
    if name in others:
        raise AlreadyExists("tag", f"{image}:{name}", recycling.TAKEN)
    taken = sorted(others)
    if name is None and taken:
        raise AlreadyExists("tag", f"{image}:{taken[0]}", _taken(taken))
    if name is not None and name not in names | there.keys():
        if len(taken) == 1:
            own.filter(name=taken.pop()).update(name=name)
        else:
            _add_tag(keeper, name, manifest_id, actor)
    tags.leave_in_bin(image, own.filter(name__in=taken), of=entry)
    own.filter(name__in=list(there)).delete()
    restored = list(own.values_list("name", flat=True))
    own.update(image=image, manifest=manifest_id, restored_at=DatabaseNow())
    return restored


def _taken(names: Sequence[str]) -> str:
    """What to do about tags of a manifest that other manifests have."""
    if len(names) == 1:
        return f"another manifest has the tag {names[0]} now: restore it under another name instead"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"other manifests have the tags {', '.join(names[:_NAMED])}{more} now: restore it under another name;"
        " these tags stay in the recycle bin, where each can be restored under another name as well"
    )


def _add_tag(keeper: Image, name: str, manifest_id: int, actor: Actor) -> None:
    moment = database_now()
    Tag.objects.create(
        image=keeper,
        name=name,
        manifest_id=manifest_id,
        created_at=moment,
        updated_at=moment,
        set_by=actor.name,
    )


def delete_rows(manifest_ids: Sequence[int], *, image_id: UUID, cause: Cause) -> dict[int, list[str]]:
    """Delete manifests of a locked image and all that depends on them; returns the names of their tags."""
    which = placeholders(manifest_ids)
    references.release_links(manifest_ids, image_id=image_id, cause=cause)
    tags_on = _by_manifest(rows(f"{_DELETE_TAGS} {which} RETURNING manifest_id, name", manifest_ids))
    statements = (
        _DELETE_CHILDREN,
        _DELETE_PARENTS,
        _DELETE_REFERRERS,
        _DELETE_MISSING,
        _DELETE,
    )
    for statement in statements:
        execute(f"{statement} {which}", manifest_ids)
    return tags_on
