"""Concurrent pushes, deletions and sweeps, on two real PostgreSQL connections."""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.db.models import Sum

from registry_control.audit.services import SYSTEM
from registry_control.catalog.errors import (
    BlobNotFound,
    ConditionUnmet,
    ImageNotFound,
    ImageReadOnly,
    MissingContent,
    NamespaceNotFound,
    UploadNotFound,
)
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
from registry_control.common.models import Status
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.oci.preconditions import Preconditions
from registry_data.oci.reference import Repository
from registry_data.registry import mounts, upload_sessions
from registry_data.registry.authorization import Credentials, require_push
from registry_data.storage.base import Key
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from tests.factories import Pushed, TestKey, digest_of, make_manifest, make_namespace, push_blob, push_image
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction

pytestmark = [pytest.mark.django_db(transaction=True), needs_postgresql]


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


def manifest_of(*digests: str) -> manifests.NewManifest:
    return make_manifest(digests)


def test_two_concurrent_pushes_of_one_tag_leave_one_tag_with_one_of_the_digests(
    owner: TestKey, image_id: UUID
) -> None:
    layer = push_blob(owner, image_id, b"layer")
    actor = owner.actor
    new = [manifest_of(layer) for _ in range(6)]
    results = at_once(
        *(
            lambda each=each: manifests.put(actor=actor, image_id=image_id, new=each, tag_names=["t"])
            for each in new
        )
    )
    assert results == [None] * 6
    assert Tag.objects.get(image=image_id, name="t").manifest.digest in {each.digest for each in new}
    assert Manifest.objects.filter(image=image_id).count() == 6


@pytest.mark.oci(110)
def test_of_concurrent_conditional_pushes_that_expect_the_same_digest_one_succeeds(
    owner: TestKey, image_id: UUID
) -> None:
    # given a tag, and several clients that have read it
    layer, actor = push_blob(owner, image_id, b"layer"), owner.actor
    first = manifest_of(layer)
    manifests.put(actor=actor, image_id=image_id, new=first, tag_names=["t"])
    only_if = Preconditions("t", if_match=f'"{first.digest}"', if_none_match=None)

    # when all of them replace it concurrently
    new = [manifest_of(layer) for _ in range(6)]
    results = at_once(
        *(
            lambda each=each: manifests.put(
                actor=actor, image_id=image_id, new=each, tag_names=["t"], only_if=only_if
            )
            for each in new
        )
    )

    # then one has succeeded, and nothing of the others is stored
    assert [type(result) for result in results].count(ConditionUnmet) == 5
    winner = new[results.index(None)]
    assert Tag.objects.get(image=image_id, name="t").manifest.digest == winner.digest
    assert Manifest.objects.filter(image=image_id).count() == 2


@pytest.mark.oci(110)
def test_a_conditional_push_waits_for_a_push_and_then_sees_its_digest(owner: TestKey, image_id: UUID) -> None:
    layer, actor = push_blob(owner, image_id, b"layer"), owner.actor
    new = [manifest_of(layer) for _ in range(2)]
    only_if = Preconditions("t", if_match=None, if_none_match="*")
    with open_transaction():
        manifests.put(actor=actor, image_id=image_id, new=new[0], tag_names=["t"])
        other = Other(
            lambda: manifests.put(
                actor=actor, image_id=image_id, new=new[1], tag_names=["t"], only_if=only_if
            )
        )
        assert other.waits
    with pytest.raises(ConditionUnmet):
        other.end()


