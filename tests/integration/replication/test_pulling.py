"""Pulling images of a second registry."""

import os
from datetime import timedelta
from uuid import UUID

import pytest
from django.test import override_settings

from registry_control.audit.models import ActorKind, AuditEvent
from registry_control.catalog import references
from registry_control.catalog.models import BlobLease, Image, Manifest, Tag
from registry_control.catalog.selectors.holders import images_with
from registry_control.catalog.services import images
from registry_control.common.clock import database_now, now
from registry_control.common.models import Status
from registry_control.gc.policy import Rules
from registry_control.gc.retention import Policy
from registry_control.gc.services import retention
from registry_control.gc.services.collector import collect_batch
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.services import faults
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims, pulling, triggers
from registry_control.replication.engine.run import run
from registry_control.replication.models import (
    Direction,
    ExecutionBlob,
    ExecutionImage,
    ExecutionStatus,
    ItemState,
    Target,
)
from registry_control.replication.services import executions, rules
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.storage.base import BlobStore, Key
from tests.factories import TestKey, make_namespace, push_blob, unique
from tests.integration.replication.content import Local, image_manifest, index_manifest, push_remote
from tests.integration.replication.scene import make_rule, run_rule

pytestmark = pytest.mark.django_db(transaction=True)
PULL = Direction.PULL
TAGS = ("v1", "latest")


@pytest.fixture
def repository() -> str:
    return f"{unique('source')}/team/app"


def digest_of_tag(namespace: Namespace, name: str, tag: str) -> str:
    return Tag.objects.get(image__namespace=namespace, image__name=name, name=tag).manifest.digest


def test_an_image_arrives_and_a_second_run_transfers_nothing(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    store: BlobStore,
    repository: str,
) -> None:
    # given an image at the source
    layer = os.urandom(3_000_000)
    digest = push_remote(remote, repository, image_manifest(layer), layer, tag="v1")
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository])

    # when it is pulled
    first = run_rule(owner, rule)

    # then the namespace has it, with its bytes, in the name of the rule
    assert (first.status, first.errors) == (ExecutionStatus.SUCCEEDED, [])
    assert first.bytes_done == first.bytes_total == len(layer) + 2
    assert digest_of_tag(namespace, "team/app", "v1") == digest
    image = Image.objects.get(namespace=namespace)
    assert image.size == len(layer) + 2
    stored = image.blob_links.get(blob__size=len(layer)).blob
    assert b"".join(store.read(Key(stored.storage_key))) == layer
    event = AuditEvent.objects.get(verb="image.create", target_id=str(image.pk))
    assert (event.actor_kind, event.actor_id) == (ActorKind.SYSTEM, str(rule.pk))
    assert event.actor_name == f"replication rule {rule.name}"

    # and a second run transfers nothing
    second = run_rule(owner, rule)
    assert (second.status, second.bytes_done) == (ExecutionStatus.SUCCEEDED, 0)


def test_damaged_content_is_transferred_again(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    store: BlobStore,
    repository: str,
) -> None:
    # given a pulled image, one of whose layers was found damaged
    layer, other = os.urandom(3000), os.urandom(2000)
    push_remote(remote, repository, image_manifest(layer, other), layer, other, tag="v1")
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository])
    run_rule(owner, rule)
    blob = Image.objects.get(namespace=namespace).blob_links.get(blob__size=len(layer)).blob
    assert faults.settle(blob.pk, key=blob.storage_key, finding=Finding(Content.DAMAGED, "other bytes"))

    # when the rule runs again, then that layer alone is transferred, and the image is whole
    again = run_rule(owner, rule)
    assert (again.status, again.bytes_done) == (ExecutionStatus.SUCCEEDED, len(layer))
    blob.refresh_from_db()
    assert blob.state == "live"
    assert b"".join(store.read(Key(blob.storage_key))) == layer


