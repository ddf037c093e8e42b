"""What is queued, what is collected and what stays; interrupted and failed batches."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from registry_control.catalog.services import blobs, deletion, manifests
from registry_control.common.clock import now
from registry_control.gc.models import GcRun
from registry_control.gc.policy import FIRST_RETRY
from registry_control.gc.selectors import planner
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, digest_of, make_key, make_namespace, push_blob, push_image
from tests.integration.gc.steps import (
    GRACE,
    collect,
    delete_image,
    expire_leases,
    is_stored,
    keys,
    queued,
    rules,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pushed(owner: TestKey, namespace: Namespace, store: FilesystemStore) -> Pushed:
    """An image with two blobs, whose leases are over."""
    made = push_image(owner, namespace, layers=[b"layer"], store=store)
    expire_leases()
    BlobReview.objects.all().delete()
    return made


def _delete_manifest(pushed: Pushed, store: FilesystemStore) -> None:
    manifests.delete(actor=SYSTEM, image_id=pushed.image_id, digest=pushed.digest)
    expire_leases()


def _delete_namespace(pushed: Pushed, store: FilesystemStore) -> None:
    with transaction.atomic():
        found = Namespace.objects.select_for_update().get(pk=pushed.image.namespace_id)
        namespaces.start_deletion(found, actor=SYSTEM)
    while deletion.run_batch(store=store, limit=10):
        pass


@pytest.mark.parametrize("release", [_delete_manifest, delete_image, _delete_namespace])
def test_the_content_of_deleted_manifests_images_and_namespaces_is_collected(
    pushed: Pushed, store: FilesystemStore, release: Callable[[Pushed, FilesystemStore], None]
) -> None:
    # given stored content that manifests list: nothing is queued, and nothing goes
    stored = keys()
    assert queued() == set()
    assert collect(store).removed == 0
    assert all(is_stored(store, key) for key in stored.values())

    # when the manifest, the image or the namespace is deleted
    release(pushed, store)

    # then all of it is queued and goes, with an audit row for each blob
    assert queued() == set(pushed.blobs)
    batch = collect(store)
    assert (batch.removed, batch.bytes, batch.errors) == (2, pushed.size, {})
    assert not any(is_stored(store, key) for key in stored.values())
    assert not Blob.objects.exists()
    assert queued() == set()
    events = AuditEvent.objects.filter(verb="blob.removed")
    assert {event.target_name for event in events} == set(pushed.blobs)
    assert {event.actor_kind for event in events} == {"system"}
    assert {event.detail["storage_key"] for event in events} == set(stored.values())


def test_a_blob_that_a_client_deletes_is_collected(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    digest = push_blob(owner, pushed.image_id, b"uploaded", store=store)
    blob_id = Blob.objects.get(digest=digest).pk
    blobs.remove(actor=owner.actor, image_id=pushed.image_id, blob_id=blob_id, digest=digest)
    assert queued() == {digest}
    assert collect(store).removed == 1


def test_a_blob_whose_lease_expired_is_unreferenced_since_the_end_of_the_lease(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    digest = push_blob(owner, pushed.image_id, b"uploaded", store=store)
    ended = now() - timedelta(minutes=30)
    BlobLease.objects.filter(blob__digest=digest).update(expires_at=ended)
    deletion.remove_expired_leases(limit=10)
    review = BlobReview.objects.get(blob__digest=digest)
    assert (review.unreferenced_since, review.cause) == (ended, "lease expired")
    assert review.organization_id == owner.organization.pk


def test_content_goes_when_the_grace_period_is_over_and_not_earlier(
    pushed: Pushed, store: FilesystemStore
) -> None:
    delete_image(pushed, store)
    early = GRACE - timedelta(minutes=1)
    assert collect(store, early).claimed == 0
    assert [verdict.action for _, verdict in planner.waiting(rules(early))] == ["wait", "wait"]
    assert queued() == set(pushed.blobs)
    assert collect(store, GRACE + timedelta(minutes=1)).removed == 2


@pytest.mark.parametrize("other", ["image", "tenant"])
def test_a_layer_that_another_image_has_stays_and_leaves_the_queue(
    owner: TestKey, namespace: Namespace, pushed: Pushed, store: FilesystemStore, other: str
) -> None:
    key = owner if other == "image" else make_key()
    place = namespace if other == "image" else make_namespace(key)
    kept = push_image(key, place, "kept", layers=[b"layer"], config=b"another config", store=store)
    delete_image(pushed, store)
    before = keys()[digest_of(b"layer")]

    batch = collect(store)

    assert (batch.removed, batch.kept) == (1, 1)
    assert set(keys()) == set(kept.blobs)
    assert is_stored(store, before)
    assert queued() == set()


def test_a_lease_keeps_a_blob_whatever_the_grace_period(
    owner: TestKey, namespace: Namespace, pushed: Pushed, store: FilesystemStore
) -> None:
    # given a blob that is in the queue and was leased again
    delete_image(pushed, store)
    again = push_image(owner, namespace, "again", tags=(), layers=[b"layer"])
    manifests.delete(actor=owner.actor, image_id=again.image_id, digest=again.digest)

    # when everything without a reference is collected at once
    batch = collect(store)

    # then the leased blobs stay; the end of the leases queues them again
    assert (batch.removed, batch.kept) == (0, 2)
    assert set(keys()) == set(pushed.blobs)
    expire_leases()
    assert queued() == set(pushed.blobs)


def test_content_that_is_pushed_again_during_its_deletion_gets_a_copy_of_its_own(
    owner: TestKey, namespace: Namespace, pushed: Pushed, store: FilesystemStore
) -> None:
    # given blobs that are marked, and whose content the storage cannot delete now
    delete_image(pushed, store)
    old = keys()
    with _without_folder(store):
        assert len(collect(store).errors) == 2
    assert set(Blob.objects.values_list("state", flat=True)) == {"deleting"}

    # when the same image is pushed again, then its content is stored under new keys
    push_image(owner, namespace, "again", layers=[b"layer"], store=store)
    new = dict(Blob.objects.filter(state="live").values_list("digest", "storage_key"))
    assert set(new) == set(old)
    assert not set(new.values()) & set(old.values())

    # and the deletion of the old copies leaves the new ones alone
    assert collect(store).removed == 2
    assert [is_stored(store, key) for key in new.values()] == [True, True]
    assert [is_stored(store, key) for key in old.values()] == [False, False]


class _without_folder:  # noqa: N801 - used like a function
    """The storage as a disk that is not mounted: the folder is there, and empty."""

    def __init__(self, store: FilesystemStore) -> None:
        self._root = store.path_of(next(iter(keys().values()))).parents[3]  # type: ignore[arg-type]

    def __enter__(self) -> None:
        self._root.rename(self._root.with_name("elsewhere"))
        self._root.mkdir()

    def __exit__(self, *_: object) -> None:
        self._root.rmdir()
        self._root.with_name("elsewhere").rename(self._root)


def test_invariant_7_content_that_the_storage_cannot_see_is_not_taken_for_deleted(
    pushed: Pushed, store: FilesystemStore
) -> None:
    # given unreferenced content, and a disk that is not mounted
    delete_image(pushed, store)
    stored = keys()
    with _without_folder(store):
        # when the collector runs, then rows and queue stay, with the error and a later attempt
        batch = collect(store)
        assert (batch.removed, len(batch.errors), batch.storage_is_down) == (0, 2, True)
        for review in BlobReview.objects.all():
            assert review.attempts == 1
            assert review.error
            assert review.retry_at is not None
            assert now() < review.retry_at <= now() + FIRST_RETRY
        assert GcRun.objects.get(kind="continuous").errors
        assert collect(store, timedelta(0)).claimed == 0

    # when the disk is back, then the next attempt removes everything
    assert all(is_stored(store, key) for key in stored.values())
    assert collect(store).removed == 2
    assert not any(is_stored(store, key) for key in stored.values())
    assert not Blob.objects.exists()


def test_invariant_7_a_missing_folder_of_blobs_is_not_taken_for_deleted_content(
    pushed: Pushed, store: FilesystemStore
) -> None:
    delete_image(pushed, store)
    folder = store.path_of(next(iter(keys().values()))).parents[1]  # type: ignore[arg-type]
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    assert len(collect(store).errors) == 2
    assert Blob.objects.count() == 2


def test_content_that_is_gone_already_counts_as_deleted(pushed: Pushed, store: FilesystemStore) -> None:
    delete_image(pushed, store)
    for key in keys().values():
        store.delete(key)  # type: ignore[arg-type]
    assert collect(store).removed == 2
    assert not Blob.objects.exists()


def test_the_number_of_statements_does_not_depend_on_the_size_of_a_batch(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    def statements(number: int) -> int:
        layers = [b"%d of %d" % (each, number) for each in range(number)]
        delete_image(push_image(owner, namespace, layers=layers, config=b"%d" % number), store)
        with CaptureQueriesContext(connection) as captured:
            assert collect(store).removed == number + 1
        return len(captured)

    statements(1)  # creates the rows of the circuit breaker and of the inventory
    assert statements(3) == statements(40)


def test_an_empty_queue_costs_one_query(store: FilesystemStore) -> None:
    with CaptureQueriesContext(connection) as captured:
        assert collect(store).claimed == 0
    assert len(captured) == 1


def test_a_batch_is_bounded_and_several_finish_the_queue(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    layers = [b"layer %d" % number for number in range(7)]
    delete_image(push_image(owner, namespace, layers=layers, store=store), store)
    sizes = []
    while (batch := collect(store, limit=3)).claimed:
        sizes.append(batch.removed)
    assert sizes == [3, 3, 2]


def test_the_plan_is_what_a_run_removes(owner: TestKey, namespace: Namespace, store: FilesystemStore) -> None:
    # given a queue with shared, leased and unreferenced content
    push_image(owner, namespace, "kept", layers=[b"shared"], store=store)
    layers = [b"shared", *(b"own %d" % number for number in range(5))]
    doomed = push_image(owner, namespace, "doomed", layers=layers, config=b"own config", store=store)
    _lease(owner, namespace, b"own 0", store)
    delete_image(doomed, store)

    # when it is planned, page by page
    planned = set[str]()
    after: planner.Cursor | None = planner.BEGIN
    while after is not None:
        page = planner.review(rules(), after=after, limit=2)
        planned |= {each.digest for each in page.collectable(None)}
        after = page.next

    # then that is what the collector removes
    before = set(keys())
    while collect(store, limit=3).claimed:
        pass
    assert planned == before - set(keys()) == {digest_of(each) for each in [*layers[2:], b"own config"]}


def _lease(owner: TestKey, namespace: Namespace, content: bytes, store: FilesystemStore) -> UUID:
    image = push_image(owner, namespace, "leasing", layers=[], config=b"x", store=store)
    push_blob(owner, image.image_id, content, store=store)
    return image.image_id


def test_all_leases_of_one_blob_in_one_batch_queue_it_once(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    images = [
        push_image(owner, namespace, f"image-{number}", tags=(), layers=[b"layer"]) for number in range(4)
    ]
    for image in images:
        manifests.delete(actor=owner.actor, image_id=image.image_id, digest=image.digest)
    BlobReview.objects.all().delete()
    ends = [now() - timedelta(hours=hours) for hours in (4, 1, 3, 2)]
    for image, end in zip(images, ends, strict=True):
        BlobLease.objects.filter(image=image.image_id).update(expires_at=end)
    deletion.remove_expired_leases(limit=100)
    assert BlobReview.objects.get(blob__digest=digest_of(b"layer")).unreferenced_since == ends[1]


def test_a_release_never_moves_a_row_of_the_queue_to_an_earlier_time(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    image = push_image(owner, namespace, tags=(), layers=[b"layer"])
    BlobLease.objects.update(expires_at=now() - timedelta(hours=5))
    delete_image(image, store)  # links end now, the leases ended before
    released = BlobReview.objects.get(blob__digest=digest_of(b"layer")).unreferenced_since
    assert now() - released < timedelta(minutes=1)


def test_invariant_2_a_promise_is_not_shortened_by_a_later_one(owner: TestKey, pushed: Pushed) -> None:
    # given a lease by a node whose clock is ahead, or with a longer `REGISTRY_LEASE`
    digest = push_blob(owner, pushed.image_id, b"uploaded")
    lease, ahead = BlobLease.objects.get(blob__digest=digest), now() + timedelta(days=30)
    BlobLease.objects.update(expires_at=ahead)
    blobs.promise(blob_id=lease.blob_id, image_id=pushed.image_id)
    lease.refresh_from_db()
    assert lease.expires_at == ahead
