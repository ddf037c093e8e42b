"""Pushing images to a second registry."""

import os

import pytest

from registry_control.namespaces.models import Namespace
from registry_control.replication.models import ExecutionStatus, Target
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.storage.base import BlobStore
from tests.factories import TestKey, push_image, unique
from tests.integration.replication.scene import make_rule, run_rule

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
