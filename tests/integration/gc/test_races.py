"""The collector beside pushes, mounts, HEAD requests, deletions and other collectors, on real connections."""

import os
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.catalog import references
from registry_control.catalog.errors import BlobNotFound, MissingContent
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from registry_control.catalog.references import Cause
from registry_control.catalog.services import blobs, deletion, images, manifests
from registry_control.common.clock import now
from registry_control.gc.services import collector, inventory
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import Key
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, digest_of, make_manifest, make_namespace, push_blob, push_image
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction
from tests.integration.gc.steps import LATER, collect, delete_image, expire_leases, keys, queued, rules

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


@pytest.fixture
def layer(owner: TestKey, image_id: UUID, store: FilesystemStore) -> str:
    """A blob in the queue that nothing refers to."""
    digest = push_blob(owner, image_id, b"layer", store=store)
    expire_leases()
    return digest


def upload_again(owner: TestKey, image_id: UUID) -> None:
    push_blob(owner, image_id, b"layer")


def promise(owner: TestKey, image_id: UUID) -> None:
    """What a mount does, and a HEAD request."""
    blob = Blob.objects.get(digest=digest_of(b"layer"), state="live")
    blobs.promise(blob_id=blob.pk, image_id=image_id)


def push(owner: TestKey, image_id: UUID) -> None:
    """Upload and list the blob in one transaction."""
    upload_again(owner, image_id)
    new = make_manifest([digest_of(b"layer")])
    manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=["latest"])


@pytest.mark.oci(169)
@pytest.mark.parametrize("reference", [upload_again, promise, push])
def test_invariant_2_a_reference_that_comes_first_keeps_the_blob(
    owner: TestKey,
    image_id: UUID,
    layer: str,
    store: FilesystemStore,
    reference: Callable[[TestKey, UUID], None],
) -> None:
    # given a transaction that refers to the blob and is not committed
    with open_transaction():
        reference(owner, image_id)

        # when the collector reviews it, then it does not wait, and leaves the blob alone
        batch = Other(lambda: collect(store)).end()
        assert (batch.removed, batch.kept) == (0, 0)

    # and after the commit the review finds the reference
    batch = collect(store)
    assert (batch.removed, batch.kept) == (0, 1)
    assert queued() == set()
    assert Blob.objects.get(digest=layer).state == "live"


def _mark(blob: str) -> None:
    """Step 1 of the collector, for tests that stop it there."""
    claim = collector._claim(rules(), limit=10)  # noqa: SLF001
    assert [each.digest for each in claim.doomed] == [blob]


@pytest.mark.oci(168, 169, 170)
@pytest.mark.parametrize("step", ["before the commit", "after it"])
def test_invariant_2_a_blob_that_the_collector_marks_first_is_promised_to_nobody(
    owner: TestKey, image_id: UUID, layer: str, store: FilesystemStore, step: str
) -> None:
    inventory.advance()  # without it, the circuit breaker lets nothing be marked
    # given a lease that was promised to another image, so that the push refers to an existing blob
    blob_id = Blob.objects.get(digest=layer).pk
    new = make_manifest([layer])
    calls: list[Callable[[], object]] = [
        lambda: blobs.promise(blob_id=blob_id, image_id=image_id),
        lambda: manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=["latest"]),
    ]
    if step == "before the commit":
        with open_transaction():
            _mark(layer)
            others = [Other(calls[0])]
            assert others[0].waits
    else:
        _mark(layer)
        others = [Other(call) for call in calls]

    # then the mount, the HEAD request and the manifest find no blob
    for other, error in zip(others, (BlobNotFound, MissingContent), strict=False):
        with pytest.raises(error):
            other.end()
    assert not BlobLease.objects.exists()

    # and an upload stores a copy of its own, which the collector does not touch
    push_blob(owner, image_id, b"layer", store=store)
    fresh = Blob.objects.get(digest=layer, state="live")
    assert collect(store, LATER + timedelta(minutes=1)).removed == 1
    assert keys() == {layer: fresh.storage_key}
    assert store.size(Key(fresh.storage_key)) == 5


