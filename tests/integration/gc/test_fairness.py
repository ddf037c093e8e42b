"""Content that the storage refuses to delete does not keep other content from being deleted."""

import pytest

from registry_control.catalog.models import Blob, BlobReview
from registry_control.common.clock import now
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import Key
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, make_key, make_namespace, push_image
from tests.integration.gc.steps import collect, delete_image, expire_leases

pytestmark = pytest.mark.django_db(transaction=True)

_STUCK = [b"stuck %d" % number for number in range(6)]


@pytest.fixture
def stuck(owner: TestKey, namespace: Namespace, store: FilesystemStore) -> set[str]:
    """Unreferenced blobs in state deleting whose content cannot be deleted: folders have taken its place."""
    pushed = push_image(owner, namespace, "stuck", layers=_STUCK, config=b"stuck", store=store)
    delete_image(pushed, store)
    for key in Blob.objects.values_list("storage_key", flat=True):
        path = store.path_of(Key(key))
        path.unlink()
        path.mkdir()
    assert len(collect(store).errors) == 7
    BlobReview.objects.update(retry_at=now())
    return set(pushed.blobs)


def test_a_batch_reviews_new_rows_beside_any_number_of_failing_ones(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, stuck: set[str]
) -> None:
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)

    batch = collect(store, limit=4)

    assert (batch.removed, len(batch.errors), batch.is_full) == (2, 2, True)
    assert not batch.storage_is_down
    assert set(Blob.objects.values_list("digest", flat=True)) == stuck


def test_a_batch_that_drops_referenced_rows_beside_failing_ones_is_no_failure_of_the_storage(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, stuck: set[str]
) -> None:
    # given a queue that begins with blobs that a manifest lists
    kept = push_image(owner, namespace, "kept", layers=[b"kept"], store=store)
    expire_leases()

    # when a batch deletes nothing, then the next one goes on: more of the queue may be collectable
    batch = collect(store, limit=2)
    assert (batch.removed, batch.kept, len(batch.errors)) == (0, 1, 1)
    assert batch.is_full
    assert not batch.storage_is_down
    assert set(Blob.objects.values_list("digest", flat=True)) == stuck | set(kept.blobs)


def test_a_batch_takes_due_rows_of_every_organization(store: FilesystemStore) -> None:
    # given an organization whose many rows are all older than those of two others
    first, *others = (make_key() for _ in range(3))
    many = [b"layer %d" % number for number in range(60)]
    delete_image(push_image(first, make_namespace(first), layers=many, store=store), store)
    for key in others:
        layers = [b"of %s" % key.access_key.encode()]
        pushed = push_image(key, make_namespace(key), layers=layers, config=layers[0] + b"!", store=store)
        delete_image(pushed, store)

    # when one batch runs that is much smaller than the backlog
    assert collect(store, limit=24).removed == 24

    # then nothing of the others waits for the first
    waiting = set(BlobReview.objects.values_list("organization_id", flat=True))
    assert waiting == {first.organization.pk}


def test_rows_without_an_organization_are_collected_in_the_order_of_time(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)
    BlobReview.objects.update(organization_id=None)
    assert collect(store, limit=10).removed == 2
