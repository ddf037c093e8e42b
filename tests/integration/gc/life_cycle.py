"""The model of the life cycle: what a registry must have after the requests that it acknowledged."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
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


@dataclass(frozen=True)
class TagTimes:
    """When a tag last got its manifest, None if that is not known, and when it was last pulled."""

    tagged_at: datetime | None
    pulled_at: datetime | None = None


@dataclass
class ImageModel:
    """A repository: what was pushed to it and not deleted, and what was promised to it."""

    manifests: dict[str, ManifestModel] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)  # to the digest
    promises: dict[str, datetime] = field(default_factory=dict)  # digest of a blob: until when
    was_pushed: bool = False  # since its last deletion, so that it exists, even without manifests
    deletions: int = 0
    """How often it, or its namespace, was deleted, which ends promises whose responses are under way."""

    blob_deletions: dict[str, int] = field(default_factory=dict)
    """The same for each blob."""

    tag_times: dict[str, TagTimes] = field(default_factory=dict)
    used_at: dict[str, datetime] = field(default_factory=dict)
    """When a manifest was pushed, pulled, or lost the last tag that reached it, whatever came last."""

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

    def put(self, manifest: ManifestModel, tag: str | None, moment: datetime) -> None:
        self.was_pushed = True
        before = self.reachable()
        if manifest.digest not in self.manifests:
            self.manifests[manifest.digest], self.used_at[manifest.digest] = manifest, moment
        if tag is not None and self.tags.get(tag) != manifest.digest:
            old = self.tag_times.get(tag) if tag in self.tags else None
            self.tags[tag] = manifest.digest
            self.tag_times[tag] = TagTimes(moment, old.pulled_at if old else None)
        self._use(before - self.reachable(), moment)

    def pull(self, tag: str, moment: datetime) -> None:
        self.tag_times[tag] = TagTimes(self.tag_times[tag].tagged_at, moment)
        self._use({self.tags[tag]}, moment)

    def _use(self, digests: Iterable[str], moment: datetime) -> None:
        self.used_at.update(dict.fromkeys(digests, moment))

    def untag(self, tag: str, moment: datetime) -> None:
        before = self.reachable()
        del self.tags[tag]
        self._use(before - self.reachable(), moment)

    def delete_manifest(self, digest: str, moment: datetime, *, promised_until: datetime) -> None:
        """Delete a manifest with its tags; indexes that list it, and its referrers, stay.

        Blobs that no other manifest lists are promised, so that a client may push the manifest again.
        """
        before = self.reachable()
        deleted = self.manifests.pop(digest)
        self.tags = {tag: target for tag, target in self.tags.items() if target != digest}
        self._use(before - self.reachable(), moment)
        for blob in deleted.blobs - self.linked():
            self.promise(blob, promised_until)

    def delete_blob(self, digest: str) -> None:
        self.promises.pop(digest, None)
        self.end_answers(digest)

    def end_answers(self, digest: str) -> None:
        """Responses under way promise the blob no more."""
        self.blob_deletions[digest] = self.blob_deletions.get(digest, 0) + 1

    def delete(self) -> None:
        self.manifests, self.tags, self.was_pushed = {}, {}, False
        self.end_promises()

    def end_promises(self) -> None:
        """A deletion of the image or its namespace ends what was promised, whether or not it is restored."""
        self.promises = {}
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
            waiting += self.referrers(digest)
        return found

    def comes_back_with(self, restored: str, removed: Collection[ManifestModel]) -> set[str]:
        """The manifests among those that rules have removed which a restored manifest brings back.

        They are its children and referrers, and theirs.
        """
        found: set[str] = set()
        waiting = [restored]
        while waiting:
            digest = waiting.pop()
            if digest not in self.manifests:
                (parent,) = {each for each in removed if each.digest == digest}
            else:
                parent = self.manifests[digest]
            more = {m.digest for m in removed if m.digest in parent.children or m.subject == digest}
            waiting += more - found - self.manifests.keys()
            found |= more - self.manifests.keys()
        return found

    def referrers(self, subject: str) -> Iterator[str]:
        """The manifests with that subject."""
        return (each.digest for each in self.manifests.values() if each.subject == subject)

    def blobs_of(self, digests: Iterable[str]) -> set[str]:
        """The blobs that some of its manifests list."""
        return {blob for digest in digests for blob in self.manifests[digest].blobs}


@dataclass
class NamespaceModel:
    """A namespace with its images and its rules of retention; without an id there is none of its name."""

    id: UUID | None
    images: Mapping[str, ImageModel]  # by their names
    policy: Mapping[str, Any]

    @property
    def is_there(self) -> bool:
        return self.id is not None

    def linked(self) -> set[str]:
        """The blobs that manifests of its images list."""
        return {blob for image in self.images.values() for blob in image.linked()}


@dataclass(frozen=True)
class NamespaceDeletion:
    """A namespace in the recycle bin."""

    number: int  # among the names of the test
    namespace: NamespaceModel
    expires_at: datetime


@dataclass(frozen=True)
class Deletion:
    """A deletion in the recycle bin: what a restore brings back."""

    kind: str  # tag, manifest or image
    repository: int  # where it was deleted; its namespace may have another name since
    namespace: NamespaceModel
    image_id: UUID
    manifests: Mapping[str, ManifestModel]
    tags: Mapping[str, str]  # to the digest
    expires_at: datetime
    tag_times: Mapping[str, TagTimes]
    used_at: Mapping[str, datetime]  # of all manifests of the image
    by_rule: bool  # of retention

    def obstacle(self, image: ImageModel, current: UUID | None, name: str | None) -> str | None:
        """Why it cannot be restored, as a tag of another name if one is given; None if it can.

        `current` is the id of the image of that name, if its namespace has one.
        """
        if self.kind == "image":
            return "the name is in use" if image.was_pushed else None
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

    def stays_in_bin(self, image: ImageModel, name: str | None) -> set[str]:
        """The tags of a manifest that others have, and that it does not get under the new name."""
        if self.kind != "manifest" or name is None:
            return set()
        taken = {tag for tag, digest in self.tags.items() if image.tags.get(tag, digest) != digest}
        is_new = name not in image.tags and name not in self.tags
        return set() if is_new and len(taken) == 1 else taken

    def restore(self, image: ImageModel, name: str | None) -> None:
        """Bring it back; there is no obstacle."""
        if self.kind == "image":
            image.was_pushed = True
        for digest, manifest in self.manifests.items():
            if digest not in image.manifests:
                image.manifests[digest], image.used_at[digest] = manifest, self.used_at[digest]
        renamed = dict.fromkeys([name], *{*self.manifests, *self.tags.values()}) if name else {}
        kept = {} if self.kind == "tag" and name else self.tags
        for tag, digest in {**kept, **renamed}.items():
            if tag not in image.tags:
                image.tags[tag] = digest
                # `tag_times` may have another tag of the new name, which was deleted before.
                is_new = tag in renamed and tag not in self.tags
                known = TagTimes(None) if is_new else self.tag_times.get(tag, TagTimes(None))
                image.tag_times[tag] = known