def test_an_index_with_signatures_arrives(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, repository: str
) -> None:
    # given an index, a signature of it and one of a child, and an SBOM of that signature
    layers = [os.urandom(100) for _ in range(2)]
    children = [image_manifest(layer) for layer in layers]
    for child, layer in zip(children, layers, strict=True):
        push_remote(remote, repository, child, layer)
    index = index_manifest(*children)
    digests = {push_remote(remote, repository, index, tag="v1")}
    signature = image_manifest(b"signature", subject=index)
    of_child = image_manifest(b"of a child", subject=children[1])
    sbom = image_manifest(b"sbom", subject=signature)
    for manifest, layer in ((signature, b"signature"), (of_child, b"of a child"), (sbom, b"sbom")):
        digests.add(push_remote(remote, repository, manifest, layer))

    # when it is pulled, then everything is there
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository], tags="v1")
    done = run_rule(owner, rule)
    assert (done.status, done.errors, done.images_total) == (ExecutionStatus.SUCCEEDED, [], 1)
    stored = Manifest.objects.filter(image__namespace=namespace)
    assert digests <= set(stored.values_list("digest", flat=True))
    assert stored.count() == 6
    assert all(stored.values_list("is_reachable", flat=True))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("when", ["before the execution", "when its images are planned"])
def test_a_protected_tag_stays_and_the_others_go_on(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    repository: str,
    when: str,
) -> None:
    # given a mirror of two tags, both of which move at the source, and one of which is protected here
    old = {
        tag: push_remote(remote, repository, image_manifest(tag.encode()), tag.encode(), tag=tag)
        for tag in TAGS
    }
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository])
    assert run_rule(owner, rule).status == ExecutionStatus.SUCCEEDED
    layers = {tag: os.urandom(3000) for tag in TAGS}
    new = {
        tag: push_remote(remote, repository, image_manifest(layer), layer, tag=tag)
        for tag, layer in layers.items()
    }

    def protect() -> None:
        retention.store(namespace, Policy(protected_tags=("v*",)), actor=owner.actor)

    # when the rule runs
    if when == "before the execution":
        protect()
    execution = rules.run(principal=owner.principal, rule_id=rule.pk)
    while (work := claims.claim_next()) is not None:
        run(work)
        planned = not ExecutionImage.objects.filter(execution=execution, state=ItemState.PENDING).exists()
        if planned and ExecutionImage.objects.filter(execution=execution).exists():
            protect()
    execution.refresh_from_db()

    # then the error names the rule, is not tried again, and the other tag has moved
    (error,) = execution.errors
    assert execution.status == ExecutionStatus.FAILED
    assert error.startswith(f'{repository}:v1: tag v1 of {namespace}/team/app is protected by the rule "v*"')
    assert digest_of_tag(namespace, "team/app", "v1") == old["v1"]
    assert digest_of_tag(namespace, "team/app", "latest") == new["latest"]
    assert (execution.images_total, execution.images_done) == (2, 1)

    # and what is known to be refused is not transferred first
    sent = [3000] if when == "before the execution" else [3000, 3000]
    assert execution.bytes_done == sum(sent)
    retention.store(namespace, Policy(), actor=owner.actor)
    assert run_rule(owner, rule).status == ExecutionStatus.SUCCEEDED
    assert digest_of_tag(namespace, "team/app", "v1") == new["v1"]


def test_repositories_may_be_globs_of_the_catalogue(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry
) -> None:
    place = unique("place")
    for name in ("a", "b", "c/d"):
        push_remote(remote, f"{place}/{name}", image_manifest(b"x"), b"x", tag="v1")
    rule = make_rule(
        owner, namespace, target, PULL, repositories=[f"{place}/?"], destination="mirror/{namespace}-{image}"
    )
    done = run_rule(owner, rule)
    assert (done.status, done.images_done) == (ExecutionStatus.SUCCEEDED, 2)
    names = Image.objects.filter(namespace=namespace).order_by("name").values_list("name", flat=True)
    assert list(names) == [f"mirror/{place}-a", f"mirror/{place}-b"]


def test_a_repository_that_does_not_exist_is_an_error(
    owner: TestKey, namespace: Namespace, target: Target
) -> None:
    done = run_rule(owner, make_rule(owner, namespace, target, PULL, repositories=["no/such"]))
    assert done.status == ExecutionStatus.FAILED
    assert done.errors == ["no/such: there is no such repository, or it has no tags"]


