"""The recycle bin under concurrency: two real connections restore, purge, expire, delete and push at once."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from registry_control.catalog.errors import ImageNotFound
from registry_control.catalog.models import (
    Image,
    Manifest,
    ManifestChild,
    MissingChild,
    Tag,
    UploadSession,
)
from registry_control.catalog.services import deletion, images, manifests, reachability, tags
from registry_control.common.clock import now
from registry_control.common.errors import AlreadyExists, NotFound
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.errors import CannotRestore
from registry_control.recycling.services import emptying, restoring
from registry_data.oci.digest import Digest
from registry_data.oci.reference import Repository
from registry_data.registry import mounts, upload_sessions
from registry_data.registry.authorization import Credentials, require_push
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, make_key, make_manifest, make_namespace, push_blob, push_image
from tests.integration.catalog.races import Other, at_once, needs_postgresql, open_transaction
from tests.integration.gc.recycling import expire, finish
from tests.integration.gc.retaining import enforce, manifests_of, new_image, set_rules
from tests.integration.gc.retaining import push as push_untagged

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("recycle_bin"),
    needs_postgresql,
]


def entry() -> UUID:
    return RecycleBinEntry.objects.get().pk


def restored(owner: TestKey, entry_id: UUID, name: str | None = None) -> Any:
    return restoring.restore(principal=owner.principal, entry_id=entry_id, name=name)


def delete_image(owner: TestKey, pushed: Pushed) -> UUID:
    images.delete(principal=owner.principal, image_id=pushed.image_id)
    return entry()


def delete_tag(owner: TestKey, pushed: Pushed) -> UUID:
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="latest")
    return entry()


def delete_manifest(owner: TestKey, pushed: Pushed) -> UUID:
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    return entry()


def delete_namespace(owner: TestKey, pushed: Pushed) -> UUID:
    namespaces.delete(principal=owner.principal, namespace_id=pushed.image.namespace_id)
    return entry()


DELETIONS: dict[str, Callable[[TestKey, Pushed], UUID]] = {
    "tag": delete_tag,
    "manifest": delete_manifest,
    "image": delete_image,
    "namespace": delete_namespace,
}


@pytest.mark.parametrize("kind", DELETIONS)
def test_of_two_restores_at_once_one_succeeds(owner: TestKey, namespace: Namespace, kind: str) -> None:
    pushed = push_image(owner, namespace)
    wanted = DELETIONS[kind](owner, pushed)
    outcomes = at_once(*[lambda: restored(owner, wanted)] * 2)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotFound", "Restored"]
    _check(pushed)


@pytest.mark.parametrize("kind", DELETIONS)
@pytest.mark.parametrize("other", ["purge", "expiry"])
def test_a_restore_and_a_purge_at_once_have_one_winner(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, kind: str, other: str
) -> None:
    pushed = push_image(owner, namespace)
    wanted = DELETIONS[kind](owner, pushed)
    expire()
    end = {
        "purge": lambda: emptying.purge(principal=owner.principal, entry_id=wanted),
        "expiry": lambda: emptying.expire(limit=10),
    }[other]
    outcome, _ = at_once(lambda: restored(owner, wanted), end)
    finish(store)
    is_there = Tag.objects.filter(image=pushed.image_id, name="latest").exists()
    assert is_there == (not isinstance(outcome, NotFound)), outcome
    assert not RecycleBinEntry.objects.exists()
    if is_there:
        _check(pushed)


@pytest.mark.parametrize("kind", ["tag", "manifest", "image"])
def test_a_deletion_does_not_wait_for_the_row_of_the_namespace(
    owner: TestKey, namespace: Namespace, kind: str
) -> None:
    # given a transaction that has locked the namespace, and may wait for an image in it next
    pushed = push_image(owner, namespace)
    with open_transaction():
        images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="new")
        # when a deletion, which has locked that image, commits with an entry that references the namespace
        deletion = Other(lambda: DELETIONS[kind](owner, pushed))
        # then it ends first, so that the two cannot deadlock
        deletion.end()
    assert RecycleBinEntry.objects.get().kind == kind


def test_a_push_to_the_name_waits_for_the_restore_and_finds_the_image(
    owner: TestKey, namespace: Namespace
) -> None:
    pushed = push_image(owner, namespace)
    wanted = delete_image(owner, pushed)
    with open_transaction():
        restored(owner, wanted)
        push = Other(lambda: push_image(owner, namespace, tags=("new",)).image_id)
        assert push.waits
    assert push.end() == pushed.image_id
    assert set(Tag.objects.values_list("name", flat=True)) == {"latest", "new"}


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_restore_waits_for_a_push_to_the_name_and_is_refused(
    owner: TestKey, namespace: Namespace, has_begun: bool
) -> None:
    wanted = delete_image(owner, push_image(owner, namespace))
    if has_begun:  # the push does not lock the namespace then
        new_image(owner, namespace)
    with open_transaction():
        push_image(owner, namespace, layers=[b"new"])
        restore = Other(lambda: restored(owner, wanted))
        assert restore.waits
    with pytest.raises(AlreadyExists):
        restore.end()


def test_a_push_that_begins_while_the_name_is_restored_goes_to_the_restored_image(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a deleted image, and one of its name to which nothing was pushed
    pushed = push_image(owner, namespace)
    wanted = delete_image(owner, pushed)
    new_image(owner, namespace)
    pusher = require_push(Credentials(secret=owner.secret), Repository(namespace.name, "app"))

    # when an upload to that one begins during a restore
    with open_transaction():
        restored(owner, wanted)
        upload = Other(lambda: upload_sessions.start(pusher, algorithm="sha256", store=store))
        assert upload.waits

    # then it has begun in the restored one
    session = upload.end()
    assert UploadSession.objects.get(pk=session).image_id == pushed.image_id
    finish(store)
    _check(pushed)


def test_a_push_that_ends_while_the_name_is_restored_succeeds_when_it_is_started_again(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a push to the name of a deleted image, of which only the manifest is missing
    pushed = push_image(owner, namespace)
    wanted = delete_image(owner, pushed)
    begun = new_image(owner, namespace)
    new = make_manifest([push_blob(owner, begun, b"new")])

    # when the image is restored before that
    with open_transaction():
        restored(owner, wanted)
        push = Other(lambda: manifests.put(actor=owner.actor, image_id=begun, new=new, tag_names=["new"]))
        assert push.waits

    # then the push is refused, and the next one goes to the restored image
    with pytest.raises(ImageNotFound):
        push.end()
    assert push_image(owner, namespace, tags=("new",), layers=[b"new"]).image_id == pushed.image_id
    finish(store)
    _check(pushed)


@pytest.mark.parametrize("step", ["upload", "mount"])
def test_restores_and_first_pushes_at_once_do_not_deadlock(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, step: str
) -> None:
    pushed = push_image(owner, namespace)
    digest = push_blob(owner, push_image(owner, namespace, "another").image_id, b"layer")
    wanted = delete_image(owner, pushed)
    new_image(owner, namespace)
    app, another = Repository(namespace.name, "app"), Repository(namespace.name, "another")
    credentials = Credentials(secret=owner.secret)
    begin = {
        "upload": lambda: upload_sessions.start(
            require_push(credentials, app), algorithm="sha256", store=store
        ),
        "mount": lambda: mounts.mount(credentials, app, Digest.parse(digest), source=another),
    }[step]
    outcomes = at_once(lambda: restored(owner, wanted), begin, begin)
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    assert pushed.image.status == "ready"


def test_a_manifest_pushed_again_while_its_old_one_is_restored(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace)
    wanted = delete_manifest(owner, pushed)
    outcomes = at_once(
        lambda: restored(owner, wanted), lambda: push_image(owner, namespace, tags=("latest", "new"))
    )
    assert not [each for each in outcomes if isinstance(each, Exception)]
    manifest = Manifest.objects.get(image=pushed.image_id)
    assert set(manifest.tags.values_list("name", flat=True)) == {"latest", "new"}
    _check(pushed)


def test_a_name_of_a_namespace_is_restored_or_created_once(owner: TestKey, namespace: Namespace) -> None:
    wanted = delete_namespace(owner, push_image(owner, namespace))
    outcomes = at_once(lambda: restored(owner, wanted), lambda: make_namespace(make_key(), namespace.name))
    assert [type(each) for each in outcomes].count(AlreadyExists) == 1
    assert Namespace.objects.filter(name=namespace.name, status="ready").count() == 1


def test_deletions_and_restores_of_one_image_do_not_deadlock(owner: TestKey, namespace: Namespace) -> None:
    pushed = [push_image(owner, namespace, tags=(f"t{n}",), layers=[bytes([n])]) for n in range(8)]
    for each in pushed[:4]:
        manifests.delete(actor=owner.actor, image_id=each.image_id, digest=each.digest)
    entries = list(RecycleBinEntry.objects.values_list("pk", flat=True))
    delete = partial(manifests.delete, actor=owner.actor, image_id=pushed[0].image_id)
    restores = [partial(restored, owner, wanted) for wanted in entries]
    deletes = [partial(delete, digest=each.digest) for each in pushed[4:]]
    outcomes = at_once(*restores, *deletes)
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    assert set(Tag.objects.filter(image=pushed[0].image_id).values_list("name", flat=True)) == {
        "t0",
        "t1",
        "t2",
        "t3",
    }
    _check(pushed[0])


def test_a_tag_and_its_manifest_restored_at_once(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace)
    of_tag = delete_tag(owner, pushed)
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    of_manifest = RecycleBinEntry.objects.get(kind="manifest").pk
    outcome, other = at_once(lambda: restored(owner, of_tag), lambda: restored(owner, of_manifest))
    assert not isinstance(other, Exception)
    if isinstance(outcome, CannotRestore):  # it came first
        restored(owner, of_tag)
    _check(pushed)


def test_leases_of_a_restored_image_stay(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace)
    wanted = delete_image(owner, pushed)
    with open_transaction():
        restored(owner, wanted)
        settling = Other(lambda: emptying.settle(entries=10, limit=100))
        assert settling.waits
    settling.end()
    assert pushed.image.blob_leases.count() == len(pushed.blobs)


def _check(pushed: Pushed) -> None:
    """The image is there, and its sizes are those of a recount."""
    with transaction.atomic():
        before = pushed.image
        reachability.recount(pushed.image_id)
        after = pushed.image
    assert (before.status, before.size, before.untagged_size) == ("ready", after.size, after.untagged_size)
    assert before.tag_rows == Tag.objects.filter(image=pushed.image_id).count()
    assert Image.objects.filter(status="ready").count() == 1


@pytest.mark.parametrize("step", ["push", "delete", "restore"])
def test_a_child_changes_while_an_index_that_lists_it_leaves_the_bin(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, step: str
) -> None:
    # given an index in the recycle bin, whose child is in the image, in the bin, or gone
    image_id = new_image(owner, namespace)
    new = make_manifest([push_blob(owner, image_id, b"layer")])

    def push() -> None:
        manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=[])

    def delete() -> None:
        manifests.delete(actor=owner.actor, image_id=image_id, digest=new.digest)

    push()
    manifests.delete(
        actor=owner.actor, image_id=image_id, digest=push_untagged(owner, image_id, children=[new.digest])
    )
    of_index = entry()
    if step != "delete":
        delete()
    of_child = RecycleBinEntry.objects.exclude(pk=of_index).values_list("pk", flat=True).first()

    # when its time is over while the child is pushed, deleted or restored
    calls = {"push": push, "delete": delete, "restore": lambda: of_child and restored(owner, of_child)}
    RecycleBinEntry.objects.filter(pk=of_index).update(expires_at=now())
    emptying.expire(limit=10)
    with open_transaction():
        deletion.run_batch(store=store, limit=10)
        changing = Other(calls[step])
        assert changing.waits

    # then both succeed, and nothing of the index is left
    changing.end()
    finish(store)
    assert not ManifestChild.objects.exists()
    assert not MissingChild.objects.exists()
    assert Manifest.objects.filter(image=image_id).count() == (step != "delete")


def test_a_child_that_expires_while_its_index_is_restored_stays_deleted(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given an index and a child that a rule has removed
    image_id = new_image(owner, namespace)
    child = push_untagged(owner, image_id, days=9)
    index = push_untagged(owner, image_id, days=9, children=[child])
    set_rules(namespace, untagged_days=5)
    enforce(namespace)
    of_index = RecycleBinEntry.objects.get(digest=index).pk

    # when the worker takes the child out of the bin for good at the moment of a restore
    RecycleBinEntry.objects.filter(digest=child).update(expires_at=now())
    with open_transaction():
        emptying.expire(limit=10)
        restoring_index = Other(lambda: restored(owner, of_index))
        assert restoring_index.waits
    restoring_index.end()

    # then the index is there without it, until it is pushed again
    finish(store)
    assert manifests_of(image_id) == {index}
    assert MissingChild.objects.get().digest == child
    assert not RecycleBinEntry.objects.exists()


def test_an_index_leaves_the_bin_while_its_child_is_deleted(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    image_id = new_image(owner, namespace)
    child = push_untagged(owner, image_id)
    index = push_untagged(owner, image_id, children=[child])
    manifests.delete(actor=owner.actor, image_id=image_id, digest=index)
    expire()
    emptying.expire(limit=10)
    with open_transaction():
        manifests.delete(actor=owner.actor, image_id=image_id, digest=child)
        removing = Other(lambda: deletion.run_batch(store=store, limit=10))
        assert removing.waits
    removing.end()
    finish(store)
    assert not Manifest.objects.filter(digest=index).exists()
