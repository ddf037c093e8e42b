"""Putting and deleting manifests: what an image holds changes here and nowhere else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, record
from registry_control.catalog.errors import ManifestGone, MissingContent
from registry_control.catalog.models import Blob, BlobLease, BlobLink, Image, Manifest, ManifestChild
from registry_control.catalog.services import blobs, images, tags
from registry_control.common.clock import now


@dataclass(frozen=True, slots=True)
class NewManifest:
    """A manifest as pushed and as read. `children` may be manifests or, from BuildKit, blobs."""

    digest: str
    media_type: str
    payload: bytes
    blobs: frozenset[str]
    children: frozenset[str]
    subject: str
    artifact_type: str
    annotations: dict[str, str]


@transaction.atomic
def put(*, principal: Principal, image_id: UUID, new: NewManifest, tag_names: Sequence[str]) -> None:
    """Validate, store, link and tag in one transaction (invariant 3); again is the same answer.

    Raises:
        ImageGone: the image or its namespace is being deleted.
        MissingContent: digests that the image does not have.
    """
    image = images.locked(image_id)
    actor = actor_of(principal)
    manifest = Manifest.objects.filter(image=image_id, digest=new.digest).first()
    if manifest is None:
        manifest = _create(image, new)
        record(actor=actor, verb="manifest.push", target=images.target_of(image), digest=new.digest)
    changed = [name for name in tag_names if tags.point(image, name, manifest, actor=actor)]
    if changed or image.pushed_at is None:
        Image.objects.filter(pk=image_id).update(pushed_at=now(), updated_at=now())


def _create(image: Image, new: NewManifest) -> Manifest:
    moment = now()
    children = list(
        Manifest.objects.select_for_update().filter(image=image, digest__in=new.children).order_by("digest")
    )
    needed = new.blobs | (new.children - {child.digest for child in children})
    held = _take(image, needed, moment)
    if missing := needed - {blob.digest for blob in held}:
        raise MissingContent(sorted(missing))
    _grow(image, held)
    manifest = Manifest.objects.create(
        image=image,
        digest=new.digest,
        media_type=new.media_type,
        artifact_type=new.artifact_type,
        subject_digest=new.subject,
        annotations=new.annotations,
        payload=new.payload,
        size=len(new.payload),
        created_at=moment,
    )
    BlobLink.objects.bulk_create(BlobLink(image=image, manifest=manifest, blob=blob) for blob in held)
    ManifestChild.objects.bulk_create(ManifestChild(parent=manifest, child=child) for child in children)
    return manifest


def _take(image: Image, digests: Iterable[str], moment: datetime) -> list[Blob]:
    """Lock the live blobs that the image has, in digest order (invariant 11), and touch them."""
    linked = BlobLink.objects.filter(image=image, blob=OuterRef("pk"))
    leased = BlobLease.objects.filter(image=image, blob=OuterRef("pk"), expires_at__gt=moment)
    held = list(
        Blob.objects.select_for_update(of=("self",))
        .filter(Q(Exists(linked)) | Q(Exists(leased)), digest__in=digests, state=Blob.State.LIVE)
        .order_by("digest")
    )
    Blob.objects.filter(pk__in=[blob.pk for blob in held]).update(touched_at=moment)
    return held


def _grow(image: Image, held: Iterable[Blob]) -> None:
    """Count the blobs that the image did not link before. Their rows and the image's are held."""
    sizes = {blob.pk: blob.size for blob in held}
    known = set(BlobLink.objects.filter(image=image, blob__in=sizes).values_list("blob_id", flat=True))
    added = sum(size for pk, size in sizes.items() if pk not in known)
    if added:
        Image.objects.filter(pk=image.pk).update(size=F("size") + added)


@transaction.atomic
def delete(*, principal: Principal, image_id: UUID, digest: str) -> None:
    """Delete a manifest and every tag on it (checklist 135).

    Raises:
        ImageGone, ManifestGone: there is none.
    """
    image = images.locked(image_id)
    manifest = Manifest.objects.select_for_update().filter(image=image, digest=digest).first()
    if manifest is None:
        raise ManifestGone
    drop(image, manifest, actor=actor_of(principal))


def drop(image: Image, manifest: Manifest, *, actor: Actor) -> None:
    """Remove a manifest of a locked image. What only it needed stays promised for a lease's time."""
    freed = _only_needed_by(manifest)
    size = freed.aggregate(total=Sum("size"))["total"] or 0
    blobs.lease(freed.order_by("digest").values_list("pk", flat=True), image_id=image.pk)
    tag_names = sorted(manifest.tags.values_list("name", flat=True))
    manifest.delete()
    Image.objects.filter(pk=image.pk).update(size=F("size") - size, updated_at=now())
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