def test_blobs_of_the_namespace_are_not_transferred_but_those_of_others_are(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    store: BlobStore,
    repository: str,
) -> None:
    # given a layer in an image of the namespace, and another one in a namespace of the same organization
    near, far = os.urandom(5_000), os.urandom(7_000)
    Local(owner, namespace, "other", store).push(image_manifest(near), near, tags=["x"])
    Local(owner, make_namespace(owner), "other", store).push(image_manifest(far), far, tags=["x"])
    push_remote(remote, repository, image_manifest(near, far), near, far, tag="v1")

    # when an image with both is pulled, then the source has to send the other one
    done = run_rule(owner, make_rule(owner, namespace, target, PULL, repositories=[repository]))
    assert (done.status, done.bytes_done) == (ExecutionStatus.SUCCEEDED, len(far))


def test_a_blob_of_the_namespace_that_is_collected_at_this_moment_is_transferred(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    store: BlobStore,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a layer that was uploaded to an image of the namespace, and an image at the source with it
    layer = os.urandom(5_000)
    other = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="other")
    push_blob(owner, other, layer, store=store)
    push_remote(remote, repository, image_manifest(layer), layer, tag="v1")

    def find_then_collect(blob_id: int, *, organization_id: UUID) -> list[tuple[str, str]]:
        found = images_with(blob_id, organization_id=organization_id)
        references.release_lease(blob_id, image_id=other, cause=references.Cause.BLOB_DELETED)
        collect_batch(store=store, rules=Rules(database_now(), timedelta(0)), limit=10)
        return found

    # when it is collected after the replication has found it, then it is transferred
    monkeypatch.setattr(pulling, "images_with", find_then_collect)
    done = run_rule(owner, make_rule(owner, namespace, target, PULL, repositories=[repository]))
    assert (done.status, done.errors, done.bytes_done) == (
        ExecutionStatus.SUCCEEDED,
        [],
        len(layer) + len(b"{}"),
    )


def test_a_locked_namespace_is_not_written_to(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, repository: str
) -> None:
    push_remote(remote, repository, image_manifest(b"x"), b"x", tag="v1")
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository])
    Namespace.objects.filter(pk=namespace.pk).update(status=Status.LOCKED)
    done = run_rule(owner, rule)
    assert done.status == ExecutionStatus.FAILED
    assert "locked by an administrator" in done.errors[0]
    assert not Image.objects.filter(namespace=namespace).exists()


def test_a_sparse_index_is_refused_unless_the_namespace_accepts_it(
    owner: TestKey, namespace: Namespace, target: Target, remote: RemoteRegistry, repository: str
) -> None:
    # given an index of which the source has lost a child
    layers = [os.urandom(10) for _ in range(2)]
    children = [image_manifest(layer) for layer in layers]
    for child, layer in zip(children, layers, strict=True):
        push_remote(remote, repository, child, layer)
    push_remote(remote, repository, index_manifest(*children), tag="v1")
    remote.delete_manifest(repository, Digest.of(children[1]))
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository])

    # when it is pulled, then it is refused with a reason
    refused = run_rule(owner, rule)
    assert refused.status == ExecutionStatus.FAILED
    assert "lists manifests that the source does not have" in refused.errors[0]
    assert str(Digest.of(children[1])) in refused.errors[0]

    # and accepted where the namespace accepts such indexes
    Namespace.objects.filter(pk=namespace.pk).update(accepts_sparse_indexes=True)
    assert run_rule(owner, rule).status == ExecutionStatus.SUCCEEDED


def test_blobs_wait_for_their_manifest_with_a_short_lease_too(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    repository: str,
    store: BlobStore,
) -> None:
    # given a lease of a second, and an execution that has copied all blobs
    layer = os.urandom(1000)
    push_remote(remote, repository, image_manifest(layer), layer, tag="v1")
    rule = make_rule(owner, namespace, target, PULL, repositories=[repository])
    with override_settings(BLOB_LEASE=timedelta(seconds=1)):
        execution = rules.run(principal=owner.principal, rule_id=rule.pk)
        while ExecutionBlob.objects.exclude(state=ItemState.DONE).exists() or not BlobLease.objects.exists():
            work = claims.claim_next()
            assert work is not None
            run(work)

        # then they are leased for hours
        assert all(lease.expires_at > now() + timedelta(hours=23) for lease in BlobLease.objects.all())

        # and when it is cancelled, then the leases end soon
        executions.cancel(principal=owner.principal, execution_id=execution.pk)
        while triggers.clean_up(limit=100):
            pass
        assert not ExecutionBlob.objects.exists()
        assert all(lease.expires_at < now() + timedelta(hours=1) for lease in BlobLease.objects.all())
