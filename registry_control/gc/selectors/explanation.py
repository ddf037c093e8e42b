"""Why content is kept, or when it goes, as far as the caller may know."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from django.db.models import QuerySet

from registry_control.access.policy import Principal
from registry_control.access.selectors import operates
from registry_control.catalog.models import BlobLink, Image, Manifest, ManifestChild
from registry_control.catalog.selectors.listing import newest_tags_on
from registry_control.db.sql import optional_time, rows, uuid_from_db
from registry_control.gc.policy import Action, Rules, judge
from registry_control.gc.selectors.candidates import Candidate, by_digest
from registry_control.namespaces.selectors import may_see, visible_to

OTHERS: Final = "images of others"
_MOST_MANIFESTS: Final = 100  # of one image that are examined
_MOST_IMAGES: Final = 200
_DEEPEST: Final = 5  # levels of indexes and subjects from a manifest to its tags

# Skips from one image to the next in the index, as `holders` of the catalogue does.
_HOLDERS: Final = """
WITH RECURSIVE holder (image_id, number) AS (
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s ORDER BY k.image_id LIMIT 1), 1
    UNION ALL
    SELECT (SELECT k.image_id FROM catalog_bloblink k WHERE k.blob_id = %s AND k.image_id > h.image_id
            ORDER BY k.image_id LIMIT 1), h.number + 1
    FROM holder h WHERE h.image_id IS NOT NULL AND h.number < %s
)
SELECT h.image_id, NULL FROM holder h WHERE h.image_id IS NOT NULL
UNION ALL
SELECT found.image_id, found.expires_at FROM (
    SELECT l.image_id, l.expires_at FROM catalog_bloblease l
    WHERE l.blob_id = %s ORDER BY l.expires_at DESC LIMIT %s
) found
"""


class State(StrEnum):
    """States of content, as the API names them."""

    KEPT = "kept"
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
    """An image that has a blob: by a manifest, or until a time by a lease."""

    image: Image
    leased_until: datetime | None


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: None is the command line of the installation, which may know everything."""

    principal: Principal | None

    @property
    def operates(self) -> bool:
        """Whether the viewer may know the state of content whose images it may not see."""
        return self.principal is None or operates(self.principal)

    def may_see(self, image: Image) -> bool:
        """Whether the viewer may know the image's name."""
        return self.principal is None or may_see(self.principal, image.namespace)

    def images(self) -> QuerySet[Image]:
        """All images whose names the viewer may know."""
        found = Image.objects.select_related("namespace__project")
        if self.principal is None:
            return found
        return found.filter(namespace__in=visible_to(self.principal).values("pk"))


def explain(digest: str, *, viewer: Viewer, rules: Rules) -> Explanation:
    """The state of the blobs and manifests of a digest.

    Without a right on an image that has the content, a caller gets the same answer as for content that does
    not exist, unless it operates the installation or an image of its organization had the blob last.
    """
    manifests = list(
        Manifest.objects.defer("payload").filter(digest=digest, image__in=viewer.images())[:_MOST_IMAGES]
    )
    kept_by = [reason for manifest in manifests for reason in _reached_by(manifest)]
    explanations = [_explain_blob(each, viewer, rules) for each in by_digest(digest)]
    known = next((each for each in explanations if each is not None), None)
    if kept_by:
        kept_by += known.kept_by if known else ()
        return Explanation(digest, State.KEPT, _distinct(kept_by), None, "an image has this manifest")
    return known or Explanation(
        digest, State.UNKNOWN, (), None, "there is no such content, or none that you may know of"
    )


def _explain_blob(blob: Candidate, viewer: Viewer, rules: Rules) -> Explanation | None:
    """The state of a blob; None if the viewer may not know of it."""
    holders = _holders(blob.id)
    seen = [holder for holder in holders if viewer.may_see(holder.image)]
    is_own = viewer.principal is not None and blob.organization_id == viewer.principal.organization_id
    if not (seen or viewer.operates or (blob.organization_id is not None and is_own)):
        return None
    verdict = judge(blob.facts, rules)
    kept_by = [reason for holder in seen for reason in _kept_by(holder, blob)]
    if len(seen) < len(holders):
        kept_by.append(OTHERS)
    return Explanation(
        digest=blob.digest,
        state=_state(verdict.action),
        kept_by=_distinct(kept_by),
        # The leases of others are theirs to know.
        goes_at=verdict.goes_at if len(seen) == len(holders) or viewer.operates else None,
        reason=_reason(blob, verdict.reason),
    )


def _state(action: Action) -> State:
    match action:
        case Action.KEEP:
            return State.KEPT
        case Action.DELETE:
            return State.DELETING
        case Action.WAIT | Action.COLLECT:
            return State.WAITING


def _reason(blob: Candidate, reason: str) -> str:
    parts = [reason]
    if blob.cause and not (blob.facts.is_linked or blob.facts.leased_until):
        parts.append(f"its last reference ended: {blob.cause}")
    if blob.attempts:
        parts.append(
            f"{blob.attempts} attempts to delete the content have failed, the last one with: {blob.error}"
        )
    return "; ".join(parts)


def _holders(blob_id: int) -> list[_Holder]:
    """Some of the images that have a blob."""
    found = rows(_HOLDERS, [blob_id, blob_id, _MOST_IMAGES, blob_id, _MOST_IMAGES])
    ids = [uuid_from_db(image_id) for image_id, _ in found]
    images = Image.objects.select_related("namespace__project").in_bulk(ids)
    return [
        _Holder(images[image_id], optional_time(until))
        for image_id, (_, until) in zip(ids, found, strict=True)
        if image_id in images
    ]


def _kept_by(holder: _Holder, blob: Candidate) -> Iterator[str]:
    if holder.leased_until is not None:
        yield f"lease of image {holder.image} until {holder.leased_until.isoformat()}"
        return
    links = BlobLink.objects.filter(image=holder.image, blob=blob.id)
    linked = links.values("manifest")[:_MOST_MANIFESTS]
    for manifest in Manifest.objects.defer("payload").filter(
        pk__in=list(linked.values_list("manifest", flat=True))
    ):
        yield from _reached_by(manifest, holder.image)


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
