"""Requests and background tasks that stop, go on, race each other, crash and meet storage errors."""

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import rule

from registry_control.catalog.models import Blob
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.services import checks, faults, reconcile, scrub
from registry_data.storage.base import BlobStore
from registry_data.storage.keys import blob_key
from tests.integration.gc.content_rules import ContentRules
from tests.integration.gc.installation import (
    NAMESPACE_OF,
    REPOSITORIES,
    TAGS,
    TASKS,
    TO_THE_END,
    Request,
    choices,
    digests,
    few_steps,
    lists_of_digests,
    one_of,
    steps,
    tag_names,
    ways,
)
from tests.integration.gc.namespace_rules import after_deletions
from tests.integration.gc.retention_model import POLICIES, Policy
from tests.integration.gc.steps import GRACE

INSPECTIONS: Final[Mapping[str, Callable[[BlobStore], object]]] = {
    "reconcile": lambda store: reconcile.work(store, period=timedelta(minutes=1), grace=GRACE),
    "scrub": lambda store: scrub.work(store, period=timedelta()),
    "checks": lambda store: checks.work(store),
}
"""The tasks that compare database and storage, in the order in which one finds work for the next."""

_MOST_STRAYS: Final = 10  # of more than 20, nothing is removed: the database may be the wrong one

tasks = st.sampled_from(["collector", *sorted(TASKS)])
limits = st.sampled_from([1, 3, 100])
failures = st.lists(st.booleans(), min_size=1, max_size=6)
"""At which of the next points in the storage it fails."""


