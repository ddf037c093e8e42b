"""Why content is kept, or when it goes, as far as the caller may know."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from django.db.models import BooleanField, ExpressionWrapper, OuterRef, Q, QuerySet, Subquery

from registry_control.access.policy import Principal
from registry_control.access.selectors import operates
from registry_control.catalog.models import BlobLease, BlobLink, Image, Manifest
from registry_control.catalog.selectors.recycled import only_recycled, recycled_until
from registry_control.common.models import DELETED, Status
from registry_control.db.sql import id_parameter, rows, uuid_from_db
from registry_control.gc.policy import Action, Rules, Verdict, judge, while_stopped
from registry_control.gc.selectors.breaker import current_stop
from registry_control.gc.selectors.candidates import Candidate, by_digest
from registry_control.gc.selectors.reaching import MOST_MANIFESTS, in_turn, tags_reaching
from registry_control.namespaces.selectors import known_to

OTHERS: Final = "images of others"
AND_MORE: Final = "and more"
_MOST_REFERENCES: Final = 200  # in `kept_by`
_MOST_OF_IMAGE: Final = 100  # manifests of one image that are examined
_MOST_IMAGES: Final = 200  # that are examined
_MOST_VISITED: Final = 10_000  # images that are passed over because the worker deletes them
_BEING_DELETED: Final = (
    "the worker is deleting the images that have it; its grace period begins when it has done that"
)
_NO_BLOB: Final = 0  # an id that no blob has

# Skips from one image to the next in the index, as `holders` of the catalogue does, and passes over images
# that the worker is deleting. CROSS JOIN fixes the join order in SQLite.
_HOLDERS: Final = """
WITH RECURSIVE holder (image_id, number) AS (
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s ORDER BY k.image_id LIMIT 1), 1
    UNION ALL
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s AND k.image_id > h.image_id
            ORDER BY k.image_id LIMIT 1), h.number + 1
    FROM holder h WHERE h.image_id IS NOT NULL AND h.number < %s
)
SELECT found.image_id FROM (
    SELECT h.image_id FROM holder h CROSS JOIN catalog_image i CROSS JOIN namespaces_namespace n
    WHERE i.id = h.image_id AND n.id = i.namespace_id AND i.status <> 'deleting' AND n.status <> 'deleting'
    LIMIT %s
) found
UNION
SELECT found.image_id FROM (
    SELECT l.image_id FROM catalog_bloblease l WHERE l.blob_id = %s ORDER BY l.expires_at DESC LIMIT %s
) found
"""
_LINKS: Final = """
SELECT l.image_id, l.manifest_id FROM (
    SELECT image_id, manifest_id FROM catalog_bloblink WHERE blob_id = %s AND image_id = %s LIMIT %s
) l
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
    of_blob = _explain_blobs(digest, viewer, rules)
    if of_manifest is None:
        reason = "there is no such content, or none that you may know of"
        found = of_blob or Explanation(digest, State.UNKNOWN, (), None, reason)
    elif of_blob is not None and of_manifest.state is State.KEPT:
        found = replace(of_manifest, kept_by=[*of_manifest.kept_by, *of_blob.kept_by])
    else:
        found = of_manifest
    return replace(found, kept_by=_bounded(found.kept_by))


def _bounded(references: Sequence[str]) -> list[str]:
    """Each reference once, and at most `_MOST_REFERENCES`, of which the last says whether there are more."""
    named = list(dict.fromkeys(each for each in references if each not in (OTHERS, AND_MORE)))
    last = [OTHERS] if OTHERS in references else []
    if AND_MORE in references or len(named) + len(last) > _MOST_REFERENCES:
        last.append(AND_MORE)
    return [*named[: _MOST_REFERENCES - len(last)], *last]


