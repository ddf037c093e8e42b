"""The state machine of the life cycle of content: what may happen, and what must hold after each event.

Hypothesis chooses requests, background tasks, the steps at which others come in between, kills, storage
errors, lost content and passing time. After each of them, everything acknowledged and not deleted must be
readable, unless its content was lost; what nothing refers to stays for the grace period; and every object of
the storage has a row. At the end, once every lease and period is over, database and storage must contain
exactly what is acknowledged and not deleted, and nothing else.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from registry_control.catalog import ingest
from registry_control.catalog.errors import CatalogError, TagProtected, UploadNotFound
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
from registry_control.catalog.services import deletion, images, pulls, reachability, tags, uploads
from registry_control.common.errors import NotFound, ServiceError
from registry_control.common.models import NOT_DELETING, not_deleting_sql
from registry_control.db.sql import Rows, rows, time_from_db, time_parameter, uuid_from_db
from registry_control.gc.services import enforcement, retention
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.services import checks, faults, reconcile, scrub
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import emptying, restoring
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry_data.oci.reference import Repository, parse_tag
from registry_data.registry import blobs, manifests, mounts, upload_sessions
from registry_data.registry import uploads as upload_use_cases
from registry_data.registry.authorization import Credentials, require_push
from registry_data.storage.base import BlobStore, Key, NotStored, StorageError
from registry_data.storage.keys import blob_key
from tests.factories import TestKey, digest_of, make_key, make_namespace
from tests.integration.gc import retention_model
from tests.integration.gc.life_cycle import Deletion, ImageModel, ManifestModel
from tests.integration.gc.retention_model import NOTHING, POLICIES, Policy
from tests.integration.gc.stepping import Clock, Operation, stepped
from tests.integration.gc.steps import GRACE, collect

LEASE: Final = timedelta(hours=4)
_T = TypeVar("_T")
UPLOAD_LIFE: Final = timedelta(hours=6)
RECYCLE_BIN: Final = timedelta(hours=3)
PROMISED_FOR: Final = LEASE * 0.75  # invariant 2
ALL_PERIODS: Final = RECYCLE_BIN + LEASE + UPLOAD_LIFE + GRACE + timedelta(hours=1)

CONTENTS: Final = {
    digest_of(content): content for content in (b"0", b"one", b"number two", b"three" * 50, b"4")
}
TAGS: Final = ("latest", "v1", "v2")
REPOSITORIES: Final = (0, 1, 2)
"""Two of one namespace, and one of another organization."""

# Not the product's queries, so that these cannot hide what is missing; and fast.
_IMAGES: Final = f"""
SELECT i.id, n.name, i.name FROM catalog_image i JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE {not_deleting_sql("i")}
"""
_MANIFESTS: Final = "SELECT image_id, digest, payload FROM catalog_manifest"
_TAGS: Final = f"""
SELECT t.image_id, t.name, m.digest FROM catalog_tag t JOIN catalog_manifest m ON m.id = t.manifest_id
WHERE {not_deleting_sql("t")}
"""
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
_SIZES: Final = "SELECT id, size, untagged_size FROM catalog_image"
_ENTRIES: Final = "SELECT id, name FROM namespaces_recyclebinentry"
_LIVE: Final = "SELECT digest FROM catalog_blob WHERE state = 'live'"
_BLOBS: Final = "SELECT id, digest, storage_key, state FROM catalog_blob"
_SESSIONS: Final = "SELECT id FROM catalog_uploadsession"
_FORGOTTEN: Final = """
SELECT b.digest FROM catalog_blob b WHERE b.state <> 'deleting'
AND NOT EXISTS (SELECT 1 FROM catalog_bloblink k WHERE k.blob_id = b.id)
AND NOT EXISTS (SELECT 1 FROM catalog_bloblease l WHERE l.blob_id = b.id)
AND NOT EXISTS (SELECT 1 FROM catalog_blobreview r WHERE r.blob_id = b.id)
"""

_PENDING: Final = (RecycleBinEntry, BlobReview, BlobLease, UploadSession)
_MOST_STRAYS: Final = 10  # of more than 20, nothing is removed: the database may be the wrong one
_LEVELS: Final = 10  # of indexes that list indexes: with a recycle bin, each level goes after the one above
_UPLOAD_ID: Final = re.compile("[0-9a-f]{32}")
_TO_THE_END: Final = 1000  # steps
_ROUNDS: Final = 30  # in which the background tasks must have nothing left to do

repositories = st.sampled_from(REPOSITORIES)
digests = st.sampled_from(sorted(CONTENTS))
lists_of_digests = st.lists(digests, min_size=1, max_size=2, unique=True)
tag_names = st.sampled_from(TAGS)
limits = st.sampled_from([1, 3, 100])
choices = st.integers(0, 11)  # of what there is, modulo its number
ways = st.lists(st.sampled_from(["head", "upload", "replicate"]), min_size=2, max_size=2)
few_steps = st.integers(1, 8)
steps = few_steps | st.just(_TO_THE_END)
requests = st.sampled_from(["head", "upload", "mount", "replicate"])
failures = st.lists(st.booleans(), min_size=1, max_size=6)
"""At which of the next points in the storage it fails."""


_TASKS: Final[Mapping[str, Callable[[BlobStore, int], object]]] = {
    "bin": lambda _, limit: emptying.expire(limit=limit),
    "settle": lambda _, limit: emptying.settle(entries=limit, limit=limit),
    "deletions": lambda store, limit: deletion.run_batch(store=store, limit=limit),
    "leases": lambda _, limit: deletion.remove_expired_leases(limit=limit),
    "uploads": lambda store, limit: uploads.expire(store=store, limit=limit),
    "idle images": lambda _, limit: deletion.remove_never_pushed(limit=limit),
    "retention": lambda _, limit: enforcement.enforce(seconds=60),
    "collector": lambda store, limit: collect(store, timedelta(), limit=limit),
}
"""The background tasks."""

_INSPECTIONS: Final[Mapping[str, Callable[[BlobStore], object]]] = {
    "reconcile": lambda store: reconcile.work(store, period=timedelta(minutes=1), grace=GRACE),
    "scrub": lambda store: scrub.work(store, period=timedelta()),
    "checks": lambda store: checks.work(store),
}
"""The tasks that compare database and storage, in the order in which one finds work for the next."""

tasks = st.sampled_from(["collector", *sorted(_TASKS)])


@dataclass
class Request:
    """An operation under way, and what its outcome depends on."""

    operation: Operation
    repository: int | None  # None for background tasks
    digest: str
    epoch: tuple[int, int]  # of the promise, when the operation committed last
    began: datetime
    must_succeed: bool
    """While nothing ends it: no fault, no deletion, no long time without progress."""

    patience: timedelta
    """How long it may stop and must succeed nevertheless."""

    stopped_at: datetime = field(init=False)

    storage_failed: bool = False
    session: list[UUID] = field(default_factory=list)
    """The upload session of a replication, which another worker continues after a kill."""

    def __post_init__(self) -> None:
        self.stopped_at = self.began


@dataclass(frozen=True)
class Place:
    """A storage that a test can list and clear."""

    store: BlobStore
    names: Callable[[], Collection[str]]
    name_of: Callable[[str], str]
    """The name of the object with the content of a storage key."""

    clear: Callable[[], None]
    damage: Callable[[str, Content], None]
    leave: Callable[[str], None]
    """Store some bytes under a name."""


class LifeCycle(RuleBasedStateMachine):
    """The product and its model."""

    def __init__(self, clock: Clock, place: Place) -> None:
        super().__init__()
        self.clock, self.place, self.store = clock, place, stepped(place.store)
        if Image.objects.exists() or Blob.objects.exists():  # left by an example that has failed
            call_command("flush", interactive=False)
            place.clear()
        first, second = make_key(), make_key()
        shared = make_namespace(first).name
        self.keys: list[TestKey] = [first, first, second]
        self.names = [
            Repository(shared, "app"),
            Repository(shared, "lib"),
            Repository(make_namespace(second).name, "app"),
        ]
        self.models = [ImageModel() for _ in self.names]
        self.policies: list[Policy] = [NOTHING for _ in self.names]
        self.ended_images: set[UUID] = set()  # that a request has deleted
        self.requests: list[Request] = []
        self.interrupted: dict[tuple[int, str], UUID] = {}  # sessions of killed replications
        self.bin: dict[UUID, Deletion] = {}  # by the id of the entry
        self.known_entries: set[UUID] = set()
        self.broken: dict[str, str] = {}  # digests whose content a scrub has found lost, and the blob's state
        self.was_broken: set[str] = set()
        self.needed_until: dict[str, datetime] = {}  # digests of blobs; by a manifest, a promise or the bin
        self.keys_of_blobs: dict[int, str] = {}
        self.seen_keys: set[str] = set()  # of blobs
        self.strays: dict[str, datetime] = {}  # objects that no row knows: since when
        self.settings = override_settings()

    @initialize(
        recycle_bin=st.sampled_from([RECYCLE_BIN, timedelta()]),
        policies=st.lists(st.none() | st.sampled_from(POLICIES), min_size=2, max_size=2),
        pushes=st.lists(st.tuples(repositories, lists_of_digests, tag_names | st.none()), max_size=2),
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
        for repository, policy in zip((0, 2), policies, strict=True):
            if policy is not None:
                self._set_retention(repository, policy)
        for repository, contents, tag in pushes:
            self._push(repository, contents, tag, ["upload"] * len(contents))

    # --- requests and tasks that run in steps -------------------------------------------------------------

    @rule(
        way=requests,
        repository=repositories,
        source=repositories,
        digest=digests,
        pieces=st.sampled_from([1, 2]),
        count=steps,
    )
    def request(self, way: str, repository: int, source: int, digest: str, pieces: int, count: int) -> None:
        """A request that promises a blob, or the same by a worker that replicates."""
        self._request(way, repository, source, digest, pieces=pieces, count=count)

    def _request(
        self,
        way: str,
        repository: int,
        source: int,
        digest: str,
        *,
        pieces: int = 1,
        count: int = _TO_THE_END,
    ) -> Request:
        """Begin a request: an upload, a mount from a source, a HEAD, or the replication of a blob.

        A client skips the upload after a HEAD. A replication continues where a killed worker has stopped.
        """
        kept = self._is_kept(repository, digest)
        call: Callable[[Request], Any]
        match way:
            case "upload":
                call, sure = lambda _: self._upload(repository, digest, pieces), True
            case "replicate":
                call, sure = lambda request: self._replicate(request, repository, digest), True
            case "head":
                call, sure = lambda _: self._head(repository, digest), kept
            case _:
                is_own = self.keys[source] is self.keys[repository]
                call = lambda _: self._mount(repository, source, digest)  # noqa: E731
                sure = kept and is_own and self._is_kept(source, digest)
        patience = PROMISED_FOR if way in ("upload", "replicate") else timedelta()
        return self._begin(call, repository, digest, count, sure=sure, patience=patience)

    def _upload(self, repository: int, digest: str, pieces: int) -> bool:
        name, content, claimed = self.names[repository], CONTENTS[digest], Digest.parse(digest)
        credentials = self._credentials(repository)
        pusher = require_push(credentials, name)
        session = upload_sessions.start(pusher, algorithm="sha256", store=self.store)
        half, offset = (len(content) // 2 if pieces == 2 else 0), 0
        if half:
            upload = upload_sessions.find(credentials, name, session, purpose=upload_sessions.TO_WRITE)
            offset = upload_use_cases.append_small(content[:half], upload, at=0, store=self.store)
        upload = upload_sessions.find(credentials, name, session, purpose=upload_sessions.TO_WRITE)
        upload_use_cases.finish_small(content[half:], claimed, upload, at=offset, store=self.store)
        return True

    def _mount(self, repository: int, source: int, digest: str) -> bool:
        return mounts.mount(
            self._credentials(repository),
            self.names[repository],
            Digest.parse(digest),
            source=self.names[source],
        )

    def _head(self, repository: int, digest: str) -> bool:
        credentials, name, parsed = (
            self._credentials(repository),
            self.names[repository],
            Digest.parse(digest),
        )
        found = blobs.find(credentials, name, parsed, lease=LEASE)
        if found.lease_is_due:
            blobs.renew_lease(credentials, name, parsed)
        return True

    def _replicate(self, request: Request, repository: int, digest: str) -> bool:
        claimed, content = Digest.parse(digest), CONTENTS[digest]
        name, key = self.names[repository], self.keys[repository]
        pusher = require_push(self._credentials(repository), name)
        assert pusher.record.namespace_id is not None
        image_id = images.get_or_create(
            actor=key.actor, namespace_id=pusher.record.namespace_id, name=name.image
        )

        def read(offset: int) -> Iterator[bytes]:
            middle = (offset + len(content)) // 2
            yield content[offset:middle]
            yield content[middle:]

        session = self.interrupted.pop((repository, digest), None)
        if session is not None:
            request.session.append(session)
            try:
                ingest.continue_blob(session, read, image_id=image_id, claimed=claimed, store=self.store)
            except UploadNotFound:
                request.session.clear()
            else:
                return True
        session = ingest.start_blob(actor=key.actor, image_id=image_id, claimed=claimed, store=self.store)
        request.session.append(session)
        ingest.continue_blob(session, read, image_id=image_id, claimed=claimed, store=self.store)
        return True

    @rule(task=tasks, limit=limits, count=steps)
    def work(self, task: str, limit: int, count: int) -> None:
        """One call of a background task, by one of several workers."""
        self._work(task, limit, count)

    def _work(self, task: str, limit: int, count: int) -> Request:
        return self._begin(lambda _: _TASKS[task](self.store, limit), None, "", count, sure=True)

    @rule(
        way=requests,
        repository=repositories,
        source=repositories,
        digest=digests,
        was_pushed=st.booleans(),
        pause=st.sampled_from([0, 2.1]),
        before=st.integers(0, 12),
        hours=st.sampled_from([0, 2.1, 5.1, 13]),
        task=st.sampled_from(
            ["collector", "collector", "idle images", "uploads", "leases", "bin", "retention"]
        ),
        after=few_steps,
        restored=st.none() | choices,
    )
    def race(
        self,
        way: str,
        repository: int,
        source: int,
        digest: str,
        was_pushed: bool,
        pause: float,
        before: int,
        hours: float,
        task: str,
        after: int,
        restored: int | None,
    ) -> None:
        """A request stops; time passes; a task begins; the request goes on to its end, and then the task.

        The blob may be there from an earlier upload.
        """
        if was_pushed:
            self._request("upload", repository, repository, digest)
        self._pass_time(pause)
        self._race((way, repository, source, digest), before, hours, task, after, restored)

    @rule(
        way=requests,
        which=choices,
        digest=digests,
        before=st.integers(0, 9),
        task=st.sampled_from(["collector", "collector", "idle images"]),
        after=few_steps,
    )
    def race_for_dead_content(
        self, way: str, which: int, digest: str, before: int, task: str, after: int
    ) -> None:
        """A request for a blob, or in an image, that had one promise, which has ended."""
        unused = [number for number in REPOSITORIES if not self.models[number].was_pushed]
        for repository in _one_of(unused if task == "idle images" else REPOSITORIES, which):
            self._request("upload", repository, repository, digest)
            hours = 13 if task == "idle images" else 5.1
            self._race((way, repository, repository, digest), before, hours, task, after, None)

    def _race(
        self,
        arguments: tuple[str, int, int, str],
        before: int,
        hours: float,
        task: str,
        after: int,
        restored: int | None,
    ) -> None:
        request = self._request(*arguments, count=before) if before else None
        self._pass_time(hours)
        self._do_background_tasks(without=task)
        running = self._work(task, 100, after)
        if restored is not None:
            self._restore_one(restored, None)
        if request is None:
            self._request(*arguments)
        else:
            self._advance(request, _TO_THE_END)
        self._advance(running, _TO_THE_END)

    @rule(task=tasks, failing=failures)
    def work_on_bad_storage(self, task: str, failing: list[bool]) -> None:
        """A background task whose calls of the storage fail or succeed."""
        self._run(partial(_TASKS[task], self.store, 100), failing)

    @rule(failing=st.lists(failures, min_size=4, max_size=4))
    def inspect(self, failing: list[list[bool]]) -> None:
        """Compare database and storage, and look twice at what seems to be wrong."""
        for name, pattern in zip([*_INSPECTIONS, "checks"], failing, strict=True):
            self._run(partial(_INSPECTIONS[name], self.store), pattern)
            self.clock.advance(timedelta(seconds=15))

    def _run(self, call: Callable[[], object], failing: Sequence[bool] = ()) -> None:
        """Run a task to the end."""
        operation = Operation(call, on_commit=self._accept_removals, is_uninterrupted=not failing)
        operation.finish(failing=failing)
        if operation.error is not None and not (any(failing) and isinstance(operation.error, StorageError)):
            raise operation.error

    # --- what happens to them --------------------------------------------------------------------------

    @rule(which=choices, count=steps)
    def go_on(self, which: int, count: int) -> None:
        """One of the operations under way makes some more steps."""
        for request in _one_of(self.requests, which):
            self._advance(request, count)

    @rule(which=choices)
    def kill(self, which: int) -> None:
        """The process of one of them is killed."""
        for request in _one_of(self.requests, which):
            self.requests.remove(request)
            self._kill(request)

    @rule(
        way=requests,
        repository=repositories,
        digest=digests,
        count=st.integers(1, 16),  # all steps of an upload
        is_killed=st.booleans(),
    )
    def crash(self, way: str, repository: int, digest: str, count: int, is_killed: bool) -> None:
        """A request is killed, or the storage fails for it, at any step; then the workers look for work."""
        request = self._request(way, repository, repository, digest, count=count)
        if request in self.requests and is_killed:
            self.requests.remove(request)
            self._kill(request)
        elif request in self.requests and request.operation.calls_storage:
            self._fail(request, _TO_THE_END)
        self._do_background_tasks()

    @rule(which=choices, count=steps)
    def fail_storage(self, which: int, count: int) -> None:
        """The storage fails for one of them, before or after the call has changed something."""
        for request in _one_of([each for each in self.requests if each.operation.calls_storage], which):
            self._fail(request, count)

    def _fail(self, request: Request, count: int) -> None:
        request.must_succeed, request.storage_failed = False, True
        request.operation.fail_storage()
        if request.operation.is_over:
            count = 1
        self._advance(request, count - 1)

    @rule(
        hours=st.sampled_from([0.1, 0.9, 1.1, 1.1, 2.1, 3.1, 5, 7, 26]), rounds=st.sampled_from([0, 1, 1, 2])
    )
    def wait(self, hours: float, rounds: int) -> None:
        """Time passes, also for those that have stopped, while workers do all that is due or are late."""
        self._pass_time(hours)
        for _ in range(rounds):
            self._do_background_tasks()

    @rule(hours=st.sampled_from([1.1, 2.1, 5.1, 9]), count=steps)
    def collect_later(self, hours: float, count: int) -> None:
        """A grace period is over, perhaps leases too, before the collector makes some steps."""
        self._pass_time(hours)
        self._do_background_tasks(without="collector")
        self._work("collector", 100, count)

    def _pass_time(self, hours: float) -> None:
        self.clock.advance(timedelta(hours=hours))

    @rule(digest=digests)
    def leave(self, digest: str) -> None:
        """An object without a row is in the storage, as after a database was restored from an old copy."""
        encoded = digest.partition(":")[2]
        if len(self.strays) == _MOST_STRAYS:
            return
        key = blob_key("sha256", encoded, uuid4().hex)
        self.place.leave(self.place.name_of(key))
        self.strays[self.place.name_of(key)] = self.clock.moment

    @rule(digest=digests, content=st.sampled_from([Content.DAMAGED, Content.MISSING]))
    def lose(self, digest: str, content: Content) -> None:
        """The disk loses content, and a scrub notices it: no image has it until it is pushed again."""
        found = Blob.objects.filter(digest=digest, state=Blob.State.LIVE).values_list("pk", "storage_key")
        for blob_id, key in found:
            self.place.damage(self.place.name_of(key), content)
            assert faults.settle(blob_id, key=key, finding=Finding(content))
            self.broken[digest] = content.value
            self.was_broken.add(digest)
            for model in self.models:
                model.end_answers(digest)
            self._expect_refusals()

    # --- requests of one transaction -----------------------------------------------------------------------

    @rule(repository=repositories, contents=lists_of_digests, tag=tag_names | st.none(), ways=ways)
    def push(self, repository: int, contents: list[str], tag: str | None, ways: list[str]) -> None:
        """A whole push: a promise of each blob, then the manifest, which must be accepted."""
        self._push(repository, contents, tag, ways)

    def _push(self, repository: int, contents: list[str], tag: str | None, ways: Sequence[str]) -> None:
        for digest, way in zip(contents, ways, strict=False):
            if way != "upload":
                self._request(way, repository, repository, digest)
            if not self._is_kept(repository, digest):
                self._request("upload", repository, repository, digest)
            assert self._is_kept(repository, digest)
        self._put(repository, _image(contents), tag)

    @rule(repository=repositories, contents=lists_of_digests, tag=tag_names | st.none())
    def put(self, repository: int, contents: list[str], tag: str | None) -> None:
        """PUT of a manifest, whatever blobs there are; with another tag this is re-tagging."""
        self._put(repository, _image(contents), tag)

    @rule(which=choices, first=choices, second=choices, tag=tag_names | st.none())
    def put_index(self, which: int, first: int, second: int, tag: str | None) -> None:
        """PUT of an index of one or two manifests, which may be indexes."""
        for repository in _one_of([n for n in REPOSITORIES if self.models[n].manifests], which):
            known = [*self.models[repository].manifests.values()]
            children = dict.fromkeys([*_one_of(known, first), *_one_of(known, second)])
            self._put(repository, _index([*children]), tag)

    @rule(
        repository=repositories,
        contents=lists_of_digests,
        subject=lists_of_digests,
        which=st.none() | choices,
    )
    def put_referrer(
        self, repository: int, contents: list[str], subject: list[str], which: int | None
    ) -> None:
        """PUT of a signature of a manifest that is there, or that may come later or never."""
        known = [] if which is None else [*self.models[repository].manifests.values()]
        of = next(_one_of(known, which or 0), _image(subject))
        self._put(repository, _image(contents, subject=of), None)

    @rule(which=choices, by_api=st.booleans())
    def untag(self, which: int, by_api: bool) -> None:
        """DELETE of a tag on either plane; its manifest stays."""
        tagged = [(number, tag) for number in REPOSITORIES for tag in self.models[number].tags]
        for repository, tag in _one_of(tagged, which):
            image_id, model = self._image_id(repository), self.models[repository]
            if self._is_refused(partial(self._untag, repository, tag, by_api=by_api), repository, [tag]):
                return
            kept = {tag: model.tags[tag]}
            self._keep("tag", repository, image_id, {}, kept, f"{self.names[repository]}:{tag}")
            model.untag(tag, self.clock.moment)

    def _untag(self, repository: int, tag: str, *, by_api: bool) -> None:
        if by_api:
            found = Tag.objects.filter(NOT_DELETING, image=self._image_id(repository), name=tag).get()
            tags.delete(principal=self.keys[repository].principal, tag_id=found.pk)
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

    def _protects(self, repository: int, tag: str) -> bool:
        return retention_model.protects(self.policies[repository], tag)

    @rule(which=choices)
    def delete_manifest(self, which: int) -> None:
        """DELETE of a manifest by its digest."""
        pushed = [(number, digest) for number in REPOSITORIES for digest in self.models[number].manifests]
        for repository, digest in _one_of(pushed, which):
            tagged = [tag for tag, target in self.models[repository].tags.items() if target == digest]
            name, parsed = self.names[repository], Digest.parse(digest)
            call = partial(manifests.delete, self._credentials(repository), name, parsed)
            if not self._is_refused(call, repository, tagged):
                self._manifest_is_deleted(repository, digest)

    def _manifest_is_deleted(self, repository: int, digest: str) -> None:
        model = self.models[repository]
        tagged = {tag: digest for tag, target in model.tags.items() if target == digest}
        kept, name = {digest: model.manifests[digest]}, f"{self.names[repository]}@{digest}"
        self._keep("manifest", repository, self._image_id(repository), kept, tagged, name)
        model.delete_manifest(digest, self.clock.moment, promised_until=self.clock.moment + PROMISED_FOR)

    @rule(repository=repositories, digest=digests)
    def delete_blob(self, repository: int, digest: str) -> None:
        """DELETE of a blob, which is refused while a manifest lists it."""
        credentials, name = self._credentials(repository), self.names[repository]
        if digest in self.broken:
            return
        status = _status(lambda: blobs.delete(credentials, name, Digest.parse(digest)))
        if digest in self.models[repository].linked():
            assert status == HTTPStatus.METHOD_NOT_ALLOWED
            return
        assert status in (None, HTTPStatus.NOT_FOUND)
        assert status is None or not self._is_kept(repository, digest)
        self.models[repository].delete_blob(digest)
        self._expect_refusals()

    @rule(repository=repositories, policy=st.sampled_from([*POLICIES, NOTHING]))
    def set_retention(self, repository: int, policy: Policy) -> None:
        """PUT of the retention of a namespace."""
        self._set_retention(repository, policy)

    def _set_retention(self, repository: int, policy: Policy) -> None:
        namespace = self.names[repository].namespace
        found = Namespace.objects.get(NOT_DELETING, name=namespace)
        retention.put(principal=self.keys[repository].principal, namespace_id=found.pk, document=dict(policy))
        for number, name in enumerate(self.names):
            if name.namespace == namespace:
                self.policies[number] = policy

    @rule(which=choices)
    def pull(self, which: int) -> None:
        """GET of a manifest by its tag, whose time is recorded."""
        tagged = [(number, tag) for number in REPOSITORIES for tag in self.models[number].tags]
        for repository, tag in _one_of(tagged, which):
            name, reference = self.names[repository], parse_tag(tag)
            found = manifests.get(self._credentials(repository), name, reference, with_payload=False)
            assert found.digest == self.models[repository].tags[tag]
            pulls.record({found.pull: 0.0})
            self.models[repository].pull(tag, self.clock.moment)

    def _accept_removals(self) -> None:
        """After a commit: what retention has removed goes from the model, if the rules let it go."""
        if any(policy is not NOTHING for policy in self.policies):
            numbers = self._images()
            tagged, pushed = _of(numbers, rows(_TAGS, [])), _of(numbers, rows(_MANIFESTS, []))
            for number in numbers.values():
                there = {digest for at, digest, _ in pushed if at == number}
                self._accept_tags(number, {tag for at, tag, _ in tagged if at == number}, there)
                self._accept_manifests(number, there)

    def _accept_tags(self, number: int, left: set[str], there: set[str]) -> None:
        model, name, policy = self.models[number], self.names[number], self.policies[number]
        gone = [tag for tag, digest in model.tags.items() if tag not in left and digest in there]
        for tag in gone:
            assert retention_model.may_remove_tag(policy, name.image, model, tag, self.clock.moment), tag
        for tag in gone:
            kept = {tag: model.tags[tag]}
            self._keep("tag", number, self._image_id(number), {}, kept, f"{name}:{tag}")
            model.untag(tag, self.clock.moment)

    def _accept_manifests(self, number: int, there: set[str]) -> None:
        model = self.models[number]
        gone = model.manifests.keys() - there
        if gone:
            assert gone <= retention_model.removable_manifests(
                self.policies[number], model, self.clock.moment
            )
        for digest in gone:
            self._manifest_is_deleted(number, digest)

    @rule(which=choices)
    def delete_image(self, which: int) -> None:
        """DELETE of an image by the management API."""
        for repository in _one_of([n for n in REPOSITORIES if self.models[n].was_pushed], which):
            self._delete_image(repository)

    @rule(which=choices, name=tag_names | st.none())
    def restore(self, which: int, name: str | None) -> None:
        """Restore a tag, a manifest or an image; a tag also under another name."""
        self._restore_one(which, name)

    def _restore_one(self, which: int, name: str | None) -> None:
        for entry_id, deleted in _one_of([*self.bin.items()], which):
            self._restore(entry_id, deleted, None if deleted.kind == "image" else name)

    def _restore(self, entry_id: UUID, deleted: Deletion, name: str | None) -> None:
        model, current = self.models[deleted.repository], self._find_image(deleted.repository)
        obstacle = deleted.obstacle(model, current, name)
        principal = self.keys[deleted.repository].principal
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
            deleted.restore(model, name)

    @rule(which=choices)
    def purge(self, which: int) -> None:
        """Delete something for good."""
        for entry_id, deleted in _one_of([*self.bin.items()], which):
            try:
                emptying.purge(principal=self.keys[deleted.repository].principal, entry_id=entry_id)
            except NotFound:
                self._check_expired(entry_id)
            else:
                del self.bin[entry_id]

    # --- what must always hold --------------------------------------------------------------------------

    @invariant()
    def nothing_acknowledged_is_missing(self) -> None:
        """Manifests and tags are those of the model, and listed and promised blobs are readable."""
        numbers = self._images()
        assert _of(numbers, rows(_MANIFESTS, [])) == {
            (number, manifest.digest, manifest.payload)
            for number, model in enumerate(self.models)
            for manifest in model.manifests.values()
        }
        assert _of(numbers, rows(_TAGS, [])) == {
            (number, tag, digest)
            for number, model in enumerate(self.models)
            for tag, digest in model.tags.items()
        }
        found = _of(numbers, rows(_REFERENCES, [time_parameter(self.clock.moment)]))
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
        current |= {uuid_from_db(pk) for pk in self._images()}
        entries = {uuid_from_db(pk) for pk, _ in rows(_ENTRIES, [])}
        live = {digest for (digest,) in rows(_LIVE, [])}
        for entry_id, deleted in self.bin.items():
            if deleted.expires_at > self.clock.moment:
                assert entry_id in entries
                if deleted.image_id in current:
                    blobs_in_it = {blob for each in deleted.manifests.values() for blob in each.blobs}
                    assert blobs_in_it <= live | self.broken.keys()
                    for digest in blobs_in_it:
                        self._is_needed(digest, self.clock.moment)

    @invariant()
    def nothing_goes_before_its_grace_period_is_over(self) -> None:
        """Neither blobs that nothing refers to any more, nor objects that no row knows."""
        moment = self.clock.moment
        for model in self.models:
            for digest in model.linked():
                self.needed_until[digest] = moment
            for digest, until in model.promises.items():
                self._is_needed(digest, min(until, moment))
        found = rows(_BLOBS, [])
        there = {digest for _, digest, _, state in found if state != "deleting"}
        for digest, until in self.needed_until.items():
            assert digest in there or until + GRACE <= moment, f"{digest} was needed until {until}"
        self._check_objects()
        self._check_keys({blob_id: (digest, key) for blob_id, digest, key, _ in found})

    def _is_needed(self, digest: str, until: datetime) -> None:
        self.needed_until[digest] = max(until, self.needed_until.get(digest, until))

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
        found = {(number, tag): at for number, tag, at in _of(self._images(), rows(_PULLED, []))}
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
        for number, model in enumerate(self.models):
            if model.was_pushed:
                self._delete_image(number)
        self._settle()
        assert not any(model.objects.exists() for model in (Blob, BlobLink, BlobLease, Manifest, Tag, Image))
        assert not [*self.place.names()]

    def _check_retention(self) -> None:
        """What the rules do not keep has gone."""
        for _ in range(_LEVELS):
            if not any(self._removable()):
                break
            self._settle()
        assert not any(self._removable())
        for number, (model, policy) in enumerate(zip(self.models, self.policies, strict=True)):
            assert not retention_model.tags_left_too_long(policy, self.names[number].image, model)
        for number in (0, 2):
            self._set_retention(number, NOTHING)

    def _removable(self) -> Iterator[set[str]]:
        """The manifests of each repository that its rules let go."""
        for model, policy in zip(self.models, self.policies, strict=True):
            yield retention_model.removable_manifests(policy, model, self.clock.moment)

    def _do_background_tasks(self, *, without: str = "") -> None:
        """One call of each task."""
        for name, task in _TASKS.items():
            if name != without:
                self._run(partial(task, self.store, 100))
        reachability.recount_stale(limit=100)

    def _remove_strays(self) -> None:
        """What no row knows is found, and a grace period later it goes."""
        self._check_objects()
        for _ in range(3 if self.strays else 0):
            for task in _INSPECTIONS.values():
                task(self.store)
            self.clock.advance(GRACE)

    def _settle(self) -> None:
        """Let all periods pass and the background tasks run until nothing is left to do."""
        has_rules = any(policy is not NOTHING for policy in self.policies)
        for _ in range(3 if has_rules else 0):
            self.clock.advance(timedelta(days=1.1))
            self._do_background_tasks()
        self.clock.advance(ALL_PERIODS)
        for _ in range(_ROUNDS):
            self.clock.advance(timedelta(minutes=2))  # for failed deletions
            self._do_background_tasks()
            deleting = [model.objects.exclude(NOT_DELETING) for model in (Image, Tag)]
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
        assert _of(numbers, rows(_LINKS, [])) == {
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
        for number, size, untagged_size in _of(numbers, rows(_SIZES, [])):
            model = self.models[number]
            tagged = model.blobs_of(model.reachable())
            assert size == sum(len(CONTENTS[digest]) for digest in tagged)
            assert untagged_size == sum(len(CONTENTS[digest]) for digest in model.linked() - tagged)

    # --- the machine itself --------------------------------------------------------------------------------

    def _begin(
        self,
        call: Callable[[Request], Any],
        repository: int | None,
        digest: str,
        count: int,
        *,
        sure: bool,
        patience: timedelta = timedelta(),
    ) -> Request:
        """Start an operation and let it make some steps."""
        epoch = (0, 0) if repository is None else self.models[repository].epoch(digest)

        def note() -> None:
            if repository is None:
                self._accept_removals()
            else:
                request.epoch = self.models[repository].epoch(digest)

        operation = Operation(lambda: call(request), on_commit=note)
        request = Request(operation, repository, digest, epoch, self.clock.moment, sure, patience)
        self.requests.append(request)
        self._advance(request, count)
        return request

    def _advance(self, request: Request, count: int) -> None:
        if request not in self.requests:
            return  # it is over
        if request.repository is not None and self.clock.moment - request.stopped_at > request.patience:
            request.must_succeed = False
        request.stopped_at = self.clock.moment
        request.operation.advance(count)
        if request.operation.is_over:
            self.requests.remove(request)
            self._conclude(request)

    def _conclude(self, request: Request) -> None:
        """Compare the outcome of an operation with the model, and record its promise."""
        operation = request.operation
        if operation.error is not None:
            self._interrupt(request)
            if request.must_succeed or not _is_refusal(operation.error, request.storage_failed):
                raise operation.error
            return
        if request.repository is None or not operation.result:
            assert request.repository is None or not request.must_succeed
            return
        model = self.models[request.repository]
        if request.epoch == model.epoch(request.digest):
            since = operation.committed_at or request.began
            assert since is not None
            self.broken.pop(request.digest, None)
            model.promise(request.digest, since + PROMISED_FOR)

    def _kill(self, request: Request) -> None:
        request.operation.kill()
        self._interrupt(request)

    def _interrupt(self, request: Request) -> None:
        """Keep the upload session of a replication for the worker that continues it."""
        for session in request.session:
            assert request.repository is not None
            self.interrupted[request.repository, request.digest] = session

    def _put(self, repository: int, manifest: ManifestModel, tag: str | None) -> None:
        model = self.models[repository]
        pusher = require_push(self._credentials(repository), self.names[repository])
        status = _status(
            lambda: manifests.put(
                pusher,
                Digest.parse(manifest.digest) if tag is None else parse_tag(tag),
                payload=manifest.payload,
                content_type=manifest.media_type,
                more_tags=(),
                store=self.store,
            )
        )
        if status is None:
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

    def _delete_image(self, repository: int) -> None:
        image_id, model = self._image_id(repository), self.models[repository]
        call = partial(images.delete, principal=self.keys[repository].principal, image_id=image_id)
        if self._is_refused(call, repository, model.tags):
            return
        self.ended_images.add(image_id)
        name = str(self.names[repository])
        self._keep("image", repository, image_id, model.manifests, model.tags, name)
        model.delete()
        self._expect_refusals()

    def _expect_refusals(self) -> None:
        """Something has ended that the requests under way may depend on."""
        for request in self.requests:
            request.must_succeed = False

    def _is_kept(self, repository: int, digest: str) -> bool:
        there = self.models[repository].must_have(self.clock.moment)
        return digest in there and digest not in self.broken

    def _credentials(self, repository: int) -> Credentials:
        return Credentials(secret=self.keys[repository].secret)

    def _images(self) -> dict[str | UUID, int]:
        """The repositories of the images that exist, by their ids as the database returns them."""
        numbers = {(name.namespace, name.image): number for number, name in enumerate(self.names)}
        return {pk: numbers[namespace, name] for pk, namespace, name in rows(_IMAGES, [])}

    def _image_id(self, repository: int) -> UUID:
        found = self._find_image(repository)
        assert found is not None
        return found

    def _find_image(self, repository: int) -> UUID | None:
        """The id of an image that exists, whether or not a manifest was ever pushed to it."""
        images = self._images().items()
        return next((uuid_from_db(pk) for pk, number in images if number == repository), None)

    def _keep(
        self,
        kind: str,
        repository: int,
        image_id: UUID,
        manifests: Mapping[str, ManifestModel],
        tags: Mapping[str, str],
        name: str,
    ) -> None:
        """Note what the recycle bin has of a deletion that has just been done, if there is one.

        The model still has what was deleted.
        """
        if not settings.RECYCLE_BIN:
            return
        new = {uuid_from_db(pk) for pk, found in rows(_ENTRIES, []) if found == name}
        (entry_id,) = new - self.known_entries
        self.known_entries.add(entry_id)
        model = self.models[repository]
        self.bin[entry_id] = Deletion(
            kind,
            repository,
            image_id,
            dict(manifests),
            dict(tags),
            self.clock.moment + settings.RECYCLE_BIN,
            dict(model.tag_times),
            dict(model.used_at),
        )

    def _check_expired(self, entry_id: UUID) -> None:
        assert self.bin.pop(entry_id).expires_at <= self.clock.moment


def _one_of(found: Sequence[_T], which: int) -> Iterator[_T]:
    """One of the elements, if there are any.

    What Hypothesis draws does not depend on the state, which depends on random ids of the product.
    """
    if found:
        yield found[which % len(found)]


def _of(numbers: dict[str | UUID, int], found: Rows) -> set[tuple[Any, ...]]:
    """Rows of images that exist, with the number of the repository instead of the image's id."""
    return {
        (numbers[image], *(bytes(value) if isinstance(value, memoryview) else value for value in values))
        for image, *values in found
        if image in numbers
    }


