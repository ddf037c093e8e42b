"""Invariants of the catalogue that one connection can show (docs/invariants.md)."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings
from django.db import connection, transaction

from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import (
    Blob,
    BlobLease,
    BlobLink,
    Image,
    Manifest,
    ManifestChild,
    MissingChild,
    Tag,
    UploadSession,
)
from registry_control.catalog.services import blobs, deletion, images, manifests, tags, uploads
from registry_control.common.clock import now
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import Key, NotStored, StorageError, UploadId
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from tests.factories import TestKey, digest_of, make_namespace, push_blob, push_image

pytestmark = pytest.mark.django_db(transaction=True)


# The long test is split into this many; each fails at every fourth write.
_PARTS: Final = 4


class PowerCut(BaseException):
    """Not an `Exception`, so that no handler catches it."""


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    made = FilesystemStore(tmp_path / "blobs")
    made.check()
    return made


def test_invariant_1_a_digest_uploaded_again_gets_another_key(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a blob that garbage collection has marked
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    digest = push_blob(owner, image_id, b"content", store=store)
    old = Blob.objects.get(digest=digest)
    Blob.objects.filter(pk=old.pk).update(state=Blob.State.DELETING)

    # when the same content is uploaded again, and only then the old copy deleted
    push_blob(owner, image_id, b"content", store=store)
    new = Blob.objects.get(digest=digest, state=Blob.State.LIVE)
    store.delete(Key(old.storage_key))

    # then the new blob has its own bytes
    assert new.storage_key != old.storage_key
    assert b"".join(store.read(Key(new.storage_key))) == b"content"


def test_invariant_2_deleting_a_manifest_creates_leases_for_its_blobs(
    owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace)
    BlobLease.objects.all().delete()
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    leases = BlobLease.objects.filter(image=pushed.image_id)
    assert {lease.blob.digest for lease in leases} == set(pushed.blobs)
    assert all(lease.expires_at > now() + settings.BLOB_LEASE - timedelta(minutes=1) for lease in leases)
    assert Image.objects.get(pk=pushed.image_id).size == 0


@pytest.mark.oci(76)
def test_invariant_4_bytes_without_a_row_are_found_by_the_upload_session_and_deleted(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given an upload whose process died between publishing and recording
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    upload, key = UploadId(session.hex), blob_key("sha256", digest_of(b"x")[7:], session.hex)
    store.create_upload(upload)
    writer = store.open_upload(upload, at=0)
    writer.write(b"x")
    writer.close()
    store.publish(upload, key)

    # when the session expires
    UploadSession.objects.update(expires_at=now() - timedelta(seconds=1))
    assert uploads.expire(store=store, limit=10) == 1

    # then neither the upload nor its bytes exist
    with pytest.raises(NotStored):
        store.size(key)
    with pytest.raises(NotStored):
        store.upload_size(upload)
    assert not UploadSession.objects.exists()


def test_invariant_4_expiry_never_deletes_bytes_that_a_blob_references(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    digest = push_blob(owner, image_id, b"kept", store=store)
    UploadSession.objects.update(expires_at=now() - timedelta(seconds=1))
    uploads.expire(store=store, limit=10)
    assert b"".join(store.read(Key(Blob.objects.get(digest=digest).storage_key))) == b"kept"
    assert not UploadSession.objects.exists()


def test_invariant_4_a_session_whose_bytes_cannot_be_deleted_remains_and_does_not_block_others(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, tmp_path: Path
) -> None:
    # given three expired sessions, the second of which has a folder in place of its file
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    sessions = [uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256") for _ in range(3)]
    in_the_way = tmp_path / "blobs" / "uploads" / sessions[1].hex
    in_the_way.mkdir()
    for age, session in enumerate(reversed(sessions), start=1):
        UploadSession.objects.filter(pk=session).update(expires_at=now() - timedelta(seconds=age))

    # when they are discarded
    uploads.expire(store=store, limit=10)

    # then only this one remains, last in order, and is deleted once its file can be
    assert list(UploadSession.objects.values_list("pk", flat=True)) == [sessions[1]]
    assert UploadSession.objects.get().expires_at > now()
    in_the_way.rmdir()
    assert uploads.expire(store=store, limit=10) == 1
    assert not UploadSession.objects.exists()


def test_an_image_whose_upload_cannot_be_deleted_blocks_no_other_image(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, tmp_path: Path
) -> None:
    # given two deleted images, the first of which has a folder in place of an upload's file
    odd, other = (
        images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name=name) for name in ("a", "b")
    )
    session = uploads.start(actor=owner.actor, image_id=odd, algorithm="sha256")
    in_the_way = tmp_path / "blobs" / "uploads" / session.hex
    in_the_way.mkdir()
    for image_id in (odd, other):
        with transaction.atomic():
            images.start_deletion(images.get_for_update(image_id), actor=SYSTEM)

    # when the worker deletes them one by one
    for _ in range(3):
        deletion.run_batch(store=store, limit=1)

    # then only this one remains, and is deleted once its file can be
    assert Image.objects.get().pk == odd
    in_the_way.rmdir()
    while deletion.run_batch(store=store, limit=1):
        pass
    assert not Image.objects.exists()


def test_an_unavailable_storage_stops_the_deletion_of_uploads(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, tmp_path: Path
) -> None:
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    for _ in range(5):
        uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    UploadSession.objects.update(expires_at=now() - timedelta(seconds=1))
    (tmp_path / "blobs").rename(tmp_path / "away")
    with pytest.raises(StorageError):
        uploads.expire(store=store, limit=10)
    assert UploadSession.objects.filter(is_open=False).count() == 5
    (tmp_path / "away").rename(tmp_path / "blobs")
    uploads.expire(store=store, limit=10)
    assert not UploadSession.objects.exists()


@pytest.mark.parametrize("first", range(_PARTS))
def test_invariant_8_a_deletion_that_fails_at_any_write_is_completed_by_the_next_run(
    owner: TestKey, store: FilesystemStore, first: int
) -> None:
    # given namespaces with the same content, and a worker that fails at its nth write
    for dies_at in itertools.count(first, _PARTS):
        namespace = make_namespace(owner)
        for name in ("a", "b"):
            pushed = push_image(owner, namespace, name, tags=("1", "2"))
            uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
        namespaces.delete(principal=owner.principal, namespace_id=namespace.pk)
        died = _die(store, dies_at)

        # when another worker continues
        while deletion.run_batch(store=store, limit=50):
            pass

        # then no row of the namespace is left
        assert not Namespace.objects.filter(pk=namespace.pk).exists()
        for model in (Image, Tag, Manifest, ManifestChild, MissingChild, BlobLink, BlobLease, UploadSession):
            assert not model.objects.exists(), model
        if not died:
            assert dies_at > 10
            return


def _die(store: FilesystemStore, dies_at: int) -> bool:
    """Delete in the smallest batches until the nth write, which fails; return whether it was reached."""
    calls = itertools.count()

    def count(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("DELETE", "UPDATE", "INSERT")) and next(calls) == dies_at:
            raise PowerCut
        return execute(sql, params, many, context)

    try:
        with connection.execute_wrapper(count):
            while deletion.run_batch(store=store, limit=1):
                pass
    except PowerCut:
        return True
    return False


def test_invariant_8_concurrent_workers_and_repeated_tasks_are_idempotent(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    push_image(owner, namespace)
    namespaces.delete(principal=owner.principal, namespace_id=namespace.pk)
    for _ in range(20):
        deletion.run_batch(store=store, limit=50)
    assert not Namespace.objects.filter(pk=namespace.pk).exists()


def test_invariant_10_every_service_writes_one_audit_row(owner: TestKey, store: FilesystemStore) -> None:
    principal = owner.principal

    def verbs() -> list[str]:
        return list(AuditEvent.objects.filter(pk__gt=last).order_by("pk").values_list("verb", flat=True))

    last = AuditEvent.objects.order_by("pk").values_list("pk", flat=True).last() or 0
    namespace = make_namespace(owner)
    namespaces.update(principal=principal, namespace_id=namespace.pk, description=None, is_public=True)
    pushed = push_image(owner, namespace, tags=("a", "b"))
    push_image(owner, namespace, tags=("a", "b"))  # repeated calls change nothing
    with transaction.atomic():
        images.change_visibility(images.get_for_update(pushed.image_id), to="private", actor=SYSTEM)
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="a")
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    blob = Blob.objects.get(digest=pushed.blobs[0])
    blobs.remove(actor=owner.actor, image_id=pushed.image_id, blob_id=blob.pk, digest=blob.digest)
    namespaces.delete(principal=principal, namespace_id=namespace.pk)
    while deletion.run_batch(store=store, limit=10):
        pass
    assert verbs() == [
        "namespace.create",
        "namespace.update",
        "image.create",
        "manifest.push",
        "tag.set",
        "tag.set",
        "image.visibility",
        "tag.delete",
        "manifest.delete",
        "blob.delete",
        "namespace.delete",
        "image.delete",
        "image.removed",
        "namespace.removed",
    ]


def test_invariant_10_a_change_that_fails_writes_no_audit_row(owner: TestKey, namespace: Namespace) -> None:
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    before = AuditEvent.objects.count()
    new = manifests.NewManifest(
        digest=digest_of(b"m"),
        media_type="application/vnd.oci.image.manifest.v1+json",
        payload=b"m",
        blobs=frozenset([digest_of(b"missing")]),
        children=frozenset(),
        subject="",
        artifact_type="",
        descriptor=b"",
    )
    with pytest.raises(Exception, match="sha256"):
        manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=["t"])
    assert AuditEvent.objects.count() == before


def test_an_image_without_any_push_is_deleted_after_some_time(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="abandoned")
    pushed = push_image(owner, namespace, "used")
    Image.objects.update(created_at=now() - settings.UPLOAD_LIFE - timedelta(minutes=1))
    assert deletion.remove_never_pushed(limit=10) == 1
    while deletion.run_batch(store=store, limit=10):
        pass
    assert not Image.objects.filter(pk=image_id).exists()
    assert Image.objects.filter(pk=pushed.image_id).exists()


def test_only_expired_leases_are_deleted(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace)
    first = BlobLease.objects.filter(image=pushed.image_id).order_by("pk")[0]
    BlobLease.objects.filter(pk=first.pk).update(expires_at=now() - timedelta(seconds=1))
    assert deletion.remove_expired_leases(limit=10) == 1
    assert BlobLease.objects.filter(image=pushed.image_id).count() == 1