def _explain_manifest(digest: str, viewer: Viewer, rules: Rules) -> Explanation | None:
    """The state of the manifests of a digest; None if the viewer may not know of any."""
    found = Manifest.objects.defer("payload").select_related("image__namespace").filter(digest=digest)
    own = found.filter(image__in=viewer.images()).order_by("pk")
    kept = list(_not_in(own, DELETED)[: _MOST_IMAGES + 1])
    if kept:
        kept_by = _references({each.pk: each.image for each in kept[:_MOST_IMAGES]})
        found_by = [reference for references in kept_by.of.values() for reference in references]
        more = len(kept) > _MOST_IMAGES or not kept_by.is_complete
        found_by += [AND_MORE] if more else []
        return Explanation(digest, State.KEPT, found_by, None, "an image has this manifest")
    if viewer.operates and _not_in(found, DELETED).exists():
        return Explanation(digest, State.KEPT, (OTHERS,), None, "an image has this manifest")
    if there := list(_not_in(own, [Status.DELETING])[: _MOST_IMAGES + 1]):
        return _explain_recycled(digest, [manifest.image for manifest in there], rules)
    return Explanation(digest, State.WAITING, (), None, _BEING_DELETED) if own.exists() else None


def _not_in(manifests: QuerySet[Manifest], statuses: Collection[Status]) -> QuerySet[Manifest]:
    """Those whose image and namespace have none of these states; a subquery would scan all images."""
    return manifests.exclude(image__status__in=statuses).exclude(image__namespace__status__in=statuses)


def _explain_recycled(digest: str, images: Sequence[Image], rules: Rules) -> Explanation:
    """The state of a manifest that only images in the recycle bin have."""
    until = recycled_until(images)
    goes_at = max(until, rules.now) + rules.grace if until is not None else None
    more = [AND_MORE] if len(images) > _MOST_IMAGES else []
    kept_by = [*(_recycled(image) for image in images[:_MOST_IMAGES]), *more]
    return Explanation(digest, State.RECYCLED, kept_by, goes_at, "it is in the recycle bin")


def _recycled(image: Image) -> str:
    return f"recycle bin: {'image' if image.origin_id is None else 'manifest of image'} {image}"


def _is_recycled(image: Image) -> bool:
    return Status.RECYCLED in (image.status, image.namespace.status)


def _is_being_deleted(image: Image) -> bool:
    return Status.DELETING in (image.status, image.namespace.status)


def _explain_blobs(digest: str, viewer: Viewer, rules: Rules) -> Explanation | None:
    """The state of the current blob of a digest, or of one that is being deleted and has no holders."""
    blobs = by_digest(digest)
    current = next((blob for blob in blobs if not blob.facts.is_deleting), None)
    # Asked without a blob, too: the duration must not show what other tenants have (invariant 9).
    seen = _seen(current.id if current is not None else _NO_BLOB, viewer)
    knows_all = viewer.operates
    for blob in blobs:
        holders = seen if blob is current else []
        is_own = viewer.principal is not None and blob.organization_id == viewer.principal.organization_id
        if holders or knows_all or (blob.organization_id is not None and is_own):
            return _explain_blob(blob, _verdict(blob, rules), holders, viewer, knows_all=knows_all)
    return None


def _verdict(blob: Candidate, rules: Rules) -> Verdict:
    """What happens to a blob, as the collector is at present."""
    in_bin = only_recycled([blob.id]).get(blob.id)
    facts = replace(blob.facts, recycled_until=in_bin.until) if in_bin else blob.facts
    verdict = judge(facts, rules)
    has_reference = facts.is_linked or facts.leased_until is not None
    if verdict.action is Action.KEEP and has_reference and not _has_staying_holder(blob.id):
        return Verdict(Action.WAIT, _BEING_DELETED)
    return while_stopped(verdict, current_stop(ignore_grace=rules.ignore_grace))


