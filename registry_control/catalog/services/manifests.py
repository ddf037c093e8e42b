"""Putting and deleting manifests: what an image holds changes here and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet, Sum

from registry_control.audit.services import Actor, record
from registry_control.catalog.errors import ManifestNotFound, MissingContent, StoredAsAnotherType
from registry_control.catalog.models import Blob, BlobLink, Image, Manifest
from registry_control.catalog.services import blobs, conditions, images, sparse, tags
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
# Not EXISTS: PostgreSQL might gather all links of the image for it, of which there may be a million.
_LINKED: Final = """
(SELECT k.id FROM catalog_bloblink k WHERE k.image_id = %s AND k.blob_id = b.id LIMIT 1) IS NOT NULL
"""
_LEASED: Final = """
(SELECT l.id FROM catalog_bloblease l
 WHERE l.image_id = %s AND l.blob_id = b.id AND l.expires_at > %s LIMIT 1) IS NOT NULL
"""
_INSERT: Final = """
INSERT INTO catalog_manifest (image_id, digest, media_type, artifact_type, subject_digest, payload,
                              size, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
_REFERRER: Final = """
INSERT INTO catalog_referrer (manifest_id, image_id, subject_digest, artifact_type, size, descriptor)
VALUES (%s, %s, %s, %s, %s, %s)
"""
_LINK: Final = "INSERT INTO catalog_bloblink (image_id, manifest_id, blob_id) VALUES"
_ONCE: Final = "ON CONFLICT (manifest_id, blob_id) DO NOTHING"
_CHILD: Final = "INSERT INTO catalog_manifestchild (parent_id, child_id) VALUES"
_PUSHED: Final = """
UPDATE catalog_image SET size = size + %s, tag_rows = tag_rows + %s, pushed_at = %s, updated_at = %s
WHERE id = %s
"""


class _Held(NamedTuple):
    """A held blob that the image has; `linked` when a manifest of it says so already."""

    id: int
    digest: str
    size: int  # bytes
    linked: bool


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
    blobs: Sequence[_Held]
    missing: Mapping[str, str]  # digest to platform


def _create(image: ImageForUpdate, new: NewManifest) -> tuple[int, int]:
    """Returns the manifest's id, and how many bytes the image grew by: blobs that it did not link before."""
    moment = now()
    content = _content(image, new, moment)
    manifest_id = _insert(image.id, new, moment)
    image_id = id_parameter(image.id)
    if new.subject:
        listed = (new.subject, new.artifact_type, len(new.descriptor), new.descriptor)
        execute(_REFERRER, [manifest_id, image_id, *listed])
    insert_many(_LINK, ([image_id, manifest_id, blob.id] for blob in content.blobs))
    insert_many(_CHILD, ([manifest_id, child] for child in content.children))
    sparse.record_missing_children(image.id, manifest_id, content.missing)
    sparse.adopt(image.id, manifest_id, new.digest)
    return manifest_id, sum(blob.size for blob in content.blobs if not blob.linked)


def _take_in(image: ImageForUpdate, manifest_id: int, digests: Iterable[str]) -> int:
    """Link what has come since the manifest was pushed first and could do without it; returns its bytes."""
    held = _take(image.id, sorted(digests), now())
    image_id = id_parameter(image.id)
    insert_many(_LINK, ([image_id, manifest_id, blob.id] for blob in held), conflict=_ONCE)
    return sum(blob.size for blob in held if not blob.linked)


def _content(image: ImageForUpdate, new: NewManifest, moment: datetime) -> _Content:
    """Find and hold everything that a manifest names.

    Raises:
        MissingContent: what is not there and cannot be done without.
    """
    children = _locked_children(image.id, new.children)
    # A blob with the digest of a child that is a manifest by its type could not be pulled as one (OCI 104).
    missing_manifests = new.platforms.keys() - children.keys()
    needed = new.blobs | (new.children - children.keys() - missing_manifests)
    held = _take(image.id, sorted(needed | new.optional_blobs), moment)
    missing = sorted(missing_manifests | (needed - {blob.digest for blob in held}))
    dispensable = new.platforms if image.accepts_sparse_indexes else {}
    if refused := [digest for digest in missing if digest not in dispensable]:
        raise MissingContent({digest: new.platforms.get(digest, "") for digest in refused})
    return _Content(list(children.values()), held, {digest: new.platforms[digest] for digest in missing})


def _locked_children(image_id: UUID, digests: frozenset[str]) -> dict[str, int]:
    """Manifests of the image by digest, with their ids."""
    if not digests:
        return {}
    wanted = sorted(digests)
    sql = f"{_CHILDREN} {placeholders(wanted)} ORDER BY digest FOR UPDATE"
    return dict(rows(sql, [id_parameter(image_id), *wanted]))


def _take(image_id: UUID, digests: Sequence[str], moment: datetime) -> list[_Held]:
    """Hold the live blobs that the image has, beside others who need them, in digest order (invariant 11)."""
    if not digests:
        return []
    image = id_parameter(image_id)
    # Nothing but placeholders is put together.
    sql = f"""
        SELECT b.id, b.digest, b.size, {_LINKED} FROM catalog_blob b
        WHERE b.digest IN {placeholders(digests)} AND b.state = 'live' AND ({_LINKED} OR {_LEASED})
        ORDER BY b.digest FOR SHARE OF b
    """  # noqa: S608
    return [_Held(*found) for found in rows(sql, [image, *digests, image, image, time_parameter(moment)])]


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
    """Remove a manifest of a locked image. What only it needed stays promised for a lease's time."""
    freed = _only_needed_by(manifest)
    size = freed.aggregate(total=Sum("size"))["total"] or 0
    blobs.lease(freed.order_by("digest").values_list("pk", flat=True), image_id=image.pk)
    tag_names = sorted(manifest.tags.values_list("name", flat=True))
    sparse.orphan(image, manifest)
    _, removed = manifest.delete()
    record_change(image_scope(image.pk))
    tag_rows = F("tag_rows") - removed.get("catalog.Tag", 0)
    Image.objects.filter(pk=image.pk).update(size=F("size") - size, tag_rows=tag_rows, updated_at=now())
    record(
        actor=actor,
        verb="manifest.delete",
        target=images.target_of(image),
        digest=manifest.digest,
        tags=" ".join(tag_names),
    )


def _only_needed_by(manifest: Manifest) -> QuerySet[Blob]:
    others = BlobLink.objects.filter(image=manifest.image_id, blob=OuterRef("pk")).exclude(manifest=manifest)
    return Blob.objects.filter(~Exists(others), links__manifest=manifest)