def _status(call: Callable[[], object]) -> HTTPStatus | None:
    """The status of a request that was refused; None if it succeeded."""
    try:
        call()
    except ProtocolError as error:
        return error.status
    return None


def _is_refusal(error: BaseException, storage_failed: bool) -> bool:
    """Whether an operation may end with this error where something has ended that it depends on."""
    if isinstance(error, ProtocolError):
        return storage_failed or error.status < 500
    # NotStored: the bytes of an upload that has expired.
    return isinstance(error, CatalogError | NotStored) or (storage_failed and isinstance(error, StorageError))


def _image(contents: Collection[str], *, subject: ManifestModel | None = None) -> ManifestModel:
    config, *layers = (
        {"mediaType": "application/octet-stream", "digest": digest, "size": len(CONTENTS[digest])}
        for digest in contents
    )
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    if subject is not None:
        document["subject"] = _descriptor(subject)
    payload = json.dumps(document).encode()
    return ManifestModel(
        digest_of(payload),
        payload,
        OCI_MANIFEST,
        blobs=frozenset(contents),
        subject=subject.digest if subject else "",
    )


def _index(children: Collection[ManifestModel]) -> ManifestModel:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_descriptor(child) for child in children],
    }
    payload = json.dumps(document).encode()
    listed = frozenset(child.digest for child in children)
    return ManifestModel(digest_of(payload), payload, OCI_INDEX, children=listed)


def _descriptor(manifest: ManifestModel) -> dict[str, object]:
    return {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.payload)}
