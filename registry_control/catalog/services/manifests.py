"""Putting and deleting manifests: what an image holds changes here and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import F

from registry_control.audit.services import Actor, record
from registry_control.catalog import references
from registry_control.catalog.errors import ManifestNotFound, MissingContent, StoredAsAnotherType
from registry_control.catalog.models import Image, Manifest
from registry_control.catalog.references import Cause, SharedBlob
from registry_control.catalog.services import conditions, images, sparse, tags
from registry_control.catalog.services.images import ImageForUpdate
from registry_control.catalog.services.tags import Change
from registry_control.common.changes import image_scope, record_change, repositories_scope
from registry_control.common.clock import now
from registry_control.db.sql import (
    execute,
    id_parameter,
    insert_many,
    placeholders,
    row,
    rows,
    time_parameter,
)
from registry_data.oci.preconditions import Preconditions


@dataclass(frozen=True, slots=True)
class NewManifest:
    """A manifest as pushed and as read. `children` may be manifests or, from BuildKit, blobs.

    `optional_blobs` need not be there; those that are belong to it as well (checklist 98).

    `platforms` are those children which by their type are manifests, each with its platform, "" for none.
    """

    digest: str
    media_type: str
    payload: bytes
    blobs: frozenset[str]
    children: frozenset[str]
    subject: str
    artifact_type: str
    descriptor: bytes  # as the referrers of its subject are listed; empty without a subject
    platforms: Mapping[str, str] = field(default_factory=dict)
    optional_blobs: frozenset[str] = frozenset()


_BY_DIGEST: Final = "SELECT id, media_type FROM catalog_manifest WHERE image_id = %s AND digest = %s"
_CHILDREN: Final = "SELECT digest, id FROM catalog_manifest WHERE image_id = %s AND digest IN"
_INSERT: Final = """
INSERT INTO catalog_manifest (image_id, digest, media_type, artifact_type, subject_digest, payload,
                              size, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
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
_PUSHED: Final = """
UPDATE catalog_image SET size = size + %s, tag_rows = tag_rows + %s, pushed_at = %s, updated_at = %s
WHERE id = %s
"""


@transaction.atomic
def put(
    *,
    actor: Actor,
    image_id: UUID,
    new: NewManifest,
    tag_names: Sequence[str],
    only_if: Preconditions | None = None,
) -> None:
    """Validate, store, link and tag in one transaction (invariant 3); again is the same answer.

    Raises:
        ImageNotFound, ImageReadOnly: the image or its namespace is being deleted, or is locked.
        ConditionUnmet: what the client wants to hold before does not.
        MissingContent: digests that the image does not have.
        StoredAsAnotherType: these bytes are there, and every client would go on getting them as they are.
    """
    image = images.lock_for_update(image_id)
    conditions.check(image_id, only_if)
    found, grown = row(_BY_DIGEST, [id_parameter(image_id), new.digest]), 0
    if found is None:
        manifest_id, grown = _create(image, new)
        record(actor=actor, verb="manifest.push", target=image.target, digest=new.digest)
    else:
        manifest_id, media_type = found
        if media_type != new.media_type:
            raise StoredAsAnotherType(media_type)
        grown = _take_in(image, manifest_id, new.optional_blobs)
    changes = [tags.set_tag(image, name, manifest_id, new.digest, actor=actor) for name in tag_names]
    if found is None or set(changes) - {Change.NONE}:
        record_change(image_scope(image_id))
    if not image.was_pushed:
        record_change(repositories_scope(image.organization_id))
    if set(changes) - {Change.NONE} or grown or not image.was_pushed:
        moment = time_parameter(now())
        execute(_PUSHED, [grown, changes.count(Change.CREATED), moment, moment, id_parameter(image_id)])


@dataclass(frozen=True, slots=True)
class _Content:
    """What a manifest names: rows that are held, and manifests that a sparse index does without."""

    children: Sequence[int]
    blobs: Sequence[SharedBlob]
    missing: Mapping[str, str]  # digest to platform


def _create(image: ImageForUpdate, new: NewManifest) -> tuple[int, int]:
    """Returns the manifest's id, and how many bytes the image grew by: blobs that it did not link before."""
    moment = now()
    content = _content(image, new)
    manifest_id = _insert(image.id, new, moment)
    if new.subject:
        listed = (new.subject, new.artifact_type, len(new.descriptor), new.descriptor)
        execute(_REFERRER, [manifest_id, id_parameter(image.id), *listed])
    references.link((blob.id for blob in content.blobs), image_id=image.id, manifest_id=manifest_id)
    insert_many(_CHILD, ([manifest_id, child] for child in content.children))
    sparse.record_missing_children(image.id, manifest_id, content.missing)
    sparse.adopt(image.id, manifest_id, new.digest)
    return manifest_id, sum(blob.size for blob in content.blobs if not blob.linked)


def _take_in(image: ImageForUpdate, manifest_id: int, digests: Iterable[str]) -> int:
    """Link what has come since the manifest was pushed first and could do without it; returns its bytes."""
    shared = references.share_blobs(sorted(digests), image_id=image.id)
    references.link((blob.id for blob in shared), image_id=image.id, manifest_id=manifest_id)
    return sum(blob.size for blob in shared if not blob.linked)


def _content(image: ImageForUpdate, new: NewManifest) -> _Content:
    """Find and hold everything that a manifest names.

    Raises:
        MissingContent: what is not there and cannot be done without.
    """
    children = _locked_children(image.id, new.children)
    # A blob with the digest of a child that is a manifest by its type could not be pulled as one (OCI 104).
    missing_manifests = new.platforms.keys() - children.keys()
    needed = new.blobs | (new.children - children.keys() - missing_manifests)
    shared = references.share_blobs(sorted(needed | new.optional_blobs), image_id=image.id)
    missing = sorted(missing_manifests | (needed - {blob.digest for blob in shared}))
    dispensable = new.platforms if image.accepts_sparse_indexes else {}
    if refused := [digest for digest in missing if digest not in dispensable]:
        raise MissingContent({digest: new.platforms.get(digest, "") for digest in refused})
    return _Content(list(children.values()), shared, {digest: new.platforms[digest] for digest in missing})


def _locked_children(image_id: UUID, digests: frozenset[str]) -> dict[str, int]:
    """Manifests of the image by digest, with their ids."""
    if not digests:
        return {}
    wanted = sorted(digests)
    sql = f"{_CHILDREN} {placeholders(wanted)} ORDER BY digest FOR UPDATE"
    return dict(rows(sql, [id_parameter(image_id), *wanted]))


def _insert(image_id: UUID, new: NewManifest, moment: datetime) -> int:
    inserted = row(
        _INSERT,
        [
            id_parameter(image_id),
            new.digest,
            new.media_type,
            new.artifact_type,
            new.subject,
            new.payload,
            len(new.payload),
            time_parameter(moment),
        ],
    )
    if inserted is None:
        raise RuntimeError("an INSERT returned no row")
    return int(inserted[0])


@transaction.atomic
def delete(*, actor: Actor, image_id: UUID, digest: str, only_if: Preconditions | None = None) -> None:
    """Delete a manifest and every tag on it (checklist 135).

    Raises:
        ImageNotFound, ManifestNotFound: there is none.
        ImageReadOnly: an administrator wants it to stay.
        ConditionUnmet: what the client wants to hold before does not.
    """
    image = images.get_for_update(image_id)
    manifest = Manifest.objects.select_for_update().filter(image=image, digest=digest).first()
    if manifest is None:
        raise ManifestNotFound
    conditions.check(image_id, only_if)
    delete_locked(image, manifest, actor=actor)


def delete_locked(image: Image, manifest: Manifest, *, actor: Actor) -> None:
    """Delete a manifest of a locked image with its tags.

    Blobs that only this manifest links stay leased to the image, so that a client may push it again.
    """
    own = references.linked_only_by(manifest.pk)
    references.lease((blob.id for blob in own), image_id=image.pk)
    sparse.orphan(image, manifest)
    tag_names = delete_rows([manifest.pk], cause=Cause.MANIFEST_DELETED)
    record_change(image_scope(image.pk))
    Image.objects.filter(pk=image.pk).update(
        size=F("size") - sum(blob.size for blob in own),
        tag_rows=F("tag_rows") - len(tag_names),
        updated_at=now(),
    )
    record(
        actor=actor,
        verb="manifest.delete",
        target=images.target_of(image),
        digest=manifest.digest,
        tags=" ".join(sorted(tag_names)),
    )


def delete_rows(manifest_ids: Sequence[int], *, cause: Cause) -> list[str]:
    """Delete manifests of a locked image and all that depends on them; returns the names of their tags."""
    which = placeholders(manifest_ids)
    references.release_links(manifest_ids, cause=cause)
    tag_names = [name for (name,) in rows(f"{_DELETE_TAGS} {which} RETURNING name", manifest_ids)]
    for statement in (_DELETE_CHILDREN, _DELETE_PARENTS, _DELETE_REFERRERS, _DELETE_MISSING, _DELETE):
        execute(f"{statement} {which}", manifest_ids)
    return tag_names
