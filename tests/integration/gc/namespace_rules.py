"""Namespaces in the life cycle: deleted, restored, purged, expired, and created again under the same name.

A deleted namespace is gone at once, its name is free, and what was promised in it ends. A restored one has
everything that it had, except deletions in it whose own time in the recycle bin has passed.
"""

from collections.abc import Collection, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final
from uuid import UUID

from django.conf import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from registry_control.catalog.errors import TagProtected
from registry_control.catalog.models import Image
from registry_control.common.errors import AlreadyExists, NotFound
from registry_control.common.models import NOT_DELETING
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_control.recycling.services import emptying, restoring
from registry_data.oci.digest import Digest
from registry_data.oci.reference import parse_tag
from registry_data.registry import blobs, manifests
from tests.integration.gc import retention_model
from tests.integration.gc.documents import CONTENTS
from tests.integration.gc.installation import (
    LEASE,
    NAMESPACE_OF,
    NAMESPACES,
    OTHER_NAME,
    REPOSITORIES,
    TAGS,
    TO_THE_END,
    choices,
    new_namespace,
    one_of,
    status_of,
)
from tests.integration.gc.life_cycle import NamespaceDeletion
from tests.integration.gc.request_steps import Requests

_kills = st.sampled_from([TO_THE_END, TO_THE_END, TO_THE_END, 1, 2])
"""Whether a request ends, or is killed before its transaction, or after the commit."""

after_deletions = st.sampled_from([(), ("create",), ("restore",), ("create", "restore")])

_NOT_THERE: Final = HTTPStatus.FORBIDDEN
"""The answer of the data plane for a namespace that is not there, as for one that the caller may not see."""


