"""Why content is kept, or when it goes, as far as the caller may know."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from django.db.models import BooleanField, ExpressionWrapper, OuterRef, Q, QuerySet, Subquery

from registry_control.access.policy import Principal
from registry_control.access.selectors import operates
from registry_control.catalog.models import BlobLease, BlobLink, Image, Manifest, ManifestChild
from registry_control.catalog.selectors.listing import newest_tags_on
from registry_control.catalog.selectors.recycled import only_recycled, recycled_until
from registry_control.common.models import DELETED, Status
from registry_control.db.sql import rows, uuid_from_db
from registry_control.gc.policy import Action, Rules, Verdict, judge
from registry_control.gc.selectors.candidates import Candidate, by_digest
from registry_control.namespaces.selectors import known_to

OTHERS: Final = "images of others"
_MOST_MANIFESTS: Final = 100  # of one image that are examined
_MOST_IMAGES: Final = 200
_DEEPEST: Final = 5  # levels of indexes and subjects from a manifest to its tags
_BEING_DELETED: Final = (
    "the worker is deleting the images that have it; its grace period begins when it has done that"
)
_NO_BLOB: Final = 0  # an id that no blob has

# Skips from one image to the next in the index, as `holders` of the catalogue does.
_HOLDERS: Final = """
WITH RECURSIVE holder (image_id, number) AS (
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s ORDER BY k.image_id LIMIT 1), 1
    UNION ALL
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s AND k.image_id > h.image_id
            ORDER BY k.image_id LIMIT 1), h.number + 1
    FROM holder h WHERE h.image_id IS NOT NULL AND h.number < %s
)
SELECT h.image_id FROM holder h WHERE h.image_id IS NOT NULL
UNION
SELECT found.image_id FROM (
    SELECT l.image_id FROM catalog_bloblease l WHERE l.blob_id = %s ORDER BY l.expires_at DESC LIMIT %s
) found
"""


class State(StrEnum):
    """States of content, as the API names them."""

    KEPT = "kept"
    RECYCLED = "recycled"
    WAITING = "waiting"
    DELETING = "deleting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of a digest, the references that keep it, and when it goes if nothing changes."""

    digest: str
    state: State
    kept_by: Sequence[str]
    goes_at: datetime | None
    reason: str


