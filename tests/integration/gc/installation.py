"""The product and its model for the state machine of the life cycle, and operations that run in steps.

The model has what was acknowledged and not deleted. There are three names of namespaces, with five
repositories in all: the first namespace has two; the second is of another organization; the third exists only
while one of the first name was restored under it, or a new one was created.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from registry_control.catalog.errors import CatalogError
from registry_control.catalog.models import Blob, Image
from registry_control.catalog.services import deletion, reachability, uploads
from registry_control.common.models import not_deleting_sql
from registry_control.db.sql import Rows, rows, uuid_from_db
from registry_control.gc.services import enforcement
from registry_control.integrity.policy import Content
from registry_control.namespaces.models import Namespace
from registry_control.recycling.services import emptying
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import Credentials
from registry_data.storage.base import BlobStore, NotStored, StorageError
from tests.factories import TestKey, make_key, make_namespace, unique
from tests.integration.gc import retention_model
from tests.integration.gc.documents import CONTENTS
from tests.integration.gc.life_cycle import (
    Deletion,
    ImageModel,
    ManifestModel,
    NamespaceDeletion,
    NamespaceModel,
)
from tests.integration.gc.retention_model import NOTHING
from tests.integration.gc.stepping import Clock, Operation, stepped
from tests.integration.gc.steps import GRACE, collect

LEASE: Final = timedelta(hours=4)
UPLOAD_LIFE: Final = timedelta(hours=6)
RECYCLE_BIN: Final = timedelta(hours=3)
PROMISED_FOR: Final = LEASE * 0.75  # invariant 2
ALL_PERIODS: Final = RECYCLE_BIN + LEASE + UPLOAD_LIFE + GRACE + timedelta(hours=1)

TAGS: Final = ("latest", "v1", "v2")
_IMAGES_OF: Final = (("app", "lib"), ("app",), ("app", "lib"))
"""The names of the images in each namespace."""

NAMESPACES: Final = range(len(_IMAGES_OF))
REPOSITORIES: Final = range(sum(map(len, _IMAGES_OF)))
NAMESPACE_OF: Final = [number for number in NAMESPACES for _ in _IMAGES_OF[number]]
"""Of each repository."""

OTHER_NAME: Final = (2, 1, 0)
"""Under which of the names a namespace is restored when its own is in use."""

TO_THE_END: Final = 1000  # steps

# Not the product's queries, so that these cannot hide what is missing; and fast.
_IMAGES: Final = f"""
SELECT i.id, n.name, i.name FROM catalog_image i JOIN namespaces_namespace n ON n.id = i.namespace_id
WHERE {not_deleting_sql("i")} AND {not_deleting_sql("n")}
"""
ENTRIES: Final = "SELECT id, name FROM namespaces_recyclebinentry"
MANIFESTS: Final = "SELECT image_id, digest, payload FROM catalog_manifest"
TAGGED: Final = f"""
SELECT t.image_id, t.name, m.digest FROM catalog_tag t JOIN catalog_manifest m ON m.id = t.manifest_id
WHERE {not_deleting_sql("t")}
"""

digests = st.sampled_from(sorted(CONTENTS))
lists_of_digests = st.lists(digests, min_size=1, max_size=2, unique=True)
tag_names = st.sampled_from(TAGS)
choices = st.integers(0, 11)  # of what there is, modulo its number
few_steps = st.integers(1, 8)
steps = few_steps | st.just(TO_THE_END)
ways = st.sampled_from(["head", "upload", "mount", "replicate"])
"""Of requests that promise a blob."""

TASKS: Final[Mapping[str, Callable[[BlobStore, int], object]]] = {
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

_T = TypeVar("_T")


@dataclass
class Request:
    """An operation under way, and what its outcome depends on."""

    operation: Operation
    repository: int | None  # None for background tasks
    digest: str
    model: ImageModel  # of the repository when the operation began
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


class Installation(RuleBasedStateMachine):
    """The product and its model."""

    def __init__(self, clock: Clock, place: Place) -> None:
        super().__init__()
        self.clock, self.place, self.store = clock, place, stepped(place.store)
        if any(model.objects.exists() for model in (Image, Blob, Namespace)):  # left by a failed example
            call_command("flush", interactive=False)
            place.clear()
        first, second = make_key(), make_key()
        self.owners = (first, second, first)
        made = [make_namespace(key) for key in (first, second)]
        self.namespace_names = [*(each.name for each in made), unique("namespace")]
        self.namespaces = [
            new_namespace(number, id_) for number, id_ in enumerate([*(m.pk for m in made), None])
        ]
        self.names = [
            Repository(self.namespace_names[number], image)
            for number in NAMESPACES
            for image in _IMAGES_OF[number]
        ]
        self.deleted_namespaces: dict[UUID, NamespaceDeletion] = {}  # by the id of the entry
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

    @property
    def models(self) -> list[ImageModel]:
        """Of all repositories: those of namespaces that are not there have nothing."""
        return [image for namespace in self.namespaces for image in namespace.images.values()]

    def _namespace(self, repository: int) -> NamespaceModel:
        return self.namespaces[NAMESPACE_OF[repository]]

    def _key(self, repository: int) -> TestKey:
        return self.owners[NAMESPACE_OF[repository]]

    def _exists(self, model: ImageModel) -> bool:
        """Whether the namespace of a repository is there, also under another name than before."""
        of_namespaces_there = (each for each in self.namespaces if each.is_there)
        return any(image is model for each in of_namespaces_there for image in each.images.values())

    def _repository(self, which: int) -> int:
        """One of the repositories of the first two names, and of the third one while it is there."""
        usual = [n for n in REPOSITORIES if NAMESPACE_OF[n] < 2 or self._namespace(n).is_there]
        return usual[which % len(usual)]

    def _all_models(self) -> Iterator[ImageModel]:
        """Those of namespaces in the recycle bin, too."""
        yield from self.models
        for deleted in self.deleted_namespaces.values():
            yield from deleted.namespace.images.values()

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
        model = ImageModel() if repository is None else self.models[repository]

        def note() -> None:
            if repository is None:
                self._accept_work()
            else:
                request.epoch = model.epoch(digest)

        operation = Operation(lambda: call(request), on_commit=note)
        moment = self.clock.moment
        request = Request(operation, repository, digest, model, model.epoch(digest), moment, sure, patience)
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
        model = request.model
        is_promised = request.epoch == model.epoch(request.digest)
        is_there = self._namespace(request.repository).is_there
        if model is not self.models[request.repository] and is_there:
            return  # the promise may be of the old namespace of that name, or of the new one
        assert not is_promised or self._exists(model), "a deleted namespace has accepted content"
        if is_promised:
            since = operation.committed_at or request.began
            assert since is not None
            self.broken.pop(request.digest, None)
            model.promise(request.digest, since + PROMISED_FOR)

    def _attempt(
        self, call: Callable[[], object], done: Callable[[], None], count: int
    ) -> BaseException | None:
        """A request of one transaction, which is killed after some steps; returns its error.

        The model changes with the commit: a client whose request was killed then has no response.
        """
        operation = Operation(call, on_commit=done)
        operation.advance(count)
        if not operation.is_over:
            operation.kill()
        assert operation.error or operation.committed_at or operation.is_dead
        return operation.error

    def _kill(self, request: Request) -> None:
        request.operation.kill()
        if Blob.objects.filter(digest=request.digest, state=Blob.State.LIVE).exists():
            self.broken.pop(request.digest, None)  # it had healed the content before
        self._interrupt(request)

    def _interrupt(self, request: Request) -> None:
        """Keep the upload session of a replication for the worker that continues it."""
        for session in request.session:
            assert request.repository is not None
            self.interrupted[request.repository, request.digest] = session

    def _run(self, call: Callable[[], object], failing: Sequence[bool] = ()) -> None:
        """Run a task to the end."""
        operation = Operation(call, on_commit=self._accept_work, is_uninterrupted=not failing)
        operation.finish(failing=failing)
        if operation.error is not None and not (any(failing) and isinstance(operation.error, StorageError)):
            raise operation.error

    def _work(self, task: str, limit: int, count: int) -> Request:
        return self._begin(lambda _: TASKS[task](self.store, limit), None, "", count, sure=True)

    def _do_background_tasks(self, *, without: str = "") -> None:
        """One call of each task."""
        for name, task in TASKS.items():
            if name != without:
                self._run(partial(task, self.store, 100))
        reachability.recount_stale(limit=100)

    def _pass_time(self, hours: float) -> None:
        self.clock.advance(timedelta(hours=hours))

    def _expect_refusals(self) -> None:
        """Something has ended that the requests under way may depend on."""
        for request in self.requests:
            request.must_succeed = False

    def _note_needs(self) -> None:
        """Note until when each blob is needed: by a manifest, by a promise, or in the recycle bin."""
        moment = self.clock.moment
        for model in self.models:
            for digest in model.linked():
                self.needed_until[digest] = moment
            for digest, until in model.promises.items():
                self._is_needed(digest, min(until, moment))
        for deleted in self.deleted_namespaces.values():
            for digest in deleted.namespace.linked():
                self._is_needed(digest, min(deleted.expires_at, moment))

    def _is_needed(self, digest: str, until: datetime) -> None:
        self.needed_until[digest] = max(until, self.needed_until.get(digest, until))

    def _is_kept(self, repository: int, digest: str) -> bool:
        there = self.models[repository].must_have(self.clock.moment)
        return digest in there and digest not in self.broken

    def _credentials(self, repository: int) -> Credentials:
        return Credentials(secret=self._key(repository).secret)

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
        *,
        by_rule: bool = False,
    ) -> None:
        """Note what the recycle bin has of a deletion that has just been done, if there is one.

        The model still has what was deleted.
        """
        if not settings.RECYCLE_BIN:
            return
        model = self.models[repository]
        self.bin[self._new_entry(name)] = Deletion(
            kind,
            repository,
            self._namespace(repository),
            image_id,
            dict(manifests),
            dict(tags),
            self.clock.moment + settings.RECYCLE_BIN,
            dict(model.tag_times),
            dict(model.used_at),
            by_rule,
        )

    def _entries(self) -> set[UUID]:
        """The ids of all entries of the recycle bin."""
        return {uuid_from_db(pk) for pk, _ in rows(ENTRIES, [])}

    def _new_entry(self, name: str) -> UUID:
        """The id of the entry that a deletion has just inserted."""
        new = {uuid_from_db(pk) for pk, found in rows(ENTRIES, []) if found == name}
        (entry_id,) = new - self.known_entries
        self.known_entries.add(entry_id)
        return entry_id

    def _protects(self, repository: int, tag: str) -> bool:
        return retention_model.protects(self._namespace(repository).policy, tag)

    def _accept_work(self) -> None:
        """After a commit of the worker: what it has healed or removed, if the rules let it go."""
        self._accept_healing()
        if any(namespace.policy is not NOTHING for namespace in self.namespaces):
            numbers = self._images()
            tagged, pushed = of_images(numbers, rows(TAGGED, [])), of_images(numbers, rows(MANIFESTS, []))
            for number in numbers.values():
                there = {digest for at, digest, _ in pushed if at == number}
                self._accept_tags(number, {tag for at, tag, _ in tagged if at == number}, there)
                self._accept_manifests(number, there)

    def _accept_healing(self) -> None:
        """A blob whose content was lost after its upload was copied gets the copy."""
        if self.broken:
            live = Blob.objects.filter(digest__in=self.broken, state=Blob.State.LIVE)
            for digest in live.values_list("digest", flat=True):
                del self.broken[digest]

    def _accept_tags(self, number: int, left: set[str], there: set[str]) -> None:
        model, name, policy = self.models[number], self.names[number], self._namespace(number).policy
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
                self._namespace(number).policy, model, self.clock.moment
            )
        for digest in gone:
            self._manifest_is_deleted(number, digest, by_rule=True)

    def _manifest_is_deleted(self, repository: int, digest: str, *, by_rule: bool = False) -> None:
        model = self.models[repository]
        tagged = {tag: digest for tag, target in model.tags.items() if target == digest}
        kept, name = {digest: model.manifests[digest]}, f"{self.names[repository]}@{digest}"
        self._keep("manifest", repository, self._image_id(repository), kept, tagged, name, by_rule=by_rule)
        model.delete_manifest(digest, self.clock.moment, promised_until=self.clock.moment + PROMISED_FOR)


def new_namespace(number: int, namespace_id: UUID | None) -> NamespaceModel:
    """The model of a namespace without content, or of none."""
    return NamespaceModel(namespace_id, {image: ImageModel() for image in _IMAGES_OF[number]}, NOTHING)


def one_of(found: Sequence[_T], which: int) -> Iterator[_T]:
    """One of the elements, if there are any.

    What Hypothesis draws does not depend on the state, which depends on random ids of the product.
    """
    if found:
        yield found[which % len(found)]


def of_images(numbers: dict[str | UUID, int], found: Rows) -> set[tuple[Any, ...]]:
    """Rows of images that exist, with the number of the repository instead of the image's id."""
    return {
        (numbers[image], *(bytes(value) if isinstance(value, memoryview) else value for value in values))
        for image, *values in found
        if image in numbers
    }


def status_of(call: Callable[[], object]) -> HTTPStatus | None:
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