@pytest.mark.oci(104)
def test_a_sparse_index_and_its_manifests_pushed_concurrently_are_linked(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    Namespace.objects.filter(pk=namespace.pk).update(accepts_sparse_indexes=True)
    layer, actor = push_blob(owner, image_id, b"layer"), owner.actor
    children = [manifest_of(layer) for _ in range(3)]
    platforms = {child.digest: "linux/amd64" for child in children}
    index = replace(manifest_of(), children=frozenset(platforms), platforms=platforms, media_type="an index")
    results = at_once(
        *(
            lambda each=each: manifests.put(actor=actor, image_id=image_id, new=each, tag_names=[])
            for each in (children[0], index, *children[1:])
        )
    )
    assert results == [None] * 4
    named = ManifestChild.objects.filter(parent__digest=index.digest).values_list("child__digest", flat=True)
    assert set(named) == set(platforms)
    assert not MissingChild.objects.exists()


def test_the_same_manifest_pushed_concurrently_is_stored_once(owner: TestKey, image_id: UUID) -> None:
    new = manifest_of(push_blob(owner, image_id, b"layer"))
    actor = owner.actor
    results = at_once(
        *(
            lambda name=name: manifests.put(actor=actor, image_id=image_id, new=new, tag_names=[name])
            for name in "abcd"
        )
    )
    assert results == [None] * 4
    assert Manifest.objects.filter(image=image_id).count() == 1
    assert Tag.objects.filter(image=image_id).count() == 4


def test_two_concurrent_first_pushes_create_one_image(owner: TestKey, namespace: Namespace) -> None:
    actor = owner.actor
    made = at_once(
        *(lambda: images.get_or_create(actor=actor, namespace_id=namespace.pk, name="new") for _ in range(4))
    )
    assert len(set(made)) == 1
    assert Image.objects.filter(namespace=namespace, name="new").count() == 1


def test_an_image_is_not_created_in_a_namespace_whose_deletion_is_about_to_commit(
    owner: TestKey, namespace: Namespace
) -> None:
    principal = owner.principal
    with open_transaction():
        namespaces.delete(principal=principal, namespace_id=namespace.pk)
        other = Other(lambda: images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="late"))
        assert other.waits
    with pytest.raises(NamespaceNotFound):
        other.end()
    assert not Image.objects.filter(namespace=namespace).exists()


@pytest.mark.oci(169, 170)
def test_invariant_3_a_blob_that_a_sweep_locks_first_is_missing_for_the_manifest(
    owner: TestKey, image_id: UUID
) -> None:
    # given a sweep that has marked the blob and not committed yet
    layer = push_blob(owner, image_id, b"layer")
    new, actor = manifest_of(layer), owner.actor
    with open_transaction():
        Blob.objects.select_for_update().filter(digest=layer).update(state=Blob.State.DELETING)
        # when a manifest that references it is pushed, it waits for the row
        other = Other(lambda: manifests.put(actor=actor, image_id=image_id, new=new, tag_names=["t"]))
        assert other.waits
    # then the blob is reported as missing, and nothing of the manifest is stored
    with pytest.raises(MissingContent):
        other.end()
    assert not Manifest.objects.filter(image=image_id).exists()
    assert not Tag.objects.filter(image=image_id).exists()


@pytest.mark.oci(169, 170)
def test_invariant_3_a_sweep_waits_for_a_push_and_then_sees_its_link(owner: TestKey, image_id: UUID) -> None:
    layer = push_blob(owner, image_id, b"layer")
    blob_id = Blob.objects.get(digest=layer).pk

    def sweep() -> bool:
        with open_transaction():
            Blob.objects.select_for_update().get(pk=blob_id)
            return BlobLink.objects.filter(blob=blob_id).exists()

    with open_transaction():
        manifests.put(actor=owner.actor, image_id=image_id, new=manifest_of(layer), tag_names=["t"])
        other = Other(sweep)
        assert other.waits
    assert other.end()


@pytest.mark.oci(168)
def test_invariant_2_no_lease_is_created_for_a_blob_that_is_being_swept(
    owner: TestKey, image_id: UUID
) -> None:
    blob_id = Blob.objects.get(digest=push_blob(owner, image_id, b"layer")).pk
    with open_transaction():
        Blob.objects.select_for_update().filter(pk=blob_id).update(state=Blob.State.DELETING)
        other = Other(lambda: blobs.promise(blob_id=blob_id, image_id=image_id))
        assert other.waits
    with pytest.raises(BlobNotFound):
        other.end()


