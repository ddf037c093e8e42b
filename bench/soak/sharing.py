"""A client that pushes, tags, signs, deletes and restores while the collector removes unreferenced blobs."""

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.soak.client import MANIFEST, Client, digest_of, layer_of, manifest_of
from bench.soak.connection import Connection
from bench.soak.layers import SharedLayers
from bench.soak.management import ManagementApi
from bench.soak.record import Record

_KEPT: Final = 6  # manifests of one client; it deletes the rest, so that layers lose their last reference
_PROMISED: Final = 0.75  # share of a lease for which a promise holds (invariant 2)
_EMPTY: Final = b"{}"  # the config of signatures


@dataclass(eq=False)
class _Manifest:
    """A manifest that only this client deletes, and no pending request can create again."""

    repository: str
    digest: str
    body: bytes
    tags: set[str]
    referrers: list["_Manifest"] = field(default_factory=list)

    @property
    def references(self) -> set[str]:
        """Its tags, and its digest."""
        return self.tags | {self.digest}


class SharingClient(Client):
    """Pushes to repositories that it shares with other clients, and to one that it deletes now and then."""

    def __init__(
        self,
        number: int,
        connection: Connection,
        chance: random.Random,
        repositories: Sequence[str],
        record: Record,
        stop: threading.Event,
        *,
        layers: SharedLayers,
        lease: float,
        api: ManagementApi,
    ) -> None:
        """`lease` is `REGISTRY_LEASE` in seconds."""
        super().__init__(number, connection, chance, repositories, record, stop)
        self._layers = layers
        self._promise = lease * _PROMISED
        self._api = api
        self.own_repository: Final = f"{repositories[0].partition('/')[0]}/own-{number}"
        self._mine: list[_Manifest] = []
        self._moving: dict[str, str] = {}  # repository: a tag that this client moves
        self._restored = 0

    def _works(self) -> dict[Callable[[], None], float]:
        return {
            self._push: 4,
            self._pull: 14,
            self._move_tag: 4,
            self._untag: 1,
            self._sign: 2,
            self._list_referrers: 3,
            self._delete_one: 2,
            self._delete_and_restore: 0.5,
            self._untag_and_restore: 0.3,
            self._delete_own_image: 0.2,
        }

    # --- pushes -------------------------------------------------------------------------------------------

    def _push(self) -> None:
        if len(self._mine) > _KEPT:
            self._delete_mine()
        repository = self._chance.choice([*self._repositories, self.own_repository])
        layers = [self._layers.choose() for _ in range(self._chance.choice([1, 2, 3]))]
        contents, since = [self._chance.randbytes(50), *layers], time.monotonic()
        for content in contents:
            self._upload(repository, content)
        self._pushed += 1
        tag, body = f"c{self._number}-{self._pushed}", manifest_of(contents)
        if self._put_promised(repository, tag, body, since):
            self._mine.append(_Manifest(repository, digest_of(body), body, {tag}))
            self._record.event("push")

    def _put_promised(self, repository: str, reference: str, body: bytes, since: float) -> bool:
        """Push a manifest whose blobs were promised; whether it may be deleted later."""
        path, digest = f"/v2/{repository}/manifests/{reference}", digest_of(body)
        reply, tries = self._retry(
            lambda: self._connection.call("PUT", path, body, content_type=MANIFEST), {201, 400}
        )
        if reply.status == 400:
            age = time.monotonic() - since
            if age < self._promise:
                self._record.failed(f"PUT {path}: {reply.body[:300]!r} {age:.1f} s after the first promise")
            self._record.count("pushes slower than the promises")
            return False
        for name in {reference, digest}:
            self._record.acknowledged_manifest(repository, name, digest, deletable=False)
        # An attempt without a response may be processed after a deletion, and undo it.
        return tries == 1

    def _upload(self, repository: str, content: bytes) -> None:
        if self._chance.random() < 0.2 and self._is_mounted(repository, digest_of(content)):
            self._record.event("mount")
            return
        super()._upload(repository, content)

    def _is_mounted(self, repository: str, digest: str) -> bool:
        source = self._chance.choice(self._repositories)
        start = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        reply, _ = self._retry(lambda: self._connection.call("POST", start), {201, 202})
        if reply.status == 202:
            location = reply.headers["location"]
            self._try_once(lambda: self._connection.call("DELETE", location))
        return reply.status == 201

    # --- tags and referrers -------------------------------------------------------------------------------

    def _move_tag(self) -> None:
        """Set a tag of this client to another of its manifests in the same repository."""
        if not self._mine:
            return
        manifest = self._chance.choice(self._mine)
        repository = manifest.repository
        self._pushed += 1
        tag = self._moving.setdefault(repository, f"moving-{self._number}-{self._pushed}")
        for other in self._mine:
            if other.repository == repository:
                other.tags.discard(tag)
        self._record.forget_manifest(repository, tag)
        path = f"/v2/{repository}/manifests/{tag}"
        _, tries = self._retry(
            lambda: self._connection.call("PUT", path, manifest.body, content_type=MANIFEST), {201}
        )
        self._record.acknowledged_manifest(repository, tag, manifest.digest, deletable=False)
        self._record.event("re-tag")
        manifest.tags.add(tag)
        if tries > 1:  # an attempt without a response may be processed later: nothing of it changes any more
            del self._moving[repository]
            self._mine.remove(manifest)

    def _untag(self) -> None:
        """Delete a tag; its manifest stays."""
        tagged = [manifest for manifest in self._mine if manifest.tags]
        if not tagged:
            return
        manifest = self._chance.choice(tagged)
        tag = self._chance.choice(sorted(manifest.tags))
        manifest.tags.remove(tag)
        self._moving = {at: moving for at, moving in self._moving.items() if moving != tag}
        self._record.forget_manifest(manifest.repository, tag)
        path = f"/v2/{manifest.repository}/manifests/{tag}"
        self._retry(lambda: self._connection.call("DELETE", path), {202, 404})
        self._record.event("delete a tag")

    def _sign(self) -> None:
        """Push a referrer of a manifest."""
        if not self._mine:
            return
        subject = self._chance.choice(self._mine)
        since = time.monotonic()
        contents = [_EMPTY, self._chance.randbytes(60)]
        for content in contents:
            self._upload(subject.repository, content)
        body = manifest_of(contents, subject=layer_of(subject.body) | {"mediaType": MANIFEST})
        digest = digest_of(body)
        if self._put_promised(subject.repository, digest, body, since):
            subject.referrers.append(_Manifest(subject.repository, digest, body, set()))
            self._record.event("push a referrer")

    def _list_referrers(self) -> None:
        signed = [manifest for manifest in self._mine if manifest.referrers]
        if not signed:
            return
        subject = self._chance.choice(signed)
        path = f"/v2/{subject.repository}/referrers/{subject.digest}"
        reply, _ = self._retry(lambda: self._connection.call("GET", path), {200})
        listed = {each["digest"] for each in json.loads(reply.body)["manifests"]}
        if missing := {each.digest for each in subject.referrers} - listed:
            self._record.failed(f"GET {path}: {missing} are missing")
        self._record.event("list referrers")

    # --- deletions and restores ---------------------------------------------------------------------------

    def _delete_one(self) -> None:
        if self._mine:
            self._delete_mine()

    def _delete_mine(self) -> None:
        """Delete a manifest with its referrers, as a client does that cleans up."""
        manifest = self._mine.pop(self._chance.randrange(len(self._mine)))
        for referrer in manifest.referrers:
            self._delete_manifest(referrer)
        self._delete_manifest(manifest)

    def _delete_manifest(self, manifest: _Manifest) -> None:
        repository, digest = manifest.repository, manifest.digest
        for reference in manifest.references:
            self._record.forget_manifest(repository, reference)
        self._moving = {at: tag for at, tag in self._moving.items() if tag not in manifest.tags}
        path = f"/v2/{repository}/manifests/{digest}"
        self._retry(lambda: self._connection.call("DELETE", path), {202, 404})
        self._record.acknowledged_deletion(repository, digest)
        self._record.event("delete a manifest")

    def _delete_and_restore(self) -> None:
        """Delete a manifest with its tags by mistake; its referrers stay."""
        if self._mine:
            manifest = self._chance.choice(self._mine)
            repository, digest = manifest.repository, manifest.digest
            references = dict.fromkeys(manifest.references, digest)
            if not self._restore_deleted(repository, digest, references, "manifest"):
                self._mine.remove(manifest)
                self._moving = {at: tag for at, tag in self._moving.items() if tag not in manifest.tags}
                self._record.acknowledged_deletion(repository, digest)

    def _untag_and_restore(self) -> None:
        """Delete a tag by mistake."""
        tagged = [manifest for manifest in self._mine if manifest.tags]
        if tagged:
            manifest = self._chance.choice(tagged)
            tag = self._chance.choice(sorted(manifest.tags))
            if not self._restore_deleted(manifest.repository, tag, {tag: manifest.digest}, "tag"):
                manifest.tags.remove(tag)
                self._moving = {at: moving for at, moving in self._moving.items() if moving != tag}

    def _restore_deleted(
        self, repository: str, reference: str, references: dict[str, str], kind: str
    ) -> bool:
        """Delete a tag or manifest and restore it from the recycle bin; whether it is there again."""
        for each in references:
            self._record.forget_manifest(repository, each)
        since, path = time.monotonic(), f"/v2/{repository}/manifests/{reference}"
        _, tries = self._retry(lambda: self._connection.call("DELETE", path), {202, 404})
        self._record.event(f"delete a {kind}")
        if tries > 1:  # an attempt without a response may be processed after the restore
            return False
        separator = "@" if kind == "manifest" else ":"
        status = self._api.restore(f"{repository}{separator}{reference}", None)
        if status == 200:
            self._record.acknowledged_again(repository, references)
            self._record.event(f"restore a {kind}")
            return True
        if time.monotonic() - since < self._api.recycle_bin:
            self._record.failed(f"the restore of {repository}{separator}{reference} got the status {status}")
        return False

    def _delete_own_image(self) -> None:
        """Delete the repository of this client, which no other client uses, and restore it or not."""
        own = [manifest for manifest in self._mine if manifest.repository == self.own_repository]
        self._mine = [manifest for manifest in self._mine if manifest.repository != self.own_repository]
        self._moving.pop(self.own_repository, None)
        # A manifest whose PUT had no response may also be there.
        references = self._record.forget_repository(self.own_repository)
        since = time.monotonic()
        image_id = self._api.delete_image(self.own_repository)
        if image_id is not None:
            self._record.event("delete an image")
        if image_id is not None and self._chance.random() < 0.7:
            self._restore(image_id, references, own, since)
        else:
            self._acknowledge_deletion(references)

    def _restore(self, image_id: str, references: dict[str, str], own: list[_Manifest], since: float) -> None:
        """Restore the image of this client; under another name if a push has taken its own meanwhile."""
        if self._chance.random() < 0.3:
            self._push_to_own_repository()
        if self._chance.random() < 0.5:
            self._stop.wait(self._chance.uniform(0, self._api.recycle_bin * 1.3))
        repository, name = self.own_repository, None
        outcome = self._api.restore(image_id, name)
        if outcome == 409:
            self._restored += 1
            repository = name = f"{self.own_repository}-{self._restored}"
            outcome = self._api.restore(image_id, name)
        if outcome == 200:
            self._record.acknowledged_again(repository, references)
            for manifest in own:
                for each in (manifest, *manifest.referrers):
                    each.repository = repository
            self._mine += own
            self._record.event("restore an image")
            return
        if time.monotonic() - since < self._api.recycle_bin:
            self._record.failed(f"the restore of {self.own_repository} got the status {outcome}")
        self._acknowledge_deletion(references)

    def _push_to_own_repository(self) -> None:
        shared, self._repositories = self._repositories, [self.own_repository]
        try:
            self._push()
        finally:
            self._repositories = shared

    def _acknowledge_deletion(self, references: dict[str, str]) -> None:
        for digest in {*references.values()}:
            self._record.acknowledged_deletion(self.own_repository, digest)