class _Holder(NamedTuple):
    """An image that has a blob: by a manifest, by a lease until a time, or by both."""

    image: Image
    is_linked: bool
    leased_until: datetime | None


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: None is the command line of the installation, which may know everything."""

    principal: Principal | None

    @property
    def operates(self) -> bool:
        """Whether the viewer may know the state of content whose images it may not see."""
        return self.principal is None or operates(self.principal)

    def images(self) -> QuerySet[Image]:
        """All images whose names the viewer may know, also those in the recycle bin."""
        found = Image.objects.select_related("namespace__project")
        if self.principal is None:
            return found
        return found.filter(namespace__in=known_to(self.principal).order_by().values("pk"))


def explain(digest: str, *, viewer: Viewer, rules: Rules) -> Explanation:
    """The state of the blobs and manifests of a digest.

    Without a right on an image that has the content, a caller gets the same answer as for content that does
    not exist, unless it operates the installation or an image of its organization had the blob last.
    """
    of_manifest = _explain_manifest(digest, viewer, rules)
    blobs = by_digest(digest)
    knows_all = viewer.operates
    explanations = [_explain_blob(blob, viewer, rules, knows_all=knows_all) for blob in blobs]
    if not blobs:
        _seen(_NO_BLOB, viewer)  # the duration must not show what other tenants have (invariant 9)
    known = next((each for each in explanations if each is not None), None)
    if of_manifest is None:
        reason = "there is no such content, or none that you may know of"
        return known or Explanation(digest, State.UNKNOWN, (), None, reason)
    if known is not None and of_manifest.state is State.KEPT:
        return replace(of_manifest, kept_by=_distinct([*of_manifest.kept_by, *known.kept_by]))
    return of_manifest


def _explain_manifest(digest: str, viewer: Viewer, rules: Rules) -> Explanation | None:
    """The state of the manifests of a digest; None if the viewer may not know of any."""
    found = Manifest.objects.defer("payload").select_related("image__namespace").filter(digest=digest)
    own = found.filter(image__in=viewer.images()).order_by("pk")
    kept = list(_not_in(own, DELETED)[:_MOST_IMAGES])
    if kept:
        kept_by = [reason for manifest in kept for reason in _reached_by(manifest)]
        return Explanation(digest, State.KEPT, _distinct(kept_by), None, "an image has this manifest")
    if viewer.operates and _not_in(found, DELETED).exists():
        return Explanation(digest, State.KEPT, (OTHERS,), None, "an image has this manifest")
    if there := list(_not_in(own, [Status.DELETING])[:_MOST_IMAGES]):
        return _explain_recycled(digest, [manifest.image for manifest in there], rules)
    return Explanation(digest, State.WAITING, (), None, _BEING_DELETED) if own.exists() else None


def _not_in(manifests: QuerySet[Manifest], statuses: Collection[Status]) -> QuerySet[Manifest]:
    """Those whose image and namespace have none of these states; a subquery would scan all images."""
    return manifests.exclude(image__status__in=statuses).exclude(image__namespace__status__in=statuses)


def _explain_recycled(digest: str, images: Sequence[Image], rules: Rules) -> Explanation:
    """The state of a manifest that only images in the recycle bin have."""
    ends = [until for image in images if (until := recycled_until(image)) is not None]
    goes_at = max(*ends, rules.now) + rules.grace if ends else None
    kept_by = _distinct([_recycled(image) for image in images])
    return Explanation(digest, State.RECYCLED, kept_by, goes_at, "it is in the recycle bin")


def _recycled(image: Image) -> str:
    return f"recycle bin: {'image' if image.origin_id is None else 'manifest of image'} {image}"


def _is_recycled(image: Image) -> bool:
    return Status.RECYCLED in (image.status, image.namespace.status)


def _is_being_deleted(image: Image) -> bool:
    return Status.DELETING in (image.status, image.namespace.status)


def _explain_blob(blob: Candidate, viewer: Viewer, rules: Rules, *, knows_all: bool) -> Explanation | None:
    """The state of a blob; None if the viewer may not know of it."""
    seen = _seen(blob.id, viewer)
    is_own = viewer.principal is not None and blob.organization_id == viewer.principal.organization_id
    if not (seen or knows_all or (blob.organization_id is not None and is_own)):
        return None
    in_bin = only_recycled([blob.id]).get(blob.id)
    facts = replace(blob.facts, recycled_until=in_bin.until) if in_bin else blob.facts
    verdict = judge(facts, rules)
    holders = _images_of(blob.id)
    if verdict.action is Action.KEEP and holders and not _has_staying_holder(blob.id):
        verdict = Verdict(Action.WAIT, _BEING_DELETED)
    staying = [holder for holder in seen if not _is_being_deleted(holder.image)]
    kept_by = [reason for holder in staying for reason in _kept_by(holder, blob)]
    if _has_others(holders, viewer):
        kept_by.append(OTHERS)
        # The leases of others are theirs to know.
        if not knows_all and verdict.action in (Action.KEEP, Action.RECYCLED):
            verdict = Verdict(Action.KEEP, "images have it, among them images of others")
    return Explanation(
        digest=blob.digest,
        state=_state(verdict.action),
        kept_by=_distinct(kept_by),
        goes_at=verdict.goes_at,
        reason=_reason(blob, verdict.reason, with_error=knows_all),
    )


def _state(action: Action) -> State:
    match action:
        case Action.KEEP:
            return State.KEPT
        case Action.RECYCLED:
            return State.RECYCLED
        case Action.DELETE:
            return State.DELETING
        case Action.WAIT | Action.COLLECT:
            return State.WAITING


def _reason(blob: Candidate, reason: str, *, with_error: bool) -> str:
    """`with_error` adds what the storage said, which may name its hosts and folders."""
    parts = [reason]
    if blob.cause and not (blob.facts.is_linked or blob.facts.leased_until):
        parts.append(f"its last reference ended: {blob.cause}")
    if blob.is_broken:
        parts.append("its content is damaged or missing: the next push of it heals it")
    if blob.attempts:
        parts.append(f"failed attempts to delete the content: {blob.attempts}")
        if with_error:
            parts.append(f"the last error was: {blob.error}")
    return "; ".join(parts)


def _seen(blob_id: int, viewer: Viewer) -> list[_Holder]:
    """Some of the viewer's images that have a blob.

    The query visits the viewer's images, so that its duration does not depend on those of others.
    """
    if viewer.principal is None:
        images = Image.objects.select_related("namespace").filter(pk__in=_images_of(blob_id))
    else:
        images = viewer.images()
    links = BlobLink.objects.filter(image=OuterRef("pk"), blob=blob_id).values("pk")
    leases = BlobLease.objects.filter(image=OuterRef("pk"), blob=blob_id).values("expires_at")
    found = images.annotate(link=Subquery(links[:1]), leased_until=Subquery(leases[:1]))
    holding = found.filter(Q(link__isnull=False) | Q(leased_until__isnull=False))
    going = Q(status=Status.DELETING) | Q(namespace__status=Status.DELETING)
    some = holding.order_by(ExpressionWrapper(going, BooleanField()), "pk")[:_MOST_IMAGES]
    return [_Holder(image, image.link is not None, image.leased_until) for image in some]


def _has_others(holders: Collection[UUID], viewer: Viewer) -> bool:
    """Whether one of the images that have a blob is not the viewer's."""
    own = viewer.images().filter(pk__in=holders)
    others = set(holders) - set(own.values_list("pk", flat=True))
    return _staying(others).exists()