def test_invariant_11_pushes_that_share_blobs_in_any_order_never_deadlock(owner: TestKey) -> None:
    # given images in two namespaces that all reference the same blobs
    spaces = [make_namespace(owner) for _ in range(4)]
    contents = [os.urandom(10) for _ in range(8)]
    actor = owner.actor
    targets = [images.get_or_create(actor=actor, namespace_id=space.pk, name="app") for space in spaces]
    digests = [digest_of(content) for content in contents]
    for target, content in itertools.product(targets, contents):
        push_blob(owner, target, content)

    # when manifests that reference them in different orders are pushed and deleted concurrently
    def push(target: UUID, order: tuple[str, ...]) -> None:
        for _ in range(5):
            new = manifest_of(*order)
            manifests.put(actor=actor, image_id=target, new=new, tag_names=["t"])
            manifests.delete(actor=actor, image_id=target, digest=new.digest)

    orders = itertools.islice(itertools.permutations(digests), 0, 40, 10)
    results = at_once(*(lambda t=t, o=o: push(t, o) for t, o in zip(targets, orders, strict=True)))

    # then every call succeeds, and the sizes are correct
    assert results == [None] * 4
    assert set(Image.objects.filter(pk__in=targets).values_list("size", flat=True)) == {0}


@pytest.mark.oci(165)
def test_two_concurrent_uploads_of_the_same_content_store_one_blob(owner: TestKey, image_id: UUID) -> None:
    digest, actor = digest_of(b"same"), owner.actor
    sessions = [uploads.start(actor=actor, image_id=image_id, algorithm="sha256") for _ in range(4)]

    def finish(session: UUID) -> bool:
        key = blob_key("sha256", digest.removeprefix("sha256:"), session.hex)
        return blobs.record_upload(session_id=session, image_id=image_id, new=blobs.NewBlob(digest, 4, key))

    results = at_once(*(lambda session=session: finish(session) for session in sessions))
    assert sorted(results) == [False, False, False, True]
    assert Blob.objects.filter(digest=digest).count() == 1
    assert BlobLease.objects.filter(image=image_id).count() == 1


def test_invariant_11_uploads_that_repair_one_blob_at_once_do_not_deadlock(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a blob whose bytes are lost, and uploads of them to several images
    digest = push_blob(owner, image_id, b"lost")
    lost = Key(Blob.objects.get(digest=digest).storage_key)
    targets = [
        images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name=f"app-{number}")
        for number in range(4)
    ]

    def repair(target: UUID) -> bool:
        session = uploads.start(actor=owner.actor, image_id=target, algorithm="sha256")
        new = blobs.NewBlob(digest, 4, blob_key("sha256", digest.removeprefix("sha256:"), session.hex))
        return blobs.record_upload(session_id=session, image_id=target, new=new, replaces=lost)

    # then each gets a lease of the one blob, which has the bytes of one of them
    results = at_once(*(lambda target=target: repair(target) for target in targets))
    assert sorted(results) == [False, False, False, True]
    assert Blob.objects.get(digest=digest, state="live").storage_key != lost
    assert BlobLease.objects.filter(image__in=targets).count() == 4


def uploaded(digest: str, owner: TestKey, image_id: UUID) -> bool:
    """Finish an upload; return whether its bytes are needed."""
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    key = blob_key("sha256", digest.removeprefix("sha256:"), session.hex)
    return blobs.record_upload(session_id=session, image_id=image_id, new=blobs.NewBlob(digest, 5, key))


def shared(digest: str, owner: TestKey, image_id: UUID) -> None:
    """Finish an upload of content that the registry already has."""
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    blob_id = Blob.objects.get(digest=digest).pk
    blobs.record_duplicate(session_id=session, image_id=image_id, blob_id=blob_id)


