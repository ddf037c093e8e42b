"""Content that was damaged on the disk is found, taken out of service, and healed by the next push."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from registry_control.audit.models import AuditEvent
from registry_control.catalog.errors import BlobNotFound, MissingContent
from registry_control.catalog.models import Blob, BlobLink
from registry_control.catalog.selectors.sample import random_blobs
from registry_control.catalog.services import blobs, manifests
from registry_control.common.clock import now
from registry_control.gc.services.collector import collect_batch
from registry_control.integrity.models import BlobCheck, BlobFault, Job
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.selectors.due import StoredBlob
from registry_control.integrity.selectors.report import covered, errors, full_report
from registry_control.integrity.services import checks, commands, scrub
from registry_control.integrity.services.checks import Looks
from registry_data.storage.base import Key, NotStored, Unavailable
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, digest_of, make_manifest, push_blob
from tests.integration.gc.steps import is_stored, rules
from tests.integration.integrity.conftest import LAYER
from tests.integration.integrity.steps import (
    DAMAGES,
    PERIOD,
    age,
    change,
    current,
    remove,
    scrub_all,
    second_looks,
)

pytestmark = pytest.mark.django_db(transaction=True)


MISSING = Finding(Content.MISSING, "no such content")


def states() -> dict[str, str]:
    return dict(Blob.objects.values_list("digest", "state"))


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_content_is_quarantined_and_healed_by_the_next_upload(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, how: str
) -> None:
    # given a blob whose content is not what was pushed
    damaged = digest_of(LAYER)
    before = current(damaged)
    DAMAGES[how](store, damaged)

    # when it is scrubbed, then one look changes nothing
    age(days=29)
    scrub.work(store, period=PERIOD)
    assert set(states().values()) == {"live"}
    assert [check.blob_id for check in BlobCheck.objects.all()] == [before.pk]

    # and the second one takes this blob out of service
    second_looks(store)
    expected = "missing" if how == "removed" else "damaged"
    assert states() == dict.fromkeys(pushed.blobs, "live") | {damaged: expected}
    fault = BlobFault.objects.get()
    assert (fault.digest, fault.kind, fault.healed_at) == (damaged, expected, None)
    assert AuditEvent.objects.filter(verb=f"blob.{expected}", target_name=damaged).count() == 1
    with pytest.raises(BlobNotFound):
        blobs.promise(blob_id=before.pk, image_id=pushed.image_id)
    with pytest.raises(MissingContent):
        manifests.put(actor=owner.actor, image_id=pushed.image_id, new=make_manifest([damaged]), tag_names=())

    # when it is pushed again, to whatever image, then the same row has the content, and the links stay
    push_blob(owner, pushed.image_id, LAYER, store=store)
    healed = current(damaged)
    assert (healed.pk, healed.state) == (before.pk, "live")
    assert b"".join(store.read(Key(healed.storage_key))) == LAYER
    assert BlobLink.objects.filter(blob=healed, image=pushed.image_id).exists()
    assert BlobFault.objects.get().healed_at is not None
    assert AuditEvent.objects.filter(verb="blob.healed", target_name=damaged).count() == 1

    # and the old bytes go through the collector
    assert healed.storage_key != before.storage_key
    assert collect_batch(store=store, rules=rules(timedelta(0)), limit=10).removed == 1
    assert not is_stored(store, before.storage_key)
    assert is_stored(store, healed.storage_key)
    second_looks(store)
    assert not BlobCheck.objects.exists()
    assert set(states().values()) == {"live"}


def test_a_manifest_that_is_pushed_again_names_its_damaged_blobs(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    layers = [digest_of(LAYER), digest_of(b"another layer")]
    new = make_manifest(layers)
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=["again"])
    change(store, layers[0])
    scrub_all(store)
    with pytest.raises(MissingContent) as refused:
        manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=["again"])
    assert set(refused.value.platforms) == {layers[0]}
    push_blob(owner, pushed.image_id, LAYER, store=store)
    manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=["again"])


@pytest.mark.parametrize("how", DAMAGES)
def test_content_that_an_operator_restores_is_in_service_again(
    pushed: Pushed, store: FilesystemStore, how: str
) -> None:
    damaged = digest_of(LAYER)
    DAMAGES[how](store, damaged)
    scrub_all(store)
    assert current(damaged).state != "live"
    store.path_of(Key(current(damaged).storage_key)).write_bytes(LAYER)
    second_looks(store)
    assert current(damaged).state == "live"
    assert BlobFault.objects.get().healed_at is not None
    assert not BlobCheck.objects.exists()


class FailingStore(FilesystemStore):
    """A disk with read errors, during the call or in the middle of the content."""

    during_call = False

    def read_past_cache(self, key: Key) -> Iterator[bytes]:
        if self.during_call:
            raise Unavailable("Input/output error")
        return self._broken(key)

    def _broken(self, key: Key) -> Iterator[bytes]:
        yield next(iter(super().read(key)))[:3]
        raise Unavailable("Input/output error")


def test_content_that_cannot_be_read_does_not_stop_the_rest(pushed: Pushed, store: FilesystemStore) -> None:
    class Partly(FilesystemStore):
        def read_past_cache(self, key: Key) -> Iterator[bytes]:
            if key == current(pushed.blobs[0]).storage_key:
                raise Unavailable("Input/output error")
            return super().read_past_cache(key)

    partly = Partly(store._root)  # noqa: SLF001
    change(store, digest_of(LAYER))
    for _ in range(2):
        scrub_all(partly)
    assert current(digest_of(LAYER)).state == "damaged"
    assert covered(PERIOD) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("during_call", [True, False])
def test_invariant_7_a_read_error_marks_nothing(
    pushed: Pushed, store: FilesystemStore, during_call: bool
) -> None:
    failing = FailingStore(store._root)  # noqa: SLF001
    failing.during_call = during_call
    for _ in range(3):
        scrub_all(failing)
    assert set(states().values()) == {"live"}
    assert Job.objects.get(pk="scrub").retry_at is not None
    Job.objects.update(retry_at=None)
    assert {check.reason for check in BlobCheck.objects.all()} == {"Input/output error"}
    assert all(check.due_at > now() for check in BlobCheck.objects.all())
    assert "3 blobs cannot be read: Input/output error" in errors()

    # and when the storage works again, the blobs are verified and nothing is left
    scrub_all(store)
    assert not BlobCheck.objects.exists()
    scrub.work(store, period=PERIOD)
    assert errors() == []
    assert covered(PERIOD) == 1.0


@pytest.mark.parametrize("reasons", [10, 12])
def test_blobs_that_cannot_be_read_for_many_reasons_are_counted(reasons: int) -> None:
    for number in range(reasons):
        BlobCheck.objects.create(
            blob_id=number, storage_key="key", reason=f"error {number}", due_at=now(), failed_at=now()
        )
    found = errors()
    assert sum(each.startswith("1 blobs cannot be read: error ") for each in found) == 10
    assert found[10:] == ["2 more blobs cannot be read, for other reasons"] * (reasons > 10)


def test_an_error_that_is_gone_at_the_second_look_marks_nothing(
    pushed: Pushed, store: FilesystemStore
) -> None:
    path = store.path_of(Key(current(digest_of(LAYER)).storage_key))
    path.rename(path.with_suffix(".away"))
    age(days=29)
    scrub.work(store, period=PERIOD)
    assert BlobCheck.objects.get().due_at > now()
    assert checks.work(store) is False  # not before some seconds have passed
    path.with_suffix(".away").rename(path)
    second_looks(store)
    assert set(states().values()) == {"live"}
    assert not BlobCheck.objects.exists()


def test_only_two_looks_with_the_same_result_mark_a_blob(pushed: Pushed, store: FilesystemStore) -> None:
    # given a read error, after which the storage says that the content is missing
    failing = FailingStore(store._root)  # noqa: SLF001
    age(days=29)
    scrub.work(failing, period=PERIOD)
    remove(store, digest_of(LAYER))
    second_looks(store)
    assert set(states().values()) == {"live"}
    assert [check.found for check in BlobCheck.objects.all()] == ["missing"]

    # then one more look confirms it
    second_looks(store)
    assert current(digest_of(LAYER)).state == "missing"


def test_content_is_read_again_when_half_of_the_period_is_over(
    pushed: Pushed, store: FilesystemStore
) -> None:
    change(store, digest_of(LAYER))
    scrub.work(store, period=PERIOD)  # just uploaded
    age(days=14)
    scrub.work(store, period=PERIOD)
    assert not BlobCheck.objects.exists()
    age(days=31)
    assert covered(PERIOD) == 0.0
    scrub.work(store, period=PERIOD)
    assert BlobCheck.objects.count() == 1
    assert 0.0 < covered(PERIOD) < 1.0
    second_looks(store)
    assert covered(PERIOD) == 1.0  # a damaged blob was looked at, too


def test_most_content_missing_at_once_is_taken_for_the_wrong_store(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    digests = [push_blob(owner, pushed.image_id, b"layer %d" % number, store=store) for number in range(20)]
    for digest in digests:
        remove(store, digest)
    scrub_all(store)
    assert set(states().values()) == {"live"}
    assert Job.objects.get(pk="checks").error.startswith("most content seems to be missing")

    # but an operator who knows that the content is lost can let the next pushes heal it
    BlobCheck.objects.update(due_at=now())
    checks.work(store, Looks(accept_losses=True))
    assert sorted(states().values()) == ["live"] * 3 + ["missing"] * 20


class SomeMissing(FilesystemStore):
    """Says that it has not some keys, and fails for the others."""

    missing: Collection[str] = ()

    def size(self, key: Key) -> int:
        raise NotStored(key) if key in self.missing else Unavailable("no answer")


def test_a_sample_of_blobs_is_as_large_as_it_can_be(owner: TestKey, pushed: Pushed) -> None:
    # given old blobs, and one that is much newer
    for number in range(20):
        push_blob(owner, pushed.image_id, b"layer %d" % number)
    Blob.objects.create(id=10**9, digest=digest_of(b"new"), size=3, storage_key="new")
    found = random_blobs(15)
    assert len(found) == len({each.id for each in found}) == 15
    assert len(random_blobs(100)) == Blob.objects.count()


def test_content_that_seems_missing_blob_by_blob_is_taken_for_the_wrong_store(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, tmp_path: Path
) -> None:
    # given downloads of a few layers from a disk that is not mounted
    for number in range(20):
        push_blob(owner, pushed.image_id, b"layer %d" % number, store=store)
    empty = FilesystemStore(tmp_path / "mount point")
    empty.check()
    for blob in Blob.objects.order_by("pk")[:3]:
        checks.add(StoredBlob(blob.pk, blob.digest, blob.size, Key(blob.storage_key), now()), MISSING)

    # when they are looked at again, then nothing is out of service
    second_looks(empty)
    assert set(states().values()) == {"live"}
    assert Job.objects.get(pk="checks").error.startswith("most content seems to be missing")

    # nor while the storage fails for all other content
    failing = SomeMissing(tmp_path / "mount point")
    failing.missing = set(Blob.objects.order_by("pk").values_list("storage_key", flat=True)[:3])
    second_looks(failing)
    assert set(states().values()) == {"live"}

    # and the right disk ends it
    second_looks(store)
    assert not BlobCheck.objects.exists()


@pytest.mark.parametrize("command", ["scrub", "reconcile"])
def test_accepted_losses_are_marked_whatever_workers_postponed(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, command: str
) -> None:
    # given lost content, which workers have refused to mark several times
    for number in range(20):
        remove(store, push_blob(owner, pushed.image_id, b"layer %d" % number, store=store))
    scrub_all(store)
    for _ in range(3):
        second_looks(store)
    assert set(states().values()) == {"live"}
    assert BlobCheck.objects.filter(due_at__gt=now() + timedelta(minutes=1)).count() == 20

    # when an operator accepts the losses, then the next pushes heal them
    if command == "scrub":
        found = commands.scrub_all(store, bytes_per_second=None, accept_losses=True).errors
    else:
        found = commands.reconcile_all(store, grace=timedelta(days=1), accept_losses=True).errors
    assert found == []
    assert sorted(states().values()) == ["live"] * 3 + ["missing"] * 20


def test_a_finding_ends_when_garbage_collection_deletes_the_blob(
    owner: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    digest = push_blob(owner, pushed.image_id, b"unused", store=store)
    change(store, digest)
    scrub_all(store)
    Blob.objects.filter(digest=digest).update(state=Blob.State.DELETING)
    assert checks.work(store) is False  # no second look is due
    ended = BlobFault.objects.get()
    assert (ended.healed_at, ended.dropped_at is not None) == (None, True)
    assert not BlobCheck.objects.exists()
    assert not AuditEvent.objects.filter(verb="blob.healed").exists()
    found = full_report(period=PERIOD)
    assert ([*found.damaged], found.damaged_total, found.quarantined_total) == ([], 0, 0)


@pytest.mark.parametrize("how", ["changed", "truncated"])
def test_damaged_content_that_is_missing_later_was_not_healed(
    owner: TestKey, pushed: Pushed, store: FilesystemStore, how: str
) -> None:
    # given damaged content, which goes
    DAMAGES[how](store, digest_of(LAYER))
    scrub_all(store)
    remove(store, digest_of(LAYER))
    for _ in range(2):
        second_looks(store)
    assert current(digest_of(LAYER)).state == "missing"

    # then only the last finding is reported
    found = full_report(period=PERIOD)
    assert ([*found.damaged], found.damaged_total) == ([], 0)
    assert [(each.digest, each.state) for each in found.missing] == [(digest_of(LAYER), "quarantined")]
    assert BlobFault.objects.get(kind="damaged").dropped_at is not None
    assert not AuditEvent.objects.filter(verb="blob.healed").exists()

    # and only that one is healed
    push_blob(owner, pushed.image_id, LAYER, store=store)
    found = full_report(period=PERIOD)
    assert ([*found.damaged], found.missing_total, found.quarantined_total) == ([], 1, 0)
    assert [each.state for each in found.missing] == ["healed"]
    assert BlobFault.objects.get(kind="damaged").healed_at is None