def _has_staying_holder(blob_id: int) -> bool:
    """Whether an image links or leases a blob that the worker is not deleting; of any number of images."""
    links, leases = BlobLink.objects.filter(blob=blob_id), BlobLease.objects.filter(blob=blob_id)
    return any(
        found.exclude(image__status=Status.DELETING)
        .exclude(image__namespace__status=Status.DELETING)
        .exists()
        for found in (links, leases)
    )


def _staying(image_ids: Collection[UUID]) -> QuerySet[Image]:
    """Those of some images that the worker is not deleting."""
    found = Image.objects.filter(pk__in=image_ids)
    return found.exclude(status=Status.DELETING).exclude(namespace__status=Status.DELETING)


def _images_of(blob_id: int) -> set[UUID]:
    """The ids of some of the images that have a blob."""
    found = rows(_HOLDERS, [blob_id, blob_id, _MOST_IMAGES, blob_id, _MOST_IMAGES])
    return {uuid_from_db(image_id) for (image_id,) in found}


def _kept_by(holder: _Holder, blob: Candidate) -> Iterator[str]:
    if holder.is_linked and _is_recycled(holder.image):
        yield _recycled(holder.image)
    elif holder.is_linked:
        linked = BlobLink.objects.filter(image=holder.image, blob=blob.id).values_list("manifest", flat=True)
        manifests = Manifest.objects.defer("payload").filter(pk__in=list(linked[:_MOST_MANIFESTS]))
        for manifest in manifests:
            yield from _reached_by(manifest, holder.image)
    if holder.leased_until is not None:
        yield f"lease of image {holder.image} until {holder.leased_until.isoformat()}"


def _reached_by(manifest: Manifest, image: Image | None = None) -> list[str]:
    """The tags that keep a manifest reachable, or the manifest itself: untagged ones stay, too."""
    image = image or manifest.image
    tags = _tags_reaching(manifest)
    return [f"tag {name} of image {image}" for name in tags] or [
        f"untagged manifest {manifest.digest} of image {image}"
    ]


def _tags_reaching(manifest: Manifest) -> list[str]:
    """Tags of a manifest, or of the indexes that list it and the subjects that it refers to."""
    level, names = [manifest], list[str]()
    examined: set[int] = set()
    for _ in range(_DEEPEST):
        ids = [each.pk for each in level if each.pk not in examined][:_MOST_MANIFESTS]
        if not ids:
            break
        examined |= set(ids)
        names += (name for found in newest_tags_on(ids).values() for name in found)
        level = [*_parents(ids), *_subjects(level)]
    return _distinct(names)


def _parents(ids: Sequence[int]) -> QuerySet[Manifest]:
    parents = ManifestChild.objects.filter(child__in=ids).values_list("parent", flat=True)[:_MOST_MANIFESTS]
    return Manifest.objects.defer("payload").filter(pk__in=list(parents))


def _subjects(manifests: Sequence[Manifest]) -> QuerySet[Manifest]:
    digests = {each.subject_digest for each in manifests if each.subject_digest}
    images = {each.image_id for each in manifests}
    return Manifest.objects.defer("payload").filter(image__in=images, digest__in=digests)


def _distinct(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))