def test_pushes_of_an_existing_layer_do_not_wait_for_each_others_commits(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given a base image's layer, and a transaction that has pushed it to an image and not committed yet
    layer, actor = push_blob(owner, image_id, b"layer"), owner.actor
    another = images.get_or_create(actor=actor, namespace_id=namespace.pk, name="another")
    with open_transaction():
        assert not uploaded(layer, owner, image_id)
        manifests.put(actor=actor, image_id=image_id, new=manifest_of(layer), tag_names=["t"])

        # when it is pushed to another image: by an upload, by a manifest, by a mount
        def push() -> None:
            assert not uploaded(layer, owner, another)
            shared(layer, owner, another)
            manifests.put(actor=actor, image_id=another, new=manifest_of(layer), tag_names=["t"])
            blobs.promise(blob_id=Blob.objects.get(digest=layer).pk, image_id=another)

        # then this commits while the first transaction still has the row locked
        other = Other(push)
        other.end()
    assert BlobLink.objects.filter(blob__digest=layer).count() == 2


def test_invariant_2_an_upload_of_content_that_a_sweep_deletes_first_becomes_the_blob(
    owner: TestKey, image_id: UUID
) -> None:
    layer = push_blob(owner, image_id, b"layer")
    with open_transaction():
        Blob.objects.select_for_update().filter(digest=layer).update(state=Blob.State.DELETING)
        other = Other(lambda: uploaded(layer, owner, image_id))
        assert other.waits
    assert other.end()
    assert Blob.objects.filter(digest=layer, state=Blob.State.LIVE).count() == 1


@pytest.mark.parametrize("finish", [uploaded, shared])
def test_invariant_2_a_sweep_waits_for_an_upload_and_then_sees_its_lease(
    owner: TestKey, image_id: UUID, finish: Callable[[str, TestKey, UUID], object]
) -> None:
    layer = push_blob(owner, image_id, b"layer")
    blob_id = Blob.objects.get(digest=layer).pk
    BlobLease.objects.all().delete()

    def sweep() -> bool:
        with open_transaction():
            Blob.objects.select_for_update().get(pk=blob_id)
            return BlobLease.objects.filter(blob=blob_id).exists()

    with open_transaction():
        finish(layer, owner, image_id)
        other = Other(sweep)
        assert other.waits
    assert other.end()


def test_invariant_2_content_that_a_sweep_deletes_first_is_not_shared(owner: TestKey, image_id: UUID) -> None:
    layer = push_blob(owner, image_id, b"layer")
    with open_transaction():
        Blob.objects.select_for_update().filter(digest=layer).update(state=Blob.State.DELETING)
        other = Other(lambda: shared(layer, owner, image_id))
        assert other.waits
    with pytest.raises(BlobNotFound):
        other.end()
    assert UploadSession.objects.filter(is_open=True).count() == 1


def test_an_upload_waits_for_the_deletion_of_its_image_and_raises_image_not_found(
    owner: TestKey, image_id: UUID
) -> None:
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    new = blobs.NewBlob(digest_of(b"x"), 1, blob_key("sha256", digest_of(b"x")[7:], session.hex))
    with open_transaction():
        images.start_deletion(images.get_for_update(image_id), actor=SYSTEM)
        other = Other(lambda: blobs.record_upload(session_id=session, image_id=image_id, new=new))
        assert other.waits
    with pytest.raises(ImageNotFound):
        other.end()


def test_a_session_that_expires_while_it_is_being_closed_records_no_blob(
    owner: TestKey, image_id: UUID
) -> None:
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    new = blobs.NewBlob(digest_of(b"x"), 1, blob_key("sha256", digest_of(b"x")[7:], session.hex))
    with open_transaction():
        UploadSession.objects.filter(pk=session).update(is_open=False)
        other = Other(lambda: blobs.record_upload(session_id=session, image_id=image_id, new=new))
        assert other.waits
    with pytest.raises(UploadNotFound):
        other.end()
    assert not Blob.objects.filter(digest=new.digest).exists()


def test_a_push_waits_for_the_deletion_of_its_image_and_raises_image_not_found(
    owner: TestKey, image_id: UUID
) -> None:
    layer = push_blob(owner, image_id, b"layer")
    new, actor = manifest_of(layer), owner.actor
    with open_transaction():
        images.start_deletion(images.get_for_update(image_id), actor=SYSTEM)
        other = Other(lambda: manifests.put(actor=actor, image_id=image_id, new=new, tag_names=["t"]))
        assert other.waits
    with pytest.raises(ImageNotFound):
        other.end()


@pytest.mark.parametrize("how", ["upload", "mount"])
def test_a_push_that_begins_while_its_empty_image_is_removed_gets_a_new_one(
    owner: TestKey, namespace: Namespace, image_id: UUID, store: FilesystemStore, how: str
) -> None:
    # given an old image without any push, which a worker is removing
    another = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="another")
    digest, credentials = push_blob(owner, another, b"layer"), Credentials(secret=owner.secret)
    app, source = Repository(namespace.name, "app"), Repository(namespace.name, "another")
    Image.objects.filter(pk=image_id).update(created_at=now() - settings.UPLOAD_LIFE)
    pusher = require_push(credentials, app)
    with open_transaction():
        deletion.remove_never_pushed(limit=10)
        assert Image.objects.get(pk=image_id).status == Status.DELETING

        # when a client begins a push to it
        begin = {
            "upload": lambda: upload_sessions.start(pusher, algorithm="sha256", store=store),
            "mount": lambda: mounts.mount(credentials, app, Digest.parse(digest), source=source),
        }[how]
        other = Other(begin)
        assert other.waits

    # then it has begun, in a new image
    assert other.end()
    begun = UploadSession if how == "upload" else BlobLease
    assert begun.objects.filter(image__name="app").exclude(image=image_id).count() == 1


