"""The state machine of the life cycle of content: what may happen, and what must hold after each event.

Hypothesis chooses requests, background tasks, the steps at which others come in between, kills, storage
errors, lost content and passing time. After each of them, everything acknowledged and not deleted must be
readable, unless its content was lost; what nothing refers to stays for the grace period; and every object of
the storage has a row. At the end, once every lease and period is over, database and storage must contain
exactly what is acknowledged and not deleted, and nothing else.

`installation` has the product and its model; `request_steps`, `namespace_rules`, `content_rules` and
`step_rules` have the events.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import pytest
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from registry_control.catalog.models import (
    Blob,
    BlobLease,
    BlobLink,
    BlobReview,
    Image,
    Manifest,
    Tag,
    UploadSession,
)
from registry_control.common.models import NOT_DELETING
from registry_control.db.sql import rows, time_from_db, time_parameter, uuid_from_db
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_data.storage.base import Key
from tests.integration.gc import retention_model
from tests.integration.gc.documents import CONTENTS
from tests.integration.gc.installation import (
    ALL_PERIODS,
    MANIFESTS,
    RECYCLE_BIN,
    TAGGED,
    choices,
    lists_of_digests,
    of_images,
    tag_names,
)
from tests.integration.gc.retention_model import NOTHING, POLICIES, Policy
from tests.integration.gc.step_rules import INSPECTIONS, StepRules
from tests.integration.gc.steps import GRACE

_REFERENCES: Final = """
SELECT k.image_id, b.digest, b.storage_key FROM catalog_bloblink k JOIN catalog_blob b ON b.id = k.blob_id
WHERE b.state = 'live'
UNION
SELECT l.image_id, b.digest, b.storage_key FROM catalog_bloblease l JOIN catalog_blob b ON b.id = l.blob_id
WHERE b.state = 'live' AND l.expires_at > %s
"""
_LINKS: Final = """
SELECT k.image_id, m.digest, b.digest FROM catalog_bloblink k
JOIN catalog_manifest m ON m.id = k.manifest_id JOIN catalog_blob b ON b.id = k.blob_id
"""
_PULLED: Final = "SELECT image_id, name, last_pulled_at FROM catalog_tag WHERE last_pulled_at IS NOT NULL"
_PULL_ACCURACY: Final = timedelta(hours=1)
_BUSY: Final = """
SELECT i.id FROM catalog_image i WHERE i.status = 'deleting' AND i.origin_id IS NULL AND (
    EXISTS (SELECT 1 FROM catalog_uploadsession s WHERE s.image_id = i.id AND s.is_open AND s.expires_at > %s)
    OR EXISTS (SELECT 1 FROM catalog_bloblease l WHERE l.image_id = i.id AND l.expires_at > %s)
)
"""
_KEPT_IMAGES: Final = """
SELECT i.id FROM catalog_image i JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE i.status <> 'deleting' AND n.status <> 'deleting'
"""
_SIZES: Final = "SELECT id, size, untagged_size FROM catalog_image"
_LIVE: Final = "SELECT digest FROM catalog_blob WHERE state = 'live'"
_BLOBS: Final = "SELECT id, digest, storage_key, state FROM catalog_blob"
_SESSIONS: Final = "SELECT id FROM catalog_uploadsession"
_FORGOTTEN: Final = """
SELECT b.digest FROM catalog_blob b WHERE b.state <> 'deleting'
AND NOT EXISTS (SELECT 1 FROM catalog_bloblink k WHERE k.blob_id = b.id)
AND NOT EXISTS (SELECT 1 FROM catalog_bloblease l WHERE l.blob_id = b.id)
AND NOT EXISTS (SELECT 1 FROM catalog_blobreview r WHERE r.blob_id = b.id)
"""

_ALL: Final = (Blob, BlobLink, BlobLease, Manifest, Tag, Image, Namespace)
_PENDING: Final = (RecycleBinEntry, BlobReview, BlobLease, UploadSession)
_LEVELS: Final = 10  # of indexes that list indexes: with a recycle bin, each level goes after the one above
_UPLOAD_ID: Final = re.compile("[0-9a-f]{32}")
_ROUNDS: Final = 30  # in which the background tasks must have nothing left to do


class LifeCycle(StepRules):
    """The rules with a beginning, invariants and an end."""

    @initialize(
        recycle_bin=st.sampled_from([RECYCLE_BIN, RECYCLE_BIN, timedelta()]),
        policies=st.lists(st.none() | st.sampled_from(POLICIES), min_size=2, max_size=2),
        pushes=st.lists(st.tuples(choices, lists_of_digests, tag_names | st.none()), max_size=2),
    )
    def configure(
        self,
        recycle_bin: timedelta,
        policies: Sequence[Policy | None],
        pushes: Sequence[tuple[int, list[str], str | None]],
    ) -> None:
        """An installation with or without a recycle bin, and with some content."""
        self.settings = override_settings(RECYCLE_BIN=recycle_bin)
        self.settings.enable()
        for number, policy in enumerate(policies):
            if policy is not None:
                self._set_retention(number, policy)
        for which, contents, tag in pushes:
            self._push(self._repository(which), contents, tag, ["upload"] * len(contents))

    @invariant()
    def nothing_acknowledged_is_missing(self) -> None:
        """Manifests and tags are those of the model, and listed and promised blobs are readable."""
        numbers = self._images()
        assert of_images(numbers, rows(MANIFESTS, [])) == {
            (number, manifest.digest, manifest.payload)
            for number, model in enumerate(self.models)
            for manifest in model.manifests.values()
        }
        assert of_images(numbers, rows(TAGGED, [])) == {
            (number, tag, digest)
            for number, model in enumerate(self.models)
            for tag, digest in model.tags.items()
        }
        found = of_images(numbers, rows(_REFERENCES, [time_parameter(self.clock.moment)]))
        kept = {(number, digest) for number, digest, _ in found}
        for number, model in enumerate(self.models):
            for digest in model.must_have(self.clock.moment) - self.broken.keys():
                assert (number, digest) in kept, f"{self.names[number]} has lost {digest}"
        for digest, key in {(digest, key) for _, digest, key in found}:
            assert b"".join(self.store.read(Key(key))) == CONTENTS[digest]

    @invariant()
    def the_recycle_bin_keeps_what_is_in_it(self) -> None:
        """Its content is complete until it expires."""
        current = {deleted.image_id for deleted in self.bin.values() if deleted.kind == "image"}
        current |= {uuid_from_db(pk) for (pk,) in rows(_KEPT_IMAGES, [])}
        entries = self._entries()
        live = {digest for (digest,) in rows(_LIVE, [])}
        for entry_id, deleted in self.bin.items():
            if deleted.expires_at > self.clock.moment:
                assert entry_id in entries
                if deleted.image_id in current:
                    blobs_in_it = {blob for each in deleted.manifests.values() for blob in each.blobs}
                    assert blobs_in_it <= live | self.broken.keys()
                    for digest in blobs_in_it:
                        self._is_needed(digest, self.clock.moment)
        for entry_id, recycled in self.deleted_namespaces.items():
            if recycled.expires_at > self.clock.moment:
                assert entry_id in entries
                assert recycled.namespace.linked() <= live | self.broken.keys()

    @invariant()
    def nothing_goes_before_its_grace_period_is_over(self) -> None:
        """Neither blobs that nothing refers to any more, nor objects that no row knows."""
        moment = self.clock.moment
        self._note_needs()
        found = rows(_BLOBS, [])
        there = {digest for _, digest, _, state in found if state != "deleting"}
        for digest, until in self.needed_until.items():
            assert digest in there or until + GRACE <= moment, f"{digest} was needed until {until}"
        self._check_objects()
        self._check_keys({blob_id: (digest, key) for blob_id, digest, key, _ in found})

    def _check_objects(self) -> None:
        """What was a blob's has a row as long as it is stored, so that it is found when it is to be deleted.

        Only a request that slept until its upload had expired may leave an object that no row knows.
        """
        keys = {self.place.name_of(key) for _, _, key, _ in rows(_BLOBS, [])}
        sessions = {uuid_from_db(pk).hex for (pk,) in rows(_SESSIONS, [])}
        names = {*self.place.names()}
        for name in names - keys - self.strays.keys():
            if sessions.isdisjoint(_UPLOAD_ID.findall(name)):
                assert name not in self.seen_keys
                self.strays[name] = self.clock.moment - GRACE
        self.seen_keys |= keys
        for name, since in list(self.strays.items()):
            if name not in names:
                assert since + GRACE <= self.clock.moment
                del self.strays[name]

    def _check_keys(self, blobs_found: Mapping[int, tuple[str, str]]) -> None:
        """Only content that was lost is replaced."""
        for blob_id, (digest, key) in blobs_found.items():
            assert digest in self.was_broken or self.keys_of_blobs.setdefault(blob_id, key) == key

    @invariant()
    def the_last_pull_is_known(self) -> None:
        """Exact to an hour, also of restored tags."""
        found = {(number, tag): at for number, tag, at in of_images(self._images(), rows(_PULLED, []))}
        for number, model in enumerate(self.models):
            for tag in model.tags:
                pulled_at = model.tag_times[tag].pulled_at
                if pulled_at is not None:
                    assert time_from_db(found[number, tag]) >= pulled_at - _PULL_ACCURACY

    @invariant()
    def an_image_in_use_stays(self) -> None:
        """No image is removed as idle while an upload to it runs, or a promise of it holds."""
        moment = time_parameter(self.clock.moment)
        assert {uuid_from_db(pk) for (pk,) in rows(_BUSY, [moment, moment])} <= self.ended_images

    @invariant()
    def a_live_blob_is_referenced_or_queued(self) -> None:
        """Otherwise no collector would find it (ADR 52)."""
        assert not rows(_FORGOTTEN, [])

    def teardown(self) -> None:
        """End everything; then only the content of the model is left, and after its deletion nothing."""
        for request in self.requests:
            self._kill(request)
        try:
            self._check_end()
        finally:
            self.settings.disable()

    def _check_end(self) -> None:
        self._settle()
        self._remove_strays()
        self._check_content()
        self._check_retention()
        for number in self._there():
            self._delete_namespace(number)
        self._settle()
        assert not any(model.objects.exists() for model in _ALL)
        assert not [*self.place.names()]

    def _check_retention(self) -> None:
        """What the rules do not keep has gone."""
        for _ in range(_LEVELS):
            if not any(self._removable()):
                break
            self._settle()
        assert not any(self._removable())
        for namespace in self.namespaces:
            for name, model in namespace.images.items():
                assert not retention_model.tags_left_too_long(namespace.policy, name, model)
        for number in self._there():
            self._set_retention(number, NOTHING)

    def _removable(self) -> Iterator[set[str]]:
        """The manifests of each repository that its rules let go."""
        for namespace in self.namespaces:
            for model in namespace.images.values():
                yield retention_model.removable_manifests(namespace.policy, model, self.clock.moment)

    def _remove_strays(self) -> None:
        """What no row knows is found, and a grace period later it goes."""
        self._check_objects()
        for _ in range(3 if self.strays else 0):
            for task in INSPECTIONS.values():
                task(self.store)
            self.clock.advance(GRACE)

    def _settle(self) -> None:
        """Let all periods pass and the background tasks run until nothing is left to do."""
        has_rules = any(namespace.policy is not NOTHING for namespace in self.namespaces)
        for _ in range(3 if has_rules else 0):
            self.clock.advance(timedelta(days=1.1))
            self._do_background_tasks()
        self.clock.advance(ALL_PERIODS)
        for _ in range(_ROUNDS):
            self.clock.advance(timedelta(minutes=2))  # for failed deletions
            self._do_background_tasks()
            deleting = [model.objects.exclude(NOT_DELETING) for model in (Namespace, Image, Tag)]
            pending = [*deleting, *(model.objects.all() for model in _PENDING)]
            if not any(each.exists() for each in pending):
                return
            self.clock.advance(GRACE)
        left = [f"{each.model.__name__} {each.values().first()}" for each in pending if each.exists()]
        pytest.fail(f"after {_ROUNDS} rounds the background tasks still have work: {left}")

    def _check_content(self) -> None:
        """Compare every row and file with the model."""
        self.nothing_acknowledged_is_missing()
        numbers = self._images()
        assert of_images(numbers, rows(_LINKS, [])) == {
            (number, manifest.digest, blob)
            for number, model in enumerate(self.models)
            for manifest in model.manifests.values()
            for blob in manifest.blobs
        }
        there = list(Blob.objects.values_list("digest", "storage_key", "state"))
        assert sorted((digest, state) for digest, _, state in there) == sorted(
            (digest, self.broken.get(digest, "live"))
            for digest in set[str]().union(*(model.linked() for model in self.models))
        )
        assert sorted(self.place.names()) == sorted(
            self.place.name_of(key) for _, key, state in there if state != "missing"
        )
        for number, size, untagged_size in of_images(numbers, rows(_SIZES, [])):
            model = self.models[number]
            tagged = model.blobs_of(model.reachable())
            assert size == sum(len(CONTENTS[digest]) for digest in tagged)
            assert untagged_size == sum(len(CONTENTS[digest]) for digest in model.linked() - tagged)