class StepRules(ContentRules):
    """What happens to operations under way, and to time."""

    @rule(
        way=ways,
        which=choices,
        source=choices,
        digest=digests,
        pieces=st.sampled_from([1, 2]),
        count=steps,
    )
    def request(self, way: str, which: int, source: int, digest: str, pieces: int, count: int) -> None:
        """A request that promises a blob, or the same by a worker that replicates."""
        repository, source = self._repository(which), self._repository(source)
        self._request(way, repository, source, digest, pieces=pieces, count=count)

    @rule(task=tasks, limit=limits, count=steps)
    def work(self, task: str, limit: int, count: int) -> None:
        """One call of a background task, by one of several workers."""
        self._work(task, limit, count)

    @rule(
        way=ways,
        which=choices,
        source=choices,
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
        which: int,
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
        repository, source = self._repository(which), self._repository(source)
        if was_pushed:
            self._request("upload", repository, repository, digest)
        self._pass_time(pause)
        self._race((way, repository, source, digest), before, hours, task, after, restored)

    @rule(
        way=ways,
        which=choices,
        digest=digests,
        before=st.just(0) | st.integers(1, 9),
        task=st.sampled_from(["collector", "collector", "idle images"]),
        after=few_steps,
    )
    def race_for_dead_content(
        self, way: str, which: int, digest: str, before: int, task: str, after: int
    ) -> None:
        """A request for a blob, or in an image, that had one promise, which has ended."""
        there = [number for number in REPOSITORIES if self._namespace(number).is_there]
        unused = [number for number in there if not self.models[number].was_pushed]
        for repository in one_of(unused if task == "idle images" else there, which):
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
            self._advance(request, TO_THE_END)
        self._advance(running, TO_THE_END)

    @rule(
        way=ways,
        which=choices,
        digest=digests,
        pushed=st.none() | st.tuples(lists_of_digests, tag_names),
        before=st.integers(1, 12),
        then=after_deletions,
        hours=st.sampled_from([0, 0.5, 2.1, 5.1]),
        task=st.sampled_from(["settle", "bin", "deletions", "uploads", "collector"]),
        after=few_steps,
    )
    def race_with_the_deletion_of_a_namespace(
        self,
        way: str,
        which: int,
        digest: str,
        pushed: tuple[list[str], str] | None,
        before: int,
        then: Collection[str],
        hours: float,
        task: str,
        after: int,
    ) -> None:
        """A request stops; its namespace is deleted, and restored or created again; workers do their work."""
        for repository in one_of([n for n in REPOSITORIES if self._namespace(n).is_there], which):
            number = NAMESPACE_OF[repository]
            if pushed is not None:
                self._push(repository, *pushed, ["upload"] * len(pushed[0]))
            request = self._request(way, repository, repository, digest, count=before)
            self._delete_namespace(number)
            self._pass_time(hours)
            self._do_background_tasks(without=task)
            running = self._work(task, 100, after)
            self._go_on_without(number, then)
            self._advance(request, TO_THE_END)
            self._advance(running, TO_THE_END)

    @rule(
        which=choices,
        of_namespaces=st.booleans(),
        task=st.sampled_from(["bin", "deletions"]),
        after=few_steps,
    )
    def race_of_the_bin(self, which: int, of_namespaces: bool, task: str, after: int) -> None:
        """The time of something in the recycle bin ends, and it is restored while a worker takes it out."""
        expiring = {key: deleted.expires_at for key, deleted in self.bin.items()}
        if of_namespaces:
            expiring = {key: deleted.expires_at for key, deleted in self.deleted_namespaces.items()}
        for entry_id, expires_at in one_of([*expiring.items()], which):
            self.clock.advance(max(timedelta(), expires_at - self.clock.moment))
            if task == "deletions":
                self._run(partial(TASKS["bin"], self.store, 1))
            running = self._work(task, 100, after)
            if of_namespaces:
                self._restore_namespace(entry_id, is_renamed=False)
            else:
                self._restore_one(which, None)
            self._advance(running, TO_THE_END)

    @rule(
        which=choices,
        digest=digests,
        between=st.sampled_from([0.2, 0.9]),
        later=st.sampled_from([0.2, 0.9, 1.1]),
    )
    def release_twice(self, which: int, digest: str, between: float, later: float) -> None:
        """Two repositories have a blob, it is deleted in one after the other, and the collector runs."""
        there = [number for number in REPOSITORIES if self._namespace(number).is_there]
        first, second = [*one_of(there, which)], [*one_of(there, which + 1)]
        for repository in first + second:
            self._request("upload", repository, repository, digest)
        for repository, hours in zip(first + second, (between, later), strict=False):
            self._delete_blob(repository, digest)
            self._pass_time(hours)
        self._run(partial(TASKS["collector"], self.store, 100))

    @rule(
        which=choices, digest=digests, way=st.sampled_from(["upload", "replicate"]), before=st.integers(1, 12)
    )
    def inspect_beside_an_upload(self, which: int, digest: str, way: str, before: int) -> None:
        """An upload takes longer than the grace period of objects that no row knows."""
        repository = self._repository(which)
        request = self._request(way, repository, repository, digest, pieces=2, count=before)
        for _ in range(2):
            for inspection in INSPECTIONS.values():
                self._run(partial(inspection, self.store))
            self._pass_time(1.1)
        self._advance(request, TO_THE_END)

    @rule(
        which=choices,
        policy=st.sampled_from(POLICIES),
        contents=st.lists(lists_of_digests, min_size=len(TAGS), max_size=len(TAGS)),
        pulled=st.none() | tag_names,
        days=st.sampled_from([0, 1.1]),
    )
    def enforce_retention(
        self, which: int, policy: Policy, contents: list[list[str]], pulled: str | None, days: float
    ) -> None:
        """All tags are pushed one after the other, one is pulled, and a worker enforces the rules."""
        there = [number for number in REPOSITORIES if self._namespace(number).is_there]
        for repository in one_of(there, which):
            self._set_retention(NAMESPACE_OF[repository], policy)
            for tag, digests_of_tag in zip(TAGS, contents, strict=True):
                self._push(repository, digests_of_tag, tag, ["upload"] * len(digests_of_tag))
                self._pass_time(0.1)
            self._pass_time(days * 24)
            if pulled is not None and pulled in self.models[repository].tags:
                self._pull(repository, pulled)
            self._run(partial(TASKS["retention"], self.store, 100))

    @rule(task=tasks, failing=failures)
    def work_on_bad_storage(self, task: str, failing: list[bool]) -> None:
        """A background task whose calls of the storage fail or succeed."""
        self._run(partial(TASKS[task], self.store, 100), failing)

    @rule(failing=st.lists(failures, min_size=4, max_size=4))
    def inspect(self, failing: list[list[bool]]) -> None:
        """Compare database and storage, and look twice at what seems to be wrong."""
        for name, pattern in zip([*INSPECTIONS, "checks"], failing, strict=True):
            self._run(partial(INSPECTIONS[name], self.store), pattern)
            self.clock.advance(timedelta(seconds=15))

    @rule(which=choices, count=steps)
    def go_on(self, which: int, count: int) -> None:
        """One of the operations under way makes some more steps."""
        for request in one_of(self.requests, which):
            self._advance(request, count)

    @rule(which=choices)
    def kill(self, which: int) -> None:
        """The process of one of them is killed."""
        for request in one_of(self.requests, which):
            self.requests.remove(request)
            self._kill(request)

    @rule(
        way=ways,
        which=choices,
        digest=digests,
        count=st.integers(1, 16),  # all steps of an upload
        is_killed=st.booleans(),
    )
    def crash(self, way: str, which: int, digest: str, count: int, is_killed: bool) -> None:
        """A request is killed, or the storage fails for it, at any step; then the workers look for work."""
        repository = self._repository(which)
        request = self._request(way, repository, repository, digest, count=count)
        if request in self.requests and is_killed:
            self.requests.remove(request)
            self._kill(request)
        elif request in self.requests and request.operation.calls_storage:
            self._fail(request, TO_THE_END)
        self._do_background_tasks()

    @rule(which=choices, count=steps)
    def fail_storage(self, which: int, count: int) -> None:
        """The storage fails for one of them, before or after the call has changed something."""
        for request in one_of([each for each in self.requests if each.operation.calls_storage], which):
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
            for model in self._all_models():
                model.end_answers(digest)
            self._expect_refusals()