def _explain_blob(
    blob: Candidate, verdict: Verdict, seen: Sequence[_Holder], viewer: Viewer, *, knows_all: bool
) -> Explanation:
    """The state of a blob that the viewer may know of."""
    kept_by = _kept_by([holder for holder in seen if not _is_being_deleted(holder.image)], blob)
    if _has_others(_images_of(blob.id), viewer):
        kept_by.append(OTHERS)
        # The leases of others are theirs to know.
        if not knows_all and verdict.action in (Action.KEEP, Action.RECYCLED):
            verdict = Verdict(Action.KEEP, "images have it, among them images of others")
    return Explanation(
        digest=blob.digest,
        state=_state(verdict.action),
        kept_by=kept_by,
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
    """Some of the viewer's images that have a blob, one more than are examined.

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
    some = holding.order_by(ExpressionWrapper(going, BooleanField()), "pk")[: _MOST_IMAGES + 1]
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
    """The ids of some of the images that have a blob, one more of either kind than are examined."""
    most = _MOST_IMAGES + 1
    found = rows(_HOLDERS, [blob_id, blob_id, _MOST_VISITED, most, blob_id, most])
    return {uuid_from_db(image_id) for (image_id,) in found}


def _kept_by(holders: Sequence[_Holder], blob: Candidate) -> list[str]:
    """What keeps a blob in images: their manifests with tags, the recycle bin, their leases."""
    examined = holders[:_MOST_IMAGES]
    links, is_complete = _links([each.image for each in examined if _links_live(each)], blob)
    found = _references(links)
    of_image: dict[UUID, list[str]] = {}
    for manifest, references in found.of.items():
        of_image.setdefault(links[manifest].pk, []).extend(references)
    kept_by = [text for each in examined for text in _kept_in(each, of_image.get(each.image.pk, ()))]
    is_complete = is_complete and found.is_complete and len(holders) <= _MOST_IMAGES
    return kept_by if is_complete else [*kept_by, AND_MORE]


def _links_live(holder: _Holder) -> bool:
    return holder.is_linked and not _is_recycled(holder.image)


def _kept_in(holder: _Holder, references: Sequence[str]) -> Iterator[str]:
    yield from references
    if holder.is_linked and _is_recycled(holder.image):
        yield _recycled(holder.image)
    if holder.leased_until is not None:
        yield f"lease of image {holder.image} until {holder.leased_until.isoformat()}"


def _links(images: Sequence[Image], blob: Candidate) -> tuple[dict[int, Image], bool]:
    """Manifests of the images that list a blob, and whether these are all."""
    if not images:
        return {}, True
    most = _MOST_OF_IMAGE + 1
    values = [value for image in images for value in (blob.id, id_parameter(image.pk), most)]
    found = rows(" UNION ALL ".join([_LINKS] * len(images)), values)
    of_image = {image.pk: image for image in images}
    fairly = in_turn((uuid_from_db(image_id), manifest_id) for image_id, manifest_id in sorted(found))
    examined = {manifest_id: of_image[image_id] for image_id, manifest_id in fairly[:MOST_MANIFESTS]}
    is_complete = len(found) <= MOST_MANIFESTS and max(Counter(image for image, _ in found).values()) < most
    return examined, is_complete


class _References(NamedTuple):
    """The references that keep each manifest."""

    of: Mapping[int, Sequence[str]]
    is_complete: bool


def _references(images: Mapping[int, Image]) -> _References:
    """The tags that reach manifests, or the manifests themselves: untagged ones stay, too."""
    found = tags_reaching([*images], enough=_MOST_REFERENCES)
    of = {id_: [f"tag {name} of image {images[id_]}" for name in names] for id_, names in found.tags.items()}
    untagged = [id_ for id_, references in of.items() if not references]
    if found.is_complete and untagged:
        digests = Manifest.objects.filter(pk__in=untagged).values_list("pk", "digest")
        of |= {id_: [f"untagged manifest {digest} of image {images[id_]}"] for id_, digest in digests}
    return _References(of, found.is_complete)