@pytest.mark.parametrize("how", ["upload", "mount"])
def test_invariant_2_an_image_to_which_a_push_has_just_started_is_not_deleted(
    owner: TestKey, namespace: Namespace, image_id: UUID, how: str
) -> None:
    # given an old image without any push, and a transaction that starts one and has not committed yet
    another = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="another")
    blob = Blob.objects.get(digest=push_blob(owner, another, b"layer"))
    Image.objects.update(created_at=now() - settings.UPLOAD_LIFE)
    with open_transaction():
        if how == "mount":
            blobs.promise(blob_id=blob.pk, image_id=image_id)
        else:
            uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")

        # when images without pushes are deleted
        other = Other(lambda: deletion.remove_never_pushed(limit=10))
        assert other.waits

    # then the image remains
    other.end()
    assert Image.objects.get(pk=image_id).status == Status.READY


def test_expired_leases_are_deleted_while_another_transaction_renews_some(
    owner: TestKey, image_id: UUID
) -> None:
    # given expired leases, one of which another transaction renews and has not committed yet
    renewed, _ = (push_blob(owner, image_id, content) for content in (b"one", b"two"))
    BlobLease.objects.update(expires_at=now() - settings.BLOB_LEASE)
    with open_transaction():
        BlobLease.objects.filter(blob__digest=renewed).update(expires_at=now() + settings.BLOB_LEASE)

        # when the worker deletes them, then it does not wait, and deletes the other one
        other = Other(lambda: deletion.remove_expired_leases(limit=10))
        assert other.end() == 1
    assert BlobLease.objects.get().blob.digest == renewed


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    made = FilesystemStore(tmp_path / "blobs")
    made.check()
    return made


def _with_short_lock_timeout(call: Callable[[], bool | int]) -> Other:
    """Call with a lock timeout of 0.1 s instead of the configured one."""

    def run() -> bool | int:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        return call()

    return Other(run)


