"""A clock that jumps lets nothing expire early, and keeps nothing for longer: all that goes by its age."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import pytest
from django.test import override_settings

from registry_control.catalog.models import BlobLease, Image, TagHistory, UploadSession
from registry_control.catalog.services import deletion, images, tags, uploads
from registry_control.common import clock_watch
from registry_control.gc.services import clock_repair
from registry_control.integrity.models import BlobCheck, Job, UnknownObject
from registry_control.integrity.selectors.due import longest_unverified
from registry_control.integrity.services import reconcile, unknown
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import emptying
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, push_blob, push_image
from tests.integration.control.api import Api
from tests.integration.gc import retaining
from tests.integration.gc.recycling import restore
from tests.integration.gc.stepping import Clock, clock_of_the_test
from tests.integration.integrity.steps import orphan

pytestmark = pytest.mark.django_db(transaction=True)

YEARS: Final = timedelta(days=3650)
BIN: Final = timedelta(days=7)
GRACE: Final = timedelta(days=1)
LIFE: Final = timedelta(days=1)
SECOND: Final = timedelta(seconds=1)


@dataclass
class Machine:
    """The machine of the database, whose clock a test moves."""

    clock: Clock
    up: timedelta = timedelta(hours=1)

    def jump(self, by: timedelta) -> None:
        """Set the clock, and let a worker notice it."""
        self.clock.advance(by)
        clock_watch.check()

    def wait(self, time: timedelta) -> None:
        """Let real time pass."""
        self.up += time
        self.clock.advance(time)
        clock_watch.check()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with (
        clock_of_the_test() as clock,
        override_settings(RECYCLE_BIN=BIN, UPLOAD_LIFE=LIFE, BLOB_LEASE=LIFE, GC_GRACE=GRACE),
        monkeypatch.context() as patch,  # undone before that of the clock, which replaces the ticks, too
    ):
        made = Machine(clock)
        patch.setattr(clock_watch, "_ticks", lambda: made.up.total_seconds())
        clock_watch.check()
        yield made


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


def test_nothing_leaves_the_recycle_bin_early(owner: TestKey, namespace: Namespace, machine: Machine) -> None:
    # given a deleted image, half of whose time in the recycle bin is over
    pushed = push_image(owner, namespace)
    Api(owner).delete(f"/images/{pushed.image_id}")
    machine.wait(BIN / 2)

    # when the clock jumps by ten years, then it stays for as long as a deletion of that moment
    machine.jump(YEARS)
    assert not emptying.expire(limit=10)
    machine.wait(BIN - SECOND)
    assert not emptying.expire(limit=10)
    assert restore(owner).status == 200

    # and it goes at last
    Api(owner).delete(f"/images/{pushed.image_id}")
    machine.wait(BIN)
    emptying.expire(limit=10)
    assert not RecycleBinEntry.objects.exists()


def test_a_jump_by_less_than_the_time_of_the_bin_is_waited_for(
    owner: TestKey, namespace: Namespace, machine: Machine
) -> None:
    pushed = push_image(owner, namespace)
    Api(owner).delete(f"/images/{pushed.image_id}")
    machine.wait(BIN / 2)
    machine.jump(BIN / 2)
    emptying.expire(limit=10)
    assert RecycleBinEntry.objects.exists()
    machine.wait(BIN / 2)
    emptying.expire(limit=10)
    assert not RecycleBinEntry.objects.exists()


def test_the_history_of_tags_stays(owner: TestKey, namespace: Namespace, machine: Machine) -> None:
    for content in (b"old", b"new"):
        push_image(owner, namespace, layers=[content])
    assert TagHistory.objects.count() == 1
    machine.jump(YEARS)
    assert tags.forget_history(limit=10) == 0
    machine.wait(BIN)
    assert tags.forget_history(limit=10) == 1


def test_an_upload_goes_on_after_a_jump(
    owner: TestKey, image_id: UUID, store: FilesystemStore, machine: Machine
) -> None:
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    machine.jump(YEARS)
    uploads.expire(store=store, limit=10)
    found = uploads.get(session_id=session, image_id=image_id)

    # and its next chunk extends it
    uploads.save_progress(found, hashed=None)
    machine.wait(LIFE * 0.95)
    uploads.expire(store=store, limit=10)
    assert UploadSession.objects.get().is_open
    machine.wait(LIFE)
    uploads.expire(store=store, limit=10)
    assert not UploadSession.objects.exists()


def test_a_new_image_with_a_promised_blob_stays(
    owner: TestKey, image_id: UUID, store: FilesystemStore, machine: Machine
) -> None:
    push_blob(owner, image_id, b"promised", store=store)
    UploadSession.objects.all().delete()
    machine.jump(YEARS)
    assert deletion.remove_never_pushed(limit=10) == 0
    machine.wait(LIFE * 2)
    deletion.remove_expired_leases(limit=10)
    assert deletion.remove_never_pushed(limit=10) == 1
    assert not Image.objects.filter(status="ready").exists()


def test_an_unknown_object_stays(store: FilesystemStore, machine: Machine) -> None:
    _unknown(store)
    machine.jump(YEARS)
    outcome = unknown.remove_due(store, grace=GRACE, even_most=True)
    assert (outcome.objects, outcome.error) == (0, "")
    assert "the clock jumped forward" in outcome.held
    machine.wait(GRACE - SECOND)
    assert unknown.remove_due(store, grace=GRACE).objects == 0
    machine.wait(SECOND)
    assert unknown.remove_due(store, grace=GRACE).objects == 1


def test_rules_of_retention_wait_for_as_long_as_they_keep(
    owner: TestKey, namespace: Namespace, image_id: UUID, machine: Machine
) -> None:
    retaining.set_rules(namespace, {"keep_days_since_tagged": 30})
    retaining.push(owner, image_id, "v1")
    machine.jump(YEARS)
    run = retaining.enforce(namespace)
    assert run.tags == 0
    assert "the clock jumped forward" in run.skipped[0]
    machine.wait(timedelta(days=30) - SECOND)
    assert retaining.enforce(namespace).tags == 0
    machine.wait(SECOND)
    assert retaining.enforce(namespace).tags == 1


def test_after_a_jump_backward_everything_goes_in_its_time(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, machine: Machine
) -> None:
    # given rows of a time when the clock was ten years ahead
    machine.jump(YEARS)
    pushed = push_image(owner, namespace, store=store)
    push_image(owner, namespace, layers=[b"new"], store=store)
    deleted = push_image(owner, namespace, "deleted", layers=[b"deleted"], store=store)
    Api(owner).delete(f"/images/{deleted.image_id}")
    uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
    _unknown(store)
    reconcile.work(store, period=BIN, grace=GRACE)
    Job.objects.update(retry_at=machine.clock.now())
    BlobCheck.objects.create(blob_id=1, storage_key="a", reason="", due_at=machine.clock.now())

    # when it is set back
    machine.jump(-YEARS)
    clock_repair.repair_if_needed()

    # then each goes after the time that it has
    machine.wait(BIN + SECOND)
    emptying.expire(limit=10)
    tags.forget_history(limit=10)
    uploads.expire(store=store, limit=10)
    assert unknown.remove_due(store, grace=GRACE).objects == 1
    for model in (RecycleBinEntry, TagHistory, UploadSession):
        assert not model._default_manager.exists()

    # and nothing waits for the wrong time
    moment = machine.clock.now()
    assert BlobCheck.objects.get().due_at <= moment
    assert not Job.objects.filter(retry_at__gt=moment).exists()
    assert longest_unverified(until=moment, limit=10)
    before = Job.objects.get(pk="reconcile").started_at
    for _ in range(10):
        reconcile.work(store, period=BIN, grace=GRACE)
    after = Job.objects.get(pk="reconcile").started_at
    assert before is not None
    assert after is not None
    assert after > before


@pytest.mark.parametrize("period", [timedelta(0), BIN / 7, BIN * 2], ids=["off", "shorter", "longer"])
def test_after_a_jump_backward_an_entry_of_the_bin_stays_for_as_long_as_was_said(
    owner: TestKey, namespace: Namespace, machine: Machine, period: timedelta
) -> None:
    # given an image that was deleted while the clock was ahead
    machine.jump(BIN)
    pushed = push_image(owner, namespace)
    Api(owner).delete(f"/images/{pushed.image_id}")

    # when the clock is set back, and the worker runs with another period
    machine.jump(-BIN)
    with override_settings(RECYCLE_BIN=period):
        clock_repair.repair_if_needed()

        # then the image stays for the period of its deletion
        entry = RecycleBinEntry.objects.get()
        assert entry.expires_at - entry.deleted_at == BIN
        machine.wait(BIN - SECOND)
        assert not emptying.expire(limit=10)
        assert RecycleBinEntry.objects.exists()
        machine.wait(2 * SECOND)
        emptying.expire(limit=10)
        assert not RecycleBinEntry.objects.exists()


@pytest.mark.parametrize("jump", [YEARS, -YEARS], ids=["forward", "backward"])
def test_a_lease_of_a_time_when_leases_were_longer_is_kept_after_a_jump(
    owner: TestKey, image_id: UUID, store: FilesystemStore, machine: Machine, jump: timedelta
) -> None:
    # given a lease of seven days that was promised before leases became shorter
    with override_settings(BLOB_LEASE=LIFE * 7):
        if jump < timedelta(0):
            machine.jump(YEARS)
        clock_watch.check()
        push_blob(owner, image_id, b"promised", store=store)

    # when the clock jumps, then it lasts for its seven days
    machine.jump(jump)
    clock_repair.repair_if_needed()
    machine.wait(LIFE * 7 - SECOND)
    deletion.remove_expired_leases(limit=10)
    assert deletion.remove_never_pushed(limit=10) == 0
    assert BlobLease.objects.exists()

    # and no longer than the longest one
    machine.wait(LIFE * 3)
    deletion.remove_expired_leases(limit=10)
    assert not BlobLease.objects.exists()


def _unknown(store: FilesystemStore) -> None:
    """Content of which no row knows, as reconciling has seen it."""
    orphan(store, b"unknown")
    reconcile.compare(store, reconcile.OBJECTS, "", limit=100)
    assert UnknownObject.objects.count() == 1
