"""Quarantine and healing beside pushes, the collector and each other, on real connections."""

from datetime import timedelta
from uuid import UUID

import pytest

from registry_control.catalog.errors import BlobNotFound, MissingContent
from registry_control.catalog.models import Blob, BlobLink
from registry_control.catalog.services import blobs, manifests, uploads
from registry_control.gc.services import collector, inventory
from registry_control.integrity.models import BlobFault, Job
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.services import faults, jobs
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from tests.factories import Pushed, TestKey, digest_of, make_manifest, push_blob
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction
from tests.integration.gc.steps import expire_leases, rules
from tests.integration.integrity.conftest import LAYER
from tests.integration.integrity.steps import current

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]

DIGEST = digest_of(LAYER)
DAMAGED = Finding(Content.DAMAGED, "other bytes")


def quarantine() -> bool:
    blob = current(DIGEST)
    return faults.settle(blob.pk, key=blob.storage_key, finding=DAMAGED)


def heal(owner: TestKey, image_id: UUID) -> bool:
    """Finish an upload of the content; return whether its bytes are used."""
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    key = blob_key("sha256", DIGEST.removeprefix("sha256:"), session.hex)
    new = blobs.NewBlob(DIGEST, len(LAYER), key)
    return blobs.record_upload(session_id=session, image_id=image_id, new=new)


def test_a_manifest_waits_for_a_quarantine_and_is_refused(owner: TestKey, pushed: Pushed) -> None:
    blob, new = current(DIGEST), make_manifest([DIGEST])
    with open_transaction():
        assert quarantine()
        push = Other(
            lambda: manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=())
        )
        mount = Other(lambda: blobs.promise(blob_id=blob.pk, image_id=pushed.image_id))
        assert push.waits
    with pytest.raises(MissingContent):
        push.end()
    with pytest.raises(BlobNotFound):
        mount.end()


def test_a_quarantine_waits_for_a_manifest_whose_link_stays(owner: TestKey, pushed: Pushed) -> None:
    new = make_manifest([DIGEST])
    with open_transaction():
        manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=())
        other = Other(quarantine)
        assert other.waits
    assert other.end()
    assert current(DIGEST).state == "damaged"
    assert BlobLink.objects.filter(blob__digest=DIGEST).count() == 2


def test_several_uploads_heal_a_blob_at_once_and_one_of_them_is_used(owner: TestKey, pushed: Pushed) -> None:
    assert quarantine()
    before = current(DIGEST)
    results = at_once(*(lambda: heal(owner, pushed.image_id) for _ in range(4)))
    assert sorted(results) == [False, False, False, True]
    assert (current(DIGEST).pk, current(DIGEST).state) == (before.pk, "live")
    assert Blob.objects.get(storage_key=before.storage_key).state == "deleting"
    assert BlobFault.objects.get().healed_at is not None


def test_an_upload_that_waits_for_a_quarantine_heals_the_blob(owner: TestKey, pushed: Pushed) -> None:
    with open_transaction():
        assert quarantine()
        other = Other(lambda: heal(owner, pushed.image_id))
        assert other.waits
    assert other.end()
    assert current(DIGEST).state == "live"


def test_a_look_at_the_old_content_does_not_quarantine_the_new_one(owner: TestKey, pushed: Pushed) -> None:
    assert quarantine()
    old = current(DIGEST)
    with open_transaction():
        assert heal(owner, pushed.image_id)
        other = Other(lambda: faults.settle(old.pk, key=old.storage_key, finding=DAMAGED))
        assert other.waits
    assert not other.end()
    assert current(DIGEST).state == "live"


@pytest.fixture
def unreferenced(owner: TestKey, pushed: Pushed, store: FilesystemStore) -> str:
    """A damaged blob in the review queue that nothing refers to."""
    digest = push_blob(owner, pushed.image_id, b"unreferenced", store=store)
    blob = current(digest)
    assert faults.settle(blob.pk, key=blob.storage_key, finding=DAMAGED)
    expire_leases()
    return digest


def record_again(owner: TestKey, image_id: UUID) -> None:
    push_blob(owner, image_id, b"unreferenced")


def test_the_collector_leaves_a_blob_that_an_upload_is_healing(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, unreferenced: str
) -> None:
    with open_transaction():
        record_again(owner, pushed.image_id)
        batch = Other(lambda: collector.collect_batch(store=store, rules=rules(), limit=10)).end()
        assert batch.removed == 0
    collector.collect_batch(store=store, rules=rules(), limit=10)
    assert current(unreferenced).state == "live"


def test_an_upload_that_comes_after_the_collector_stores_another_blob(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, unreferenced: str
) -> None:
    before = current(unreferenced)
    while inventory.advance():
        pass  # the circuit breaker of the collector needs it
    with open_transaction():
        claim = collector._claim(rules(), limit=10)  # noqa: SLF001
        assert unreferenced in [each.digest for each in claim.doomed]
        upload = Other(lambda: record_again(owner, pushed.image_id))
        look = Other(lambda: faults.settle(before.pk, key=before.storage_key, finding=DAMAGED))
        assert upload.waits
    upload.end()
    assert not look.end()
    assert (current(unreferenced).state, current(unreferenced).pk != before.pk) == ("live", True)
    collector.collect_batch(store=store, rules=rules(timedelta(days=4)), limit=10)
    assert Blob.objects.filter(digest=unreferenced).count() == 1


def test_one_worker_has_a_job_at_a_time_and_another_one_after_a_minute() -> None:
    def acquire() -> bool:
        with jobs.held(Job.Name.SCRUB) as job:
            return job is not None

    with jobs.held(Job.Name.SCRUB) as mine:
        assert mine is not None
        assert not Other(acquire).end()
        # given a worker that was stopped for longer than its lease
        Job.objects.update(leased_until=jobs.lease_end() - timedelta(minutes=2))
        assert Other(acquire).end()
        assert not mine.renew()
        assert not mine.save(error="of a worker that has lost the job")
    assert Job.objects.get(pk="scrub").error == ""