def _one_of_two_deleted(owner: TestKey, namespace: Namespace) -> UUID:
    """The first of two images whose deletion has started."""
    held, other = (push_image(owner, namespace, name).image_id for name in ("held", "other"))
    with open_transaction():
        for image_id in (held, other):
            images.start_deletion(images.get_for_update(image_id), actor=SYSTEM)
    return held


def test_a_locked_image_does_not_block_the_deletion_of_another_image(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given two deleted images, the row of one of which another transaction has locked
    held = _one_of_two_deleted(owner, namespace)
    with open_transaction():
        Image.objects.select_for_update().get(pk=held)

        # when the worker deletes them one by one, then it does not wait, and returns
        Other(lambda: _finish(store, limit=1)).end()
        assert Image.objects.get().pk == held

    # when the row is unlocked, then this image is deleted as well
    _finish(store, limit=1)
    assert not Image.objects.exists()


def _finish(store: FilesystemStore, *, limit: int) -> bool:
    while deletion.run_batch(store=store, limit=limit):
        pass
    return False


def test_locked_manifests_of_a_deleted_image_do_not_block_the_deletion_of_another_image(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    held = _one_of_two_deleted(owner, namespace)
    with open_transaction():
        assert list(Manifest.objects.select_for_update().filter(image=held))
        _with_short_lock_timeout(lambda: _finish(store, limit=10)).end()
        assert Image.objects.get().pk == held
    _finish(store, limit=10)
    assert not Image.objects.exists()


def test_tags_of_a_locked_image_do_not_block_the_deletion_of_other_tags(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    held, other = (push_image(owner, namespace, name, tags=("a", "b")).image_id for name in ("held", "other"))
    for tag in Tag.objects.filter(image__in=(held, other), name="a"):
        tags.delete(principal=owner.principal, tag_id=tag.pk)
    with open_transaction():
        Image.objects.select_for_update().get(pk=held)
        _with_short_lock_timeout(lambda: _finish(store, limit=10)).end()
        assert Tag.objects.get(status=Status.DELETING).image_id == held
    _finish(store, limit=10)
    assert not Tag.objects.filter(status=Status.DELETING).exists()


def test_a_namespace_with_a_locked_image_does_not_block_the_deletion_of_another_namespace(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    held = push_image(owner, namespace, "held").image_id
    for each in (namespace, make_namespace(owner)):
        namespaces.delete(principal=owner.principal, namespace_id=each.pk)
    with open_transaction():
        Image.objects.select_for_update().get(pk=held)
        _with_short_lock_timeout(lambda: _finish(store, limit=10)).end()
        assert Namespace.objects.get().pk == namespace.pk
    _finish(store, limit=10)
    assert not Namespace.objects.exists()


def test_a_locked_image_without_pushes_does_not_block_the_deletion_of_another_one(
    owner: TestKey, namespace: Namespace
) -> None:
    held, other = (
        images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name=name)
        for name in ("held", "other")
    )
    Image.objects.update(created_at=now() - settings.UPLOAD_LIFE)
    with open_transaction():
        Image.objects.select_for_update().get(pk=held)
        _with_short_lock_timeout(lambda: deletion.remove_never_pushed(limit=10)).end()
        assert Image.objects.get(status=Status.DELETING).pk == other
    deletion.remove_never_pushed(limit=10)
    assert Image.objects.filter(status=Status.DELETING).count() == 2


def test_concurrent_deletions_of_a_manifest_and_its_tag_have_one_outcome_each(
    owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace, tags=("a",))
    actor = owner.actor
    results = at_once(
        lambda: manifests.delete(actor=actor, image_id=pushed.image_id, digest=pushed.digest),
        lambda: tags.untag(actor=actor, image_id=pushed.image_id, name="a"),
    )
    assert results[0] is None
    assert not Tag.objects.filter(image=pushed.image_id, status=Status.READY).exists()
    assert not Manifest.objects.filter(image=pushed.image_id).exists()


def test_sizes_are_correct_after_concurrent_pushes(owner: TestKey, image_id: UUID) -> None:
    contents = [os.urandom(size) for size in (10, 20, 30, 40)]
    digests = [push_blob(owner, image_id, content) for content in contents]
    actor = owner.actor
    pairs = list(itertools.combinations(digests, 2))
    at_once(
        *(
            lambda pair=pair: manifests.put(
                actor=actor, image_id=image_id, new=manifest_of(*pair), tag_names=[]
            )
            for pair in pairs
        )
    )
    linked = Blob.objects.filter(links__image=image_id).distinct()
    total = Blob.objects.filter(pk__in=linked.values("pk")).aggregate(total=Sum("size"))["total"]
    image = Image.objects.get(pk=image_id)
    assert (image.size, image.untagged_size) == (0, total) == (0, 100)  # none has a tag


LOCKED_MEANWHILE: dict[str, Callable[[TestKey, Pushed], object]] = {
    "manifest": lambda owner, pushed: manifests.put(
        actor=owner.actor, image_id=pushed.image_id, new=manifest_of(), tag_names=["t"]
    ),
    "manifest delete": lambda owner, pushed: manifests.delete(
        actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest
    ),
    "untag": lambda owner, pushed: tags.untag(actor=owner.actor, image_id=pushed.image_id, name="latest"),
    "upload": lambda owner, pushed: uploads.start(
        actor=owner.actor, image_id=pushed.image_id, algorithm="sha256"
    ),
    "mount": lambda _, pushed: blobs.promise(blob_id=a_blob(pushed), image_id=pushed.image_id),
    "blob delete": lambda owner, pushed: blobs.remove(
        actor=owner.actor, image_id=pushed.image_id, blob_id=a_blob(pushed), digest=pushed.blobs[0]
    ),
    "new image": lambda owner, pushed: images.get_or_create(
        actor=owner.actor, namespace_id=pushed.image.namespace_id, name="another"
    ),
}


def a_blob(pushed: Pushed) -> int:
    return Blob.objects.get(digest=pushed.blobs[0]).pk


def lock(model: type[Image] | type[Namespace], pk: UUID) -> None:
    """Lock it as the action of the administration does."""
    model.objects.filter(pk=pk).update(status=Status.LOCKED)


@pytest.mark.parametrize("what", LOCKED_MEANWHILE)
def test_a_change_that_waits_for_an_image_that_is_being_locked_is_refused(
    owner: TestKey, namespace: Namespace, what: str
) -> None:
    # given an administrator who has locked the image, or for a new image its namespace, but not committed
    pushed = push_image(owner, namespace)
    before = (Tag.objects.count(), Manifest.objects.count(), UploadSession.objects.count())
    model, pk = (Namespace, namespace.pk) if what == "new image" else (Image, pushed.image_id)
    with open_transaction():
        lock(model, pk)

        # when a request that was authorized before changes it
        other = Other(lambda: LOCKED_MEANWHILE[what](owner, pushed))
        assert other.waits

    # then it is refused, and nothing has changed
    with pytest.raises(ImageReadOnly) as refused:
        other.end()
    assert refused.value.name == f"{namespace.name}/{'another' if what == 'new image' else 'app'}"
    assert (Tag.objects.count(), Manifest.objects.count(), UploadSession.objects.count()) == before


def test_an_upload_whose_image_is_locked_before_it_is_closed_is_not_recorded(
    owner: TestKey, image_id: UUID
) -> None:
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    new = blobs.NewBlob(digest_of(b"x"), 1, blob_key("sha256", digest_of(b"x")[7:], session.hex))
    with open_transaction():
        lock(Image, image_id)
        other = Other(lambda: blobs.record_upload(session_id=session, image_id=image_id, new=new))
        assert other.waits
    with pytest.raises(ImageReadOnly):
        other.end()
    # and it can be closed when the image is unlocked
    assert UploadSession.objects.get(pk=session).is_open
    Image.objects.update(status=Status.READY)
    assert blobs.record_upload(session_id=session, image_id=image_id, new=new)
