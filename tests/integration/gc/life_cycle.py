"""The model of the life cycle: what a registry must have after the requests that it acknowledged."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True)
class ManifestModel:
    """A manifest that was pushed."""

    digest: str
    payload: bytes
    media_type: str
    blobs: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    subject: str = ""


@dataclass
class ImageModel:
    """A repository: what was pushed to it and not deleted, and what was promised to it."""

    manifests: dict[str, ManifestModel] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)  # to the digest
    promises: dict[str, datetime] = field(default_factory=dict)  # digest of a blob: until when
    was_pushed: bool = False  # since its last deletion, so that it exists, even without manifests
    deletions: int = 0
    """How often the image was deleted, which ends promises whose responses are under way."""

    blob_deletions: dict[str, int] = field(default_factory=dict)
    """The same for each blob."""

    def epoch(self, digest: str) -> tuple[int, int]:
        """Changes with every event that ends the promise of a blob."""
        return self.deletions, self.blob_deletions.get(digest, 0)

    def promise(self, digest: str, until: datetime) -> None:
        """The registry has promised a blob until then."""
        self.promises[digest] = max(until, self.promises.get(digest, until))

    def linked(self) -> set[str]:
        """The blobs that manifests list."""
        return {blob for manifest in self.manifests.values() for blob in manifest.blobs}

    def must_have(self, moment: datetime) -> set[str]:
        """The blobs that must be readable: listed or promised."""
        return self.linked() | {digest for digest, until in self.promises.items() if until > moment}

    def put(self, manifest: ManifestModel, tag: str | None) -> None:
        self.was_pushed = True
        self.manifests.setdefault(manifest.digest, manifest)
        if tag is not None:
            self.tags[tag] = manifest.digest

    def delete_manifest(self, digest: str, *, promised_until: datetime) -> None:
        """Delete a manifest with its tags; indexes that list it, and its referrers, stay.

        Blobs that no other manifest lists are promised, so that a client may push the manifest again.
        """
        deleted = self.manifests.pop(digest)
        for blob in deleted.blobs - self.linked():
            self.promise(blob, promised_until)
        self.tags = {tag: target for tag, target in self.tags.items() if target != digest}

    def delete_blob(self, digest: str) -> None:
        self.promises.pop(digest, None)
        self.end_answers(digest)

    def end_answers(self, digest: str) -> None:
        """Responses under way promise the blob no more."""
        self.blob_deletions[digest] = self.blob_deletions.get(digest, 0) + 1

    def delete(self) -> None:
        self.manifests, self.tags, self.promises, self.was_pushed = {}, {}, {}, False
        self.deletions += 1

    def reachable(self) -> set[str]:
        """The manifests that tags reach: their children at any depth, and their referrers."""
        found: set[str] = set()
        waiting = [*self.tags.values()]
        while waiting:
            digest = waiting.pop()
            if digest in found or digest not in self.manifests:
                continue
            found.add(digest)
            waiting += self.manifests[digest].children
            waiting += self._referrers(digest)
        return found

    def _referrers(self, subject: str) -> Iterator[str]:
        return (each.digest for each in self.manifests.values() if each.subject == subject)

    def blobs_of(self, digests: Iterable[str]) -> set[str]:
        """The blobs that some of its manifests list."""
        return {blob for digest in digests for blob in self.manifests[digest].blobs}


@dataclass(frozen=True)
class Deletion:
    """A deletion in the recycle bin: what a restore brings back."""

    kind: str  # tag, manifest or image
    repository: int
    image_id: UUID
    manifests: Mapping[str, ManifestModel]
    tags: Mapping[str, str]  # to the digest
    expires_at: datetime

    def obstacle(self, image: ImageModel, current: UUID | None, name: str | None) -> str | None:
        """Why it cannot be restored, as a tag of another name if one is given; None if it can."""
        if self.kind == "image":
            return "the name is in use" if current is not None else None
        if current != self.image_id:
            return "its image is gone, or in the recycle bin"
        (digest,) = {*self.manifests, *self.tags.values()}
        if self.kind == "tag":
            (old,) = self.tags
            if (name or old) in image.tags:
                return "the tag is in use"
            return None if digest in image.manifests else "its manifest is not there"
        wanted = [name] if name else [*self.tags]
        return "a tag is in use" if any(image.tags.get(tag, digest) != digest for tag in wanted) else None

    def restore(self, image: ImageModel, name: str | None) -> None:
        """Bring it back; there is no obstacle."""
        if self.kind == "image":
            image.was_pushed = True
        image.manifests.update(self.manifests)
        renamed = dict.fromkeys([name], *{*self.manifests, *self.tags.values()}) if name else {}
        kept = {} if self.kind == "tag" and name else self.tags
        for tag, digest in {**kept, **renamed}.items():
            image.tags.setdefault(tag, digest)
