"""What the enforcement of a retention would remove at this moment, as a stream."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from registry_control.common.clock import database_now
from registry_control.common.models import Status
from registry_control.db.sql import placeholders, rows
from registry_control.gc.retention import ImageRules, Policy, Times
from registry_control.gc.selectors import retained
from registry_control.gc.selectors.retained import Days, ImageRow
from registry_control.namespaces.models import Namespace

# Blobs of manifests that no manifest of the image links that a tag reaches.
_BLOBS: Final = """
SELECT DISTINCT b.id, b.size FROM catalog_bloblink k
JOIN catalog_blob b ON b.id = k.blob_id
WHERE k.manifest_id IN {ids} AND (
    SELECT o.id FROM catalog_bloblink o
    WHERE o.image_id = k.image_id AND o.blob_id = k.blob_id AND o.is_reachable LIMIT 1
) IS NULL
"""


@dataclass(frozen=True, slots=True)
class PreviewedTag:
    """A tag with the decision about it."""

    image: str
    tag: str
    digest: str
    keep: bool
    reason: str


@dataclass
class Preview:
    """The decisions about one namespace. Iterate over `tags` first: that counts the rest."""

    namespace: Namespace
    policy: Policy
    moment: datetime = field(default_factory=database_now, init=False)
    manifests: int = field(default=0, init=False)
    bytes: int = field(default=0, init=False)

    def tags(self) -> Iterator[PreviewedTag]:
        """All tags, by image and name; whether the rules are enabled does not matter."""
        for image in retained.images_of(self.namespace.pk):
            yield from self._tags_of(image)
            self._count(image)

    def _tags_of(self, image: ImageRow) -> Iterator[PreviewedTag]:
        rules = ImageRules(self.policy, image.name, self._times(image))
        newest = retained.newest_tags(image.id, rules)
        locked = self._locked(image)
        for page in retained.tag_pages(image.id):
            digests = retained.digests_of({row.manifest_id for row in page})
            for row in page:
                decision = retained.decide(rules, row, newest)
                keep, reason = decision.keep or bool(locked), decision.reason
                if locked and not decision.keep:
                    reason = locked
                digest = digests.get(row.manifest_id, "")  # empty if it was deleted meanwhile
                yield PreviewedTag(image.name, row.tag.name, digest, keep, reason)

    def _times(self, image: ImageRow) -> Times:
        return retained.times_of(self.namespace, image.restored_at, now=self.moment)

    def _locked(self, image: ImageRow) -> str:
        """Why nothing is removed from an image; empty if nothing prevents it."""
        if self.namespace.status == Status.LOCKED:
            return "an administrator has locked the namespace"
        return "an administrator has locked the image" if image.status == Status.LOCKED else ""

    def _count(self, image: ImageRow) -> None:
        """Add the untagged manifests of an image that go, and the blobs that only these link in it."""
        if self.policy.untagged_days is None or image.is_stale or self._locked(image):
            return
        days = Days(self.policy.untagged_days, self._times(image))
        gone, kept = dict[int, int](), set[int]()
        for page, _ in retained.untagged_pages(image.id):
            going = retained.doomed(page, days)
            self.manifests += len(going)
            gone |= _blobs_of(going)
            kept |= _blobs_of(set(page).difference(going)).keys()
        self.bytes += sum(size for blob_id, size in gone.items() if blob_id not in kept)


def _blobs_of(manifest_ids: Collection[int]) -> dict[int, int]:
    """The sizes of the blobs of untagged manifests, without those that tagged ones of the image link."""
    if not manifest_ids:
        return {}
    wanted = sorted(manifest_ids)
    return dict[int, int](rows(_BLOBS.replace("{ids}", placeholders(wanted)), wanted))
