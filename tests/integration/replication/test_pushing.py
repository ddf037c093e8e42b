"""Pushing images to a second registry."""

import os

import pytest

from registry_control.catalog.models import Blob
from registry_control.catalog.services.tags import untag
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims
from registry_control.replication.engine.run import run
from registry_control.replication.models import ExecutionStatus, Target
from registry_control.replication.services import rules
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.storage.base import BlobStore, Key
from tests.factories import TestKey, push_image, unique
from tests.integration.replication.content import Local, image_manifest, index_manifest
from tests.integration.replication.scene import make_rule, run_rule, work_off

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_image_arrives_whole_and_a_second_run_sends_nothing(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given an image with two tags
    layers = (os.urandom(3_000_000), b"small")
    pushed = push_image(owner, namespace, tags=("one", "two"), layers=layers, store=store)
    rule = make_rule(owner, namespace, target)

    # when it is replicated
    first = run_rule(owner, rule)

    # then the target has both tags, and every blob
    repository = f"{namespace.name}/app"
    assert (first.status, first.errors) == (ExecutionStatus.SUCCEEDED, [])
    assert (first.images_total, first.images_done) == (2, 2)
    assert first.bytes_done == first.bytes_total == pushed.size
    for tag in ("one", "two"):
        found = remote.head_manifest(repository, tag)
        assert found is not None
        assert str(found.digest) == pushed.digest
    for layer in layers:
        received = remote.read_blob(repository, Digest.of(layer), size=len(layer))
        assert b"".join(received) == layer

    # and a second run sends nothing
    second = run_rule(owner, rule)
    assert (second.status, second.bytes_done, second.images_done) == (ExecutionStatus.SUCCEEDED, 0, 2)


def test_blobs_of_another_repository_of_the_target_are_mounted(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given two images with the same layer
    layer = os.urandom(2_000_000)
    push_image(owner, namespace, "one", layers=(layer,), store=store)
    push_image(owner, namespace, "two", layers=(layer,), store=store)

    # when both are replicated, then the layer is sent once
    done = run_rule(owner, make_rule(owner, namespace, target))
    assert done.status == ExecutionStatus.SUCCEEDED
    assert done.bytes_total == 2 * (len(layer) + 2)
    assert done.bytes_done == len(layer) + 2
    assert remote.blob_size(f"{namespace.name}/two", Digest.of(layer)) == len(layer)


def test_the_rule_selects_images_and_tags_and_names_the_destination(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given images of which a rule matches one, and one of its tags
    push_image(owner, namespace, "web/app", tags=("v1.0", "latest"), store=store)
    push_image(owner, namespace, "db", tags=("v1.0",), store=store)
    place = unique("mirror")
    rule = make_rule(
        owner, namespace, target, repositories=["web/*"], tags="v1.*", destination=f"{place}/{{image}}"
    )

    # when it runs, then nothing else arrives
    done = run_rule(owner, rule)
    assert (done.status, done.images_total) == (ExecutionStatus.SUCCEEDED, 1)
    assert list(remote.tags(f"{place}/web/app")) == ["v1.0"]
    assert list(remote.tags(f"{place}/db")) == []


def test_an_index_arrives_with_its_referrers_and_theirs(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given an index, a signature of it and of a child, and an SBOM of a signature
    local = Local(owner, namespace, "app", store)
    layers = [os.urandom(100) for _ in range(3)]
    children = [image_manifest(layer) for layer in layers]
    for child, layer in zip(children, layers, strict=True):
        local.push(child, layer)
    index = index_manifest(*children)
    local.push(index, tags=["v1"])
    signature = image_manifest(b"signature", subject=index)
    sbom = image_manifest(b"sbom", subject=signature)
    of_child = image_manifest(b"of a child", subject=children[1])
    for manifest, layer in ((signature, b"signature"), (sbom, b"sbom"), (of_child, b"of a child")):
        local.push(manifest, layer)
    rule = make_rule(owner, namespace, target)

    # when it is replicated to a registry without a referrers API
    done = run_rule(owner, rule)

    # then each is listed there as the referrer of its subject
    repository = f"{namespace.name}/app"
    assert (done.status, done.errors) == (ExecutionStatus.SUCCEEDED, [])
    for subject, manifest in ((index, signature), (signature, sbom), (children[1], of_child)):
        listed = [entry.digest for entry in remote.referrers(repository, Digest.of(subject))]
        assert listed == [Digest.of(manifest)]
    found = remote.get_manifest(repository, "v1")
    assert found is not None
    assert found.payload == index

    # and a second run changes nothing
    again = run_rule(owner, rule)
    assert (again.status, again.bytes_done) == (ExecutionStatus.SUCCEEDED, 0)


def test_tags_of_cosign_belong_to_what_they_sign(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    # given a rule for one tag, whose image is signed in the way of cosign before the referrers API
    local = Local(owner, namespace, "app", store)
    digest = local.push(image_manifest(b"layer"), b"layer", tags=["v1"])
    tag = digest.replace(":", "-") + ".sig"
    local.push(image_manifest(b"signature"), b"signature", tags=[tag])

    # when it runs, then the signature arrives with its tag
    done = run_rule(owner, make_rule(owner, namespace, target, tags="v1"))
    assert (done.status, done.images_total) == (ExecutionStatus.SUCCEEDED, 1)
    assert sorted(remote.tags(f"{namespace.name}/app")) == [tag, "v1"]


def test_a_tag_that_moved_moves_at_the_target(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, store: BlobStore
) -> None:
    local = Local(owner, namespace, "app", store)
    rule = make_rule(owner, namespace, target)
    for layer in (b"first", b"second"):
        digest = local.push(image_manifest(layer), layer, tags=["latest"])
        assert run_rule(owner, rule).status == ExecutionStatus.SUCCEEDED
        found = remote.head_manifest(f"{namespace.name}/app", "latest")
        assert found is not None
        assert str(found.digest) == digest


def test_a_sparse_index_fails_with_a_reason_where_the_target_refuses_it(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given an index of which the registry lacks a child
    Namespace.objects.filter(pk=namespace.pk).update(accepts_sparse_indexes=True)
    child, absent = image_manifest(b"x"), image_manifest(b"y")
    local = Local(owner, namespace, "app", store)
    local.push(child, b"x")
    local.push(index_manifest(child, absent), tags=["v1"])

    # when it is replicated to a registry that wants all children
    done = run_rule(owner, make_rule(owner, namespace, target))

    # then the execution fails at once, and says why
    assert done.status == ExecutionStatus.FAILED
    assert "lists manifests that the registry itself lacks" in done.errors[0]


def test_an_image_that_is_deleted_meanwhile_fails_with_a_reason(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given an execution that knows its images
    pushed = push_image(owner, namespace, tags=("one", "two"), store=store)
    execution = rules.run(principal=owner.principal, rule_id=make_rule(owner, namespace, target).pk)
    work = claims.claim_next()
    assert work is not None
    run(work)

    # when a tag and then the image are deleted
    untag(actor=owner.actor, image_id=pushed.image_id, name="one")
    work_off()
    execution.refresh_from_db()

    # then the tag that is left was replicated, and the other one is named
    assert (execution.status, execution.images_done) == (ExecutionStatus.FAILED, 1)
    assert execution.errors == [f"{namespace.name}/app:one: it was deleted before it was replicated"]


def test_lost_bytes_fail_with_a_reason(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    push_image(owner, namespace, layers=(os.urandom(1000),), store=store)
    store.delete(Key(Blob.objects.get(size=1000).storage_key))
    done = run_rule(owner, make_rule(owner, namespace, target))
    assert done.status == ExecutionStatus.FAILED
    assert "its bytes are missing in the storage" in done.errors[0]
    assert (done.images_total, done.images_done) == (1, 0)