def test_a_release_during_a_review_that_still_sees_the_reference_queues_the_blob_again(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a queued blob with one manifest, whose deletion has removed the link and not queued the blob yet
    pushed = push_image(owner, namespace, layers=[b"layer"], store=store)
    expire_leases()
    assert queued() == set(pushed.blobs)

    # when the collector reviews the queue during the deletion
    with open_transaction():
        references.release_links(
            [pushed.image.manifests.get().pk], image_id=pushed.image_id, cause=Cause.MANIFEST_DELETED
        )
        assert BlobReview.objects.count() == 2  # PostgreSQL has executed all statements before this one
        batch = Other(lambda: collect(store)).end()
        assert batch.claimed == 0  # the deletion has locked the rows, so the review skips them
    assert queued() == set(pushed.blobs)
    with open_transaction():
        assert collect(store).removed == 2


def test_a_release_waits_for_a_review_and_queues_the_blob_again(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    pushed = push_image(owner, namespace, layers=[b"layer"], store=store)
    expire_leases()
    manifest_id = pushed.image.manifests.get().pk

    def release() -> None:
        with open_transaction():
            references.release_links([manifest_id], image_id=pushed.image_id, cause=Cause.MANIFEST_DELETED)

    # given a review that has seen the link and is not committed
    with open_transaction():
        assert collect(store).kept == 2
        other = Other(release)
        assert other.waits
    other.end()

    # then the blobs are in the queue: nothing refers to them
    assert queued() == set(pushed.blobs)
    assert collect(store).removed == 2


def test_two_transactions_that_end_the_last_two_references_queue_the_blob(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    pushed = [push_image(owner, namespace, name, layers=[b"layer"], store=store) for name in ("one", "two")]
    expire_leases()
    BlobReview.objects.all().delete()
    results = at_once(*(lambda each=each: delete_image(each, store) for each in pushed))
    assert results == [None, None]
    assert queued() == set(pushed[0].blobs)
    assert collect(store).removed == 2
    assert not Blob.objects.exists()


def test_several_collectors_remove_each_blob_once(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    layers = [os.urandom(10) for _ in range(300)]
    delete_image(push_image(owner, namespace, layers=layers, store=store), store)

    def collect_all() -> int:
        removed = 0
        while (batch := collect(store, limit=20)).claimed:
            removed += batch.removed
            assert not batch.errors
        return removed

    results = at_once(*[collect_all] * 4)
    while collect(store, limit=20).claimed:
        pass

    assert sum(results) == 301
    assert not Blob.objects.exists()
    events = AuditEvent.objects.filter(verb="blob.removed")
    assert events.count() == events.values("target_name").distinct().count() == 301


def test_invariant_11_deletions_of_images_with_common_layers_never_deadlock(
    owner: TestKey, store: FilesystemStore
) -> None:
    # given images that share layers, as links of some and as leases of others
    contents = [b"layer %d" % number for number in range(12)]
    pushed = []
    for number in range(4):
        order = contents[number:] + contents[:number]
        image = push_image(owner, make_namespace(owner), layers=order[::-1] if number % 2 else order)
        for content in order[6:]:
            push_blob(owner, image.image_id, b"leased " + content)
        pushed.append(image)

    # when all of them are deleted and collected at once
    def collect_some() -> None:
        for _ in range(20):
            collect(store, limit=5)

    results = at_once(*(lambda each=each: delete_image(each, store) for each in pushed), collect_some)

    # then every call succeeds
    assert results == [None] * 5
    while deletion.run_batch(store=store, limit=100):
        pass
    while collect(store).claimed:
        pass
    assert not Blob.objects.exists()
    assert not BlobReview.objects.exists()


def test_pushes_and_deletions_beside_the_collector_lose_nothing(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    """No push fails after its blobs were promised, and in the end every listed blob is stored."""
    stop = now().timestamp() + 4

    def pushing(number: int) -> int:
        rounds = 0
        while now().timestamp() < stop:
            pushed = push_image(
                owner, namespace, f"image-{number}", layers=[b"common", b"%d" % number], store=store
            )
            if rounds % 2:
                manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
                references_end(pushed.image_id)
            rounds += 1
        push_image(owner, namespace, f"image-{number}", layers=[b"common", b"%d" % number], store=store)
        return rounds

    def references_end(image_id: UUID) -> None:
        BlobLease.objects.filter(image=image_id).update(expires_at=now())
        deletion.remove_expired_leases(limit=10)

    def collecting() -> int:
        removed = 0
        while now().timestamp() < stop:
            removed += collect(store, limit=10).removed
        return removed

    results = at_once(*(lambda number=number: pushing(number) for number in range(3)), collecting, collecting)

    assert [each for each in results if isinstance(each, BaseException)] == []
    assert min(results[:3]) > 2
    assert sum(results[3:]) > 2
    for digest, key in Blob.objects.filter(links__isnull=False, state="live").values_list(
        "digest", "storage_key"
    ):
        assert digest_of(b"".join(store.read(key))) == digest  # type: ignore[arg-type]
    linked = Blob.objects.filter(links__isnull=False, state="live").values_list("digest", flat=True)
    assert set(linked) == {digest_of(content) for content in (b"common", b"0", b"1", b"2", b"{}")}
