"""Database and storage are compared in both directions; only what is certainly garbage is removed."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from registry_control.audit.models import AuditEvent
from registry_control.catalog import ingest
from registry_control.catalog.models import Blob, BlobReview, UploadSession
from registry_control.catalog.services import uploads
from registry_control.common.clock import now
from registry_control.common.store import blob_store
from registry_control.integrity.models import BlobCheck, Job, UnknownObject
from registry_control.integrity.services import checks, reconcile, unknown
from registry_data.oci.digest import Digest
from registry_data.storage.base import BlobStore, Key, NotStored, Page, Unavailable, UploadId
from registry_data.storage.factory import open_store
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import parse_key
from registry_data.storage.s3.state import blob_object
from registry_data.storage.s3.store import S3Store
from tests.factories import Pushed, TestKey, digest_of, push_blob, push_image
from tests.integration.gc.steps import expire_leases, is_stored, queued
from tests.integration.integrity.conftest import LAYER
from tests.integration.integrity.steps import DAMAGES, current, orphan, remove, second_looks

pytestmark = pytest.mark.django_db(transaction=True)

WEEK = timedelta(days=7)
GRACE = timedelta(days=1)


def work(store: BlobStore, *, until_finished: bool = True) -> Job:
    """Go on with a pass, or begin one; by default to its end."""
    for _ in range(100):
        reconcile.work(store, period=WEEK, grace=GRACE)
        job = Job.objects.get(pk="reconcile")
        if not until_finished or job.finished_at is not None or job.error:
            return job
    raise AssertionError("the pass does not end")


def pass_again(store: BlobStore) -> Job:
    Job.objects.filter(pk="reconcile").update(started_at=now() - WEEK, retry_at=None)
    return work(store)


def first_seen(**ago: float) -> None:
    UnknownObject.objects.update(first_seen_at=now() - timedelta(**ago))


def test_unknown_objects_are_removed_after_the_grace_period_since_they_were_seen(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    # given content and an upload that no row knows, an open upload, and a file of somebody else
    lost = orphan(store, b"nobody knows it")
    forgotten = UploadId(uuid4().hex)
    store.create_upload(forgotten)
    session = uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
    store.create_upload(UploadId(session.hex))
    foreign = store._root / "blobs" / "readme.txt"  # noqa: SLF001
    foreign.write_text("keep me")

    # when a pass sees them, then they are recorded and stay
    job = work(store)
    assert (job.counts["unknown"], job.counts["foreign"], job.counts["foreign_names"]) == (
        2,
        1,
        ["blobs/readme.txt"],
    )
    assert {each.upload for each in UnknownObject.objects.all()} == {lost.rpartition(".")[2], forgotten}
    first_seen(hours=23)
    work(store, until_finished=False)
    assert is_stored(store, lost)

    # and they go when the grace period is over, without another pass
    first_seen(hours=25)
    work(store, until_finished=False)
    assert not is_stored(store, lost)
    assert not UnknownObject.objects.exists()
    assert AuditEvent.objects.filter(verb="object.removed").count() == 2
    assert store.upload_size(UploadId(session.hex)) == 0
    assert foreign.read_text() == "keep me"
    for digest in pushed.blobs:
        assert is_stored(store, current(digest).storage_key)


def test_an_object_that_became_known_is_kept(owner: TestKey, pushed: Pushed, store: FilesystemStore) -> None:
    key = orphan(store, b"found again")
    work(store)
    Blob.objects.create(digest=digest_of(b"found again"), size=11, storage_key=key)
    first_seen(days=2)
    work(store, until_finished=False)
    assert is_stored(store, key)
    assert not UnknownObject.objects.exists()


class ListingDuring(FilesystemStore):
    """Calls a function between a listing and the queries that follow it."""

    def then(self) -> None:
        """Replaced by the test."""

    def list_objects(self, cursor: str, *, limit: int) -> Page:
        page = super().list_objects(cursor, limit=limit)
        self.then()
        return page


@pytest.mark.parametrize("moment", ["published", "recorded", "forgotten"])
def test_invariant_1_an_upload_that_becomes_a_blob_during_the_listing_is_never_unknown(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(100)
    claimed = Digest.of(content)
    session = ingest.start_blob(actor=owner.actor, image_id=pushed.image_id, claimed=claimed, store=store)
    during = ListingDuring(store._root)  # noqa: SLF001

    def finish() -> None:
        monkeypatch.setattr(during, "then", lambda: None)
        if moment == "published":
            writer = store.open_upload(UploadId(session.hex), at=0)
            writer.write(content)
            writer.close()
            store.publish(UploadId(session.hex), ingest.published_key(UploadId(session.hex), claimed))
            return
        ingest.continue_blob(
            session, lambda _: [content], image_id=pushed.image_id, claimed=claimed, store=store
        )
        if moment == "forgotten":
            uploads.expire(store=store, limit=10)
            assert not UploadSession.objects.exists()

    monkeypatch.setattr(during, "then", finish)
    work(during)
    # a part of the upload that was deleted meanwhile may be recorded; its removal does nothing
    first_seen(days=2)
    work(store, until_finished=False)
    if moment == "published":
        ingest.continue_blob(session, lambda _: [], image_id=pushed.image_id, claimed=claimed, store=store)
    assert b"".join(store.read(Key(current(str(claimed)).storage_key))) == content
    assert not UnknownObject.objects.exists()


@pytest.mark.parametrize("how", DAMAGES)
def test_blobs_whose_content_is_lost_are_found(pushed: Pushed, store: FilesystemStore, how: str) -> None:
    DAMAGES[how](store, digest_of(LAYER))
    job = work(store)
    second_looks(store)
    expected = {"changed": "live", "truncated": "damaged", "removed": "missing"}  # a size says no more
    assert current(digest_of(LAYER)).state == expected[how]
    assert job.counts["rows"] == 3


class Flaky(FilesystemStore):
    """Fails for some keys, or for listings."""

    failing: Collection[str] = ()
    lists = True

    def size(self, key: Key) -> int:
        if key in self.failing:
            raise Unavailable("no answer")
        return super().size(key)

    def list_objects(self, cursor: str, *, limit: int) -> Page:
        if not self.lists:
            raise Unavailable("no answer")
        return super().list_objects(cursor, limit=limit)


def test_invariant_7_an_error_of_the_storage_stops_the_slice_and_the_pass_goes_on_from_there(
    pushed: Pushed, store: FilesystemStore, tmp_path: Path
) -> None:
    flaky = Flaky(tmp_path / "blobs")  # the folder of `store`
    orphan(store, b"unknown")
    # given a storage that is down for all content, and then for the listing
    for keys, lists in ((Blob.objects.values_list("storage_key", flat=True), True), ((), False)):
        flaky.failing, flaky.lists = {Key(key) for key in keys}, lists
        job = work(flaky)
        assert job.error == "no answer"
        assert job.finished_at is None
        work(flaky)  # not before some seconds have passed
        assert Job.objects.get(pk="reconcile").error == "no answer"
        Job.objects.update(retry_at=None)

    # when it responds again, then the pass ends, and what it could not see is looked at again
    flaky.lists = True
    job = work(flaky)
    assert (job.error, job.counts["rows"], job.counts["unknown"]) == ("", 3, 1)
    assert BlobCheck.objects.count() == 3
    second_looks(store)
    assert not BlobCheck.objects.exists()
    assert {blob.state for blob in Blob.objects.all()} == {"live"}


def test_content_that_cannot_be_looked_at_for_ever_does_not_stop_the_comparison(
    pushed: Pushed, store: FilesystemStore, tmp_path: Path
) -> None:
    flaky = Flaky(tmp_path / "blobs")  # the folder of `store`
    flaky.failing = {Key(Blob.objects.order_by("pk")[1].storage_key)}
    orphan(store, b"unknown")
    job = work(flaky)
    assert (job.error, job.counts["rows"], job.counts["unknown"]) == ("", 3, 1)
    assert job.finished_at is not None
    assert [check.found for check in BlobCheck.objects.all()] == ["unknown"]
    assert {blob.state for blob in Blob.objects.all()} == {"live"}


def test_a_store_without_most_content_marks_nothing_until_an_operator_says_so(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, tmp_path: Path
) -> None:
    for number in range(12):
        push_blob(owner, pushed.image_id, b"layer %d" % number, store=store)
    empty = FilesystemStore(tmp_path / "another disk")
    empty.check()
    job = work(empty)
    assert job.error == checks.WRONG_STORE[:255]
    assert not BlobCheck.objects.exists()
    done = reconcile.compare(empty, reconcile.ROWS, "", limit=100, accept_losses=True)
    assert done.counts["suspects"] == 15


def test_a_database_that_knows_little_of_the_storage_removes_nothing_until_an_operator_says_so(
    store: FilesystemStore,
) -> None:
    keys = [orphan(store, b"content %d" % number) for number in range(25)]
    work(store)
    first_seen(days=2)
    job = work(store, until_finished=False)
    assert job.error == unknown.WRONG_DATABASE[:255]
    assert all(is_stored(store, key) for key in keys)
    assert unknown.remove_due(store, grace=GRACE, even_most=True).objects == 25
    assert not any(is_stored(store, key) for key in keys)


def test_a_failed_removal_is_repeated_later(pushed: Pushed, store: FilesystemStore) -> None:
    class Stuck(FilesystemStore):
        def delete(self, key: Key) -> None:
            raise Unavailable("read-only file system")

    key = orphan(store, b"stuck")
    work(store)
    first_seen(days=2)
    job = work(Stuck(store._root), until_finished=False)  # noqa: SLF001
    assert job.error == "read-only file system"
    found = UnknownObject.objects.get()
    assert (found.attempts, found.error) == (1, "read-only file system")
    UnknownObject.objects.update(retry_at=now())
    Job.objects.update(retry_at=None)
    work(store, until_finished=False)
    assert not is_stored(store, key)


def test_blobs_that_garbage_collection_lost_sight_of_are_queued(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    # given a blob without references and one that was being deleted, without rows in the queue
    forgotten = push_blob(owner, pushed.image_id, b"forgotten", store=store)
    leased = push_blob(owner, pushed.image_id, b"leased", store=store)
    half = push_blob(owner, pushed.image_id, b"half deleted", store=store)
    expire_leases()
    push_blob(owner, pushed.image_id, b"leased", store=store)
    BlobReview.objects.all().delete()
    Blob.objects.filter(digest=half).update(state="deleting")

    assert work(store).counts["queued"] == 2
    assert queued() == {forgotten, half}
    assert BlobReview.objects.get(blob__digest=half).retry_at is not None
    assert BlobReview.objects.get(blob__digest=forgotten).retry_at is None
    assert leased not in queued()
    assert pass_again(store).counts["queued"] == 0


def test_a_pass_begins_when_the_period_is_over_and_any_worker_continues_it(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    first = work(store)
    work(store, until_finished=False)
    assert Job.objects.get(pk="reconcile").started_at == first.started_at
    # a worker that was killed in a slice holds the lease until it has expired
    Job.objects.update(leased_until=now() + timedelta(seconds=50), started_at=now() - WEEK)
    reconcile.work(store, period=WEEK, grace=GRACE)
    assert Job.objects.get(pk="reconcile").finished_at == first.finished_at
    Job.objects.update(leased_until=now() - timedelta(seconds=1))
    assert work(store).started_at != first.started_at


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> BlobStore:
    made = open_store(request.getfixturevalue("minio").url())
    made.check()
    return made


@pytest.fixture
def pushed_to_s3(owner: TestKey, namespace: Any, s3: BlobStore) -> Pushed:
    return push_image(owner, namespace, layers=[LAYER], store=s3)


@pytest.mark.clients
def test_the_objects_of_a_bucket_are_compared_too(owner: TestKey, namespace: Any, s3: BlobStore) -> None:
    pushed = push_image(owner, namespace, layers=[LAYER, os.urandom(9_000_000)], store=s3)
    session = uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
    s3.create_upload(UploadId(session.hex))
    lost = orphan(s3, b"nobody knows it")
    s3.delete(Key(current(digest_of(LAYER)).storage_key))
    job = work(s3)
    assert (job.counts["rows"], job.counts["unknown"], job.counts["suspects"]) == (3, 1, 1)
    second_looks(s3)
    assert current(digest_of(LAYER)).state == "missing"
    first_seen(days=2)
    work(s3, until_finished=False)
    assert not is_stored(s3, lost)
    assert is_stored(s3, current(pushed.blobs[2]).storage_key)
    assert s3.upload_size(UploadId(session.hex)) == 0


@pytest.mark.clients
def test_invariant_1_the_rest_of_an_upload_that_is_a_blob_goes_without_the_blob(
    pushed_to_s3: Pushed, s3: BlobStore
) -> None:
    # given the state of an upload, which is a blob, as in a bucket that was filled from an older copy
    blob = current(digest_of(LAYER))
    upload = UploadId(parse_key(Key(blob.storage_key))[1])
    UploadSession.objects.all().delete()
    s3.create_upload(upload)

    # when it is removed, then the blob stays
    work(s3)
    assert [(each.kind, each.upload) for each in UnknownObject.objects.all()] == [("upload", upload)]
    assert unknown.remove_due(s3, grace=timedelta(0)).objects == 1
    assert s3.size(Key(blob.storage_key)) == len(LAYER)
    with pytest.raises(NotStored):
        s3.upload_size(upload)


@pytest.mark.clients
def test_what_a_killed_process_has_stored_of_a_blob_is_removed(pushed_to_s3: Pushed, s3: BlobStore) -> None:
    # given the object of a blob that was neither recorded nor noted in the state: a kill came in between
    assert isinstance(s3, S3Store)
    upload = UploadId(uuid4().hex)
    s3.create_upload(upload)
    s3._bucket.put(blob_object(upload), b"half published")  # noqa: SLF001

    # then both go
    work(s3)
    assert {each.kind for each in UnknownObject.objects.filter(upload=upload)} == {"content", "upload"}
    assert unknown.remove_due(s3, grace=timedelta(0)).objects == 2
    left = s3.list_objects("", limit=1000).objects
    assert upload not in {each.upload for each in left}
    for digest in pushed_to_s3.blobs:
        assert is_stored(s3, current(digest).storage_key)


@pytest.mark.clients
@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("server", ["minio", "versitygw"])
def test_a_multipart_upload_that_no_session_knows_is_aborted_after_the_grace_period(
    owner: TestKey, namespace: Any, request: pytest.FixtureRequest, server: str
) -> None:
    # given an upload that runs with parts, and a multipart upload whose session is gone
    made = open_store(request.getfixturevalue(server).url())
    assert isinstance(made, S3Store)
    made.check()
    pushed = push_image(owner, namespace, layers=[LAYER], store=made)
    session = uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
    running = UploadId(session.hex)
    made.create_upload(running)
    with closing(made.open_upload(running, at=0)) as writer:
        writer.write(os.urandom(9_000_000))
    bucket, forgotten = made._bucket, blob_object(uuid4().hex)  # noqa: SLF001
    multipart = bucket.begin_multipart(forgotten)
    bucket.put_part(forgotten, multipart, 1, memoryview(b"x" * 1000))

    # when a pass sees it, then it is recorded, and stays for the grace period
    work(made)
    assert [(each.kind, each.name) for each in UnknownObject.objects.all()] == [("unfinished", forgotten)]
    first_seen(hours=23)
    work(made, until_finished=False)
    assert bucket.parts(forgotten, multipart, first=1)

    # and it is aborted afterwards, while the other upload goes on
    first_seen(hours=25)
    work(made, until_finished=False)
    with pytest.raises(NotStored):
        bucket.parts(forgotten, multipart, first=1)
    assert not UnknownObject.objects.exists()
    assert AuditEvent.objects.filter(verb="object.removed").count() == 1
    with closing(made.open_upload(running, at=9_000_000)) as writer:
        writer.write(b"the end")
    assert made.upload_size(running) == 9_000_007


@pytest.fixture
def configured(owner: TestKey, namespace: Any) -> Iterator[Pushed]:
    """An image in the storage of the commands, and nothing else: other tests leave objects there."""
    store = blob_store()
    store.check()
    assert isinstance(store, FilesystemStore)
    _empty(store)
    yield push_image(owner, namespace, layers=[LAYER, b"another layer"], store=store)
    _empty(store)


def _empty(store: FilesystemStore) -> None:
    for path in [*store._root.glob("blobs/*/*/*"), *store._root.glob("uploads/**/*")]:  # noqa: SLF001
        if path.is_file():
            path.unlink()


def run(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("reconcile", "--json", *arguments, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_the_command_finds_confirms_and_removes_in_one_run(configured: Pushed) -> None:
    store = blob_store()
    assert isinstance(store, FilesystemStore)
    assert run()["quarantined"] == []
    remove(store, digest_of(LAYER))
    key = orphan(store, b"garbage")
    found = run()
    assert (found["quarantined"], found["quarantined_total"]) == ([digest_of(LAYER)], 1)
    assert (found["rows"], found["unknown"], found["removed"], found["errors"]) == (3, 1, 0, [])
    first_seen(days=2)
    assert run()["removed"] == 1
    assert not is_stored(store, key)


def test_the_command_fails_if_the_storage_does(configured: Pushed) -> None:
    store = blob_store()
    assert isinstance(store, FilesystemStore)
    root = store._root  # noqa: SLF001
    (root / "uploads").rename(root / "elsewhere")
    try:
        with pytest.raises(CommandError, match="not everything was compared"):
            run()
    finally:
        (root / "elsewhere").rename(root / "uploads")
    assert {blob.state for blob in Blob.objects.all()} == {"live"}
