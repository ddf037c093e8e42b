"""Pushes, deletions, pulls, restores and retention in the life cycle: requests of one transaction each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule

from registry_control.catalog.errors import TagProtected
from registry_control.catalog.models import Tag
from registry_control.catalog.services import images, pulls, tags
from registry_control.common.errors import NotFound, ServiceError
from registry_control.common.models import NOT_DELETING
from registry_control.gc.services import retention
from registry_control.recycling.services import emptying, restoring
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import parse_tag
from registry_data.registry import blobs, manifests
from registry_data.registry.authorization import require_push
from tests.integration.gc.documents import make_image, make_index
from tests.integration.gc.installation import (
    REPOSITORIES,
    choices,
    digests,
    lists_of_digests,
    one_of,
    status_of,
    tag_names,
)
from tests.integration.gc.life_cycle import Deletion, ImageModel, ManifestModel
from tests.integration.gc.namespace_rules import NamespaceRules
from tests.integration.gc.retention_model import NOTHING, POLICIES, Policy

_promises: Final = st.lists(st.sampled_from(["head", "upload", "replicate"]), min_size=2, max_size=2)


class ContentRules(NamespaceRules):
    """What happens to tags, manifests, images and blobs."""

    @rule(which=choices, contents=lists_of_digests, tag=tag_names | st.none(), promises=_promises)
    def push(self, which: int, contents: list[str], tag: str | None, promises: list[str]) -> None:
        """A whole push: a promise of each blob, then the manifest, which must be accepted."""
        self._push(self._repository(which), contents, tag, promises)

    def _push(self, repository: int, contents: list[str], tag: str | None, promises: Sequence[str]) -> None:
        for digest, way in zip(contents, promises, strict=False):
            if not self._namespace(repository).is_there:
                break
            if way != "upload":
                self._request(way, repository, repository, digest)
            if not self._is_kept(repository, digest):
                self._request("upload", repository, repository, digest)
            assert self._is_kept(repository, digest)
        self._put(repository, make_image(contents), tag)

    @rule(which=choices, contents=lists_of_digests, tag=tag_names | st.none())
    def put(self, which: int, contents: list[str], tag: str | None) -> None:
        """PUT of a manifest, whatever blobs there are; with another tag this is re-tagging."""
        self._put(self._repository(which), make_image(contents), tag)

    @rule(which=choices, first=choices, second=choices, tag=tag_names | st.none())
    def put_index(self, which: int, first: int, second: int, tag: str | None) -> None:
        """PUT of an index of one or two manifests, which may be indexes."""
        for repository in one_of([n for n in REPOSITORIES if self.models[n].manifests], which):
            known = [*self.models[repository].manifests.values()]
            children = dict.fromkeys([*one_of(known, first), *one_of(known, second)])
            self._put(repository, make_index([*children]), tag)

    @rule(
        which=choices,
        contents=lists_of_digests,
        subject=lists_of_digests,
        of=st.none() | choices,
    )
    def put_referrer(self, which: int, contents: list[str], subject: list[str], of: int | None) -> None:
        """PUT of a signature of a manifest that is there, or that may come later or never."""
        repository = self._repository(which)
        known = [] if of is None else [*self.models[repository].manifests.values()]
        signed = next(one_of(known, of or 0), make_image(subject))
        self._put(repository, make_image(contents, subject=signed), None)

    def _put(self, repository: int, manifest: ManifestModel, tag: str | None) -> None:
        model = self.models[repository]
        status = status_of(
            lambda: manifests.put(
                require_push(self._credentials(repository), self.names[repository]),
                Digest.parse(manifest.digest) if tag is None else parse_tag(tag),
                payload=manifest.payload,
                content_type=manifest.media_type,
                more_tags=(),
                store=self.store,
            )
        )
        if not self._namespace(repository).is_there:
            assert status == HTTPStatus.FORBIDDEN
        elif status is None:
            is_moved = tag is not None and model.tags.get(tag, manifest.digest) != manifest.digest
            assert not (tag and is_moved and self._protects(repository, tag)), "a protected tag was moved"
            model.put(manifest, tag, self.clock.moment)
        elif status == HTTPStatus.FORBIDDEN:
            assert tag is not None
            assert model.tags[tag] != manifest.digest
            assert self._protects(repository, tag)
        else:
            assert status == HTTPStatus.BAD_REQUEST
            there = model.must_have(self.clock.moment) - self.broken.keys()
            assert not manifest.blobs <= there, "a promise was broken"

    @rule(which=choices, by_api=st.booleans())
    def untag(self, which: int, by_api: bool) -> None:
        """DELETE of a tag on either plane; its manifest stays."""
        tagged = [(number, tag) for number in REPOSITORIES for tag in self.models[number].tags]
        for repository, tag in one_of(tagged, which):
            image_id, model = self._image_id(repository), self.models[repository]
            if self._is_refused(partial(self._untag, repository, tag, by_api=by_api), repository, [tag]):
                return
            kept = {tag: model.tags[tag]}
            self._keep("tag", repository, image_id, {}, kept, f"{self.names[repository]}:{tag}")
            model.untag(tag, self.clock.moment)

    def _untag(self, repository: int, tag: str, *, by_api: bool) -> None:
        if by_api:
            found = Tag.objects.filter(NOT_DELETING, image=self._image_id(repository), name=tag).get()
            tags.delete(principal=self._key(repository).principal, tag_id=found.pk)
        else:
            manifests.delete(self._credentials(repository), self.names[repository], parse_tag(tag))

    def _is_refused(self, call: Callable[[], object], repository: int, deleted: Iterable[str]) -> bool:
        """Whether a deletion is refused because of protected tags; only these are a reason."""
        status = HTTPStatus.OK
        try:
            call()
        except (ProtocolError, TagProtected) as error:
            status = error.status
        is_protected = any(self._protects(repository, tag) for tag in deleted)
        assert status == (HTTPStatus.FORBIDDEN if is_protected else HTTPStatus.OK)
        return is_protected

    @rule(which=choices)
    def delete_manifest(self, which: int) -> None:
        """DELETE of a manifest by its digest."""
        pushed = [(number, digest) for number in REPOSITORIES for digest in self.models[number].manifests]
        for repository, digest in one_of(pushed, which):
            tagged = [tag for tag, target in self.models[repository].tags.items() if target == digest]
            name, parsed = self.names[repository], Digest.parse(digest)
            call = partial(manifests.delete, self._credentials(repository), name, parsed)
            if not self._is_refused(call, repository, tagged):
                self._manifest_is_deleted(repository, digest)

    @rule(which=choices, digest=digests)
    def delete_blob(self, which: int, digest: str) -> None:
        """DELETE of a blob, which is refused while a manifest lists it."""
        self._delete_blob(self._repository(which), digest)

    def _delete_blob(self, repository: int, digest: str) -> None:
        credentials, name = self._credentials(repository), self.names[repository]
        if digest in self.broken:
            return
        self._note_needs()
        status = status_of(lambda: blobs.delete(credentials, name, Digest.parse(digest)))
        if digest in self.models[repository].linked():
            assert status == HTTPStatus.METHOD_NOT_ALLOWED
            return
        if not self._namespace(repository).is_there:
            assert status == HTTPStatus.FORBIDDEN
            return
        assert status in (None, HTTPStatus.NOT_FOUND)
        assert status is None or not self._is_kept(repository, digest)
        self.models[repository].delete_blob(digest)
        self._expect_refusals()

    @rule(which=choices, policy=st.sampled_from([*POLICIES, NOTHING]))
    def set_retention(self, which: int, policy: Policy) -> None:
        """PUT of the retention of a namespace."""
        for number in one_of(self._there(), which):
            self._set_retention(number, policy)

    def _set_retention(self, number: int, policy: Policy) -> None:
        model, principal = self.namespaces[number], self.owners[number].principal
        assert model.id is not None
        retention.put(principal=principal, namespace_id=model.id, document=dict(policy))
        model.policy = policy

    @rule(which=choices)
    def pull(self, which: int) -> None:
        """GET of a manifest by its tag, whose time is recorded."""
        tagged = [(number, tag) for number in REPOSITORIES for tag in self.models[number].tags]
        for repository, tag in one_of(tagged, which):
            self._pull(repository, tag)

    def _pull(self, repository: int, tag: str) -> None:
        name, reference = self.names[repository], parse_tag(tag)
        found = manifests.get(self._credentials(repository), name, reference, with_payload=False)
        assert found.digest == self.models[repository].tags[tag]
        pulls.record({found.pull: 0.0})
        self.models[repository].pull(tag, self.clock.moment)

    @rule(which=choices)
    def delete_image(self, which: int) -> None:
        """DELETE of an image by the management API."""
        for repository in one_of([n for n in REPOSITORIES if self.models[n].was_pushed], which):
            self._delete_image(repository)

    def _delete_image(self, repository: int) -> None:
        image_id, model = self._image_id(repository), self.models[repository]
        call = partial(images.delete, principal=self._key(repository).principal, image_id=image_id)
        if self._is_refused(call, repository, model.tags):
            return
        self.ended_images.add(image_id)
        name = str(self.names[repository])
        self._keep("image", repository, image_id, model.manifests, model.tags, name)
        model.delete()
        self._expect_refusals()

    @rule(which=choices, name=tag_names | st.none())
    def restore(self, which: int, name: str | None) -> None:
        """Restore a tag, a manifest or an image; a tag also under another name."""
        self._restore_one(which, name)

    def _restore_one(self, which: int, name: str | None) -> None:
        for entry_id, deleted in one_of([*self.bin.items()], which):
            self._restore(entry_id, deleted, None if deleted.kind == "image" else name)

    def _restore(self, entry_id: UUID, deleted: Deletion, name: str | None) -> None:
        repository = self._place_of(deleted)
        if repository is None:
            obstacle: str | None = "its namespace is in the recycle bin"
        else:
            model, current = self.models[repository], self._find_image(repository)
            obstacle = deleted.obstacle(model, current, name)
        principal, before = self._key(deleted.repository).principal, self._entries()
        try:
            restoring.restore(principal=principal, entry_id=entry_id, name=name)
        except NotFound:
            self._check_expired(entry_id)
        except ServiceError:
            if obstacle is None:
                raise
        else:
            assert obstacle is None
            del self.bin[entry_id]
            if deleted.kind == "image" and current is not None:
                self._has_made_way(current, model)
            self._keep_tags(repository, deleted, deleted.stays_in_bin(model, name))
            deleted.restore(model, name)
            if deleted.kind == "manifest":
                self._bring_back(model, deleted, before - self._entries())

    def _has_made_way(self, image_id: UUID, model: ImageModel) -> None:
        """An image of the name, to which nothing was pushed, is deleted with its promises."""
        self.ended_images.add(image_id)
        model.end_promises()
        self._expect_refusals()

    def _keep_tags(self, repository: int | None, restored: Deletion, names: Iterable[str]) -> None:
        """Tags that stay in the bin when their manifest leaves it have entries of their own."""
        for tag in names:
            assert repository is not None
            kept = replace(restored, kind="tag", manifests={}, tags={tag: restored.tags[tag]})
            self.bin[self._new_entry(f"{self.names[repository]}:{tag}")] = kept

    def _bring_back(self, model: ImageModel, restored: Deletion, taken_out: set[UUID]) -> None:
        """Children and referrers that rules have removed come back with a manifest, and only these.

        Those whose time has passed may be there still, or not any more.
        """
        of_rules = {
            key: each
            for key, each in self.bin.items()
            if each.by_rule and each.kind == "manifest" and each.image_id == restored.image_id
        }
        kept = {
            manifest.digest: manifest
            for key, each in of_rules.items()
            for manifest in each.manifests.values()
            if key in taken_out or each.expires_at > self.clock.moment
        }
        (digest,) = restored.manifests
        expected = model.comes_back_with(digest, kept.values())
        for key in taken_out & self.bin.keys():
            brought = self.bin.pop(key)
            assert brought.by_rule
            expected -= brought.manifests.keys()
            brought.restore(model, None)
        assert not expected

    def _place_of(self, deleted: Deletion) -> int | None:
        """The repository that something was deleted from; None while its namespace is deleted."""
        image = self.names[deleted.repository].image
        places = (n for n in REPOSITORIES if self._namespace(n) is deleted.namespace)
        return next((n for n in places if self.names[n].image == image), None)

    def _check_expired(self, entry_id: UUID) -> None:
        assert self.bin.pop(entry_id).expires_at <= self.clock.moment

    @rule(which=choices)
    def purge(self, which: int) -> None:
        """Delete something for good."""
        for entry_id, deleted in one_of([*self.bin.items()], which):
            try:
                emptying.purge(principal=self._key(deleted.repository).principal, entry_id=entry_id)
            except NotFound:
                self._check_expired(entry_id)
            else:
                del self.bin[entry_id]