class NamespaceRules(Requests):
    """What happens to whole namespaces."""

    @rule(which=choices, count=_kills, then=after_deletions)
    def delete_namespace(self, which: int, count: int, then: Collection[str]) -> None:
        """DELETE of a namespace by the management API; its name may be used again at once."""
        with_content = [number for number in self._there() if self.namespaces[number].linked()]
        for number in one_of(with_content or self._there(), which):
            self._delete_namespace(number, count)
            self._go_on_without(number, then)

    def _go_on_without(self, number: int, then: Collection[str]) -> None:
        """Create a namespace of the name of one that was deleted, restore the deleted one, or both.

        Then the restored one gets the other name.
        """
        if "create" in then and not self.namespaces[number].is_there:
            self._create_namespace(number)
        deleted = [key for key, each in self.deleted_namespaces.items() if each.number == number]
        if "restore" in then and deleted:
            self._restore_namespace(deleted[-1], is_renamed=self.namespaces[number].is_there)

    def _there(self) -> Sequence[int]:
        return [number for number in NAMESPACES if self.namespaces[number].is_there]

    def _delete_namespace(self, number: int, count: int = TO_THE_END) -> None:
        model, principal = self.namespaces[number], self.owners[number].principal
        assert model.id is not None
        is_protected = any(
            retention_model.protects(model.policy, tag)
            for image in model.images.values()
            for tag in image.tags
        )
        error = self._attempt(
            partial(namespaces.delete, principal=principal, namespace_id=model.id),
            partial(self._namespace_is_deleted, number),
            count,
        )
        assert error is None or isinstance(error, TagProtected), repr(error)
        assert not (is_protected and self.namespaces[number] is not model), "a protected tag was deleted"
        assert is_protected or error is None
        self._check_answers(number)

    def _namespace_is_deleted(self, number: int) -> None:
        model = self.namespaces[number]
        self._note_needs()
        self.ended_images |= {*Image.objects.filter(namespace=model.id).values_list("pk", flat=True)}
        for image in model.images.values():
            image.end_promises()
        if settings.RECYCLE_BIN:
            expires_at = self.clock.moment + settings.RECYCLE_BIN
            entry_id = self._new_entry(self.namespace_names[number])
            self.deleted_namespaces[entry_id] = NamespaceDeletion(number, model, expires_at)
        self.namespaces[number] = new_namespace(number, None)
        self._expect_refusals()

    @rule(which=choices, count=_kills)
    def create_namespace(self, which: int, count: int) -> None:
        """POST of a namespace whose name is free, perhaps because the one that had it was deleted."""
        for number in one_of([n for n in NAMESPACES[:2] if n not in self._there()], which):
            self._create_namespace(number, count)

    def _create_namespace(self, number: int, count: int = TO_THE_END) -> None:
        name, principal = self.namespace_names[number], self.owners[number].principal
        create = partial(namespaces.create, principal=principal, name=name, description="", is_public=False)
        error = self._attempt(create, partial(self._namespace_is_created, number), count)
        assert error is None, repr(error)
        self._check_answers(number)

    def _namespace_is_created(self, number: int) -> None:
        created = Namespace.objects.get(NOT_DELETING, name=self.namespace_names[number])
        self.namespaces[number] = new_namespace(number, created.pk)

    @rule(which=choices, is_renamed=st.booleans(), count=_kills)
    def restore_namespace(self, which: int, is_renamed: bool, count: int) -> None:
        """Restore a namespace, under another name if its own is in use, or for another reason."""
        for entry_id in one_of([*self.deleted_namespaces], which):
            self._restore_namespace(entry_id, is_renamed, count)

    def _restore_namespace(self, entry_id: UUID, is_renamed: bool, count: int = TO_THE_END) -> None:
        number = self.deleted_namespaces[entry_id].number
        to = OTHER_NAME[number] if is_renamed else number
        is_taken, name = self.namespaces[to].is_there, self.namespace_names[to] if is_renamed else None
        error = self._attempt(
            partial(restoring.restore, principal=self.owners[number].principal, entry_id=entry_id, name=name),
            partial(self._namespace_is_restored, entry_id, to),
            count,
        )
        if isinstance(error, NotFound):
            self._check_namespace_has_expired(entry_id)
        else:
            assert error is None or (is_taken and isinstance(error, AlreadyExists)), repr(error)
        self._check_answers(to)

    def _namespace_is_restored(self, entry_id: UUID, to: int) -> None:
        assert not self.namespaces[to].is_there, "there are two namespaces of one name"
        self.namespaces[to] = self.deleted_namespaces.pop(entry_id).namespace
        self._expect_refusals()

    def _check_namespace_has_expired(self, entry_id: UUID) -> None:
        assert self.deleted_namespaces.pop(entry_id).expires_at <= self.clock.moment

    @rule(which=choices, count=_kills)
    def purge_namespace(self, which: int, count: int) -> None:
        """Delete a namespace for good, with everything in it that is in the recycle bin."""
        for entry_id in one_of([*self.deleted_namespaces], which):
            principal = self.owners[self.deleted_namespaces[entry_id].number].principal
            purge = partial(emptying.purge, principal=principal, entry_id=entry_id)
            error = self._attempt(purge, partial(self._namespace_is_purged, entry_id), count)
            if isinstance(error, NotFound):
                self._check_namespace_has_expired(entry_id)
            else:
                assert error is None, repr(error)

    def _namespace_is_purged(self, entry_id: UUID) -> None:
        self._note_needs()
        purged = self.deleted_namespaces.pop(entry_id).namespace
        for content in [each for each, deleted in self.bin.items() if deleted.namespace is purged]:
            del self.bin[content]

    @rule(which=choices)
    def look(self, which: int) -> None:
        """Pulls by tag and HEAD of blobs, also while workers remove what was deleted."""
        self._check_answers(NAMESPACES[which % len(NAMESPACES)])

    def _check_answers(self, number: int) -> None:
        """What pulls from a namespace answer: everything that it has, and nothing that it does not have."""
        for repository in REPOSITORIES:
            if NAMESPACE_OF[repository] == number:
                self._check_tags(repository)
                self._check_blobs(repository)

    def _check_tags(self, repository: int) -> None:
        name, credentials = self.names[repository], self._credentials(repository)
        model, is_there = self.models[repository], self._namespace(repository).is_there
        missing = HTTPStatus.NOT_FOUND if is_there else _NOT_THERE
        for tag in TAGS:
            pull = partial(manifests.get, credentials, name, parse_tag(tag), with_payload=True)
            if tag in model.tags:
                assert pull().digest == model.tags[tag]
            else:
                assert status_of(pull) == missing

    def _check_blobs(self, repository: int) -> None:
        name, credentials = self.names[repository], self._credentials(repository)
        model, is_there = self.models[repository], self._namespace(repository).is_there
        for digest in CONTENTS:
            status = status_of(partial(blobs.find, credentials, name, Digest.parse(digest), lease=LEASE))
            if not is_there:
                assert status == _NOT_THERE
            elif digest in model.linked() - self.broken.keys():
                assert status is None
