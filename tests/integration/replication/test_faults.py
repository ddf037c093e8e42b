"""Lost content, hostile sources, and workers that are late."""

import hashlib
import json
import os
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import transaction

from registry_control.catalog.models import Blob, Tag
from registry_control.common.clock import now
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims, outcomes, triggers
from registry_control.replication.engine.keeper import Interrupted
from registry_control.replication.engine.run import run
from registry_control.replication.engine.work import planned_manifests
from registry_control.replication.models import (
    Direction,
    ExecutionBlob,
    ExecutionImage,
    ExecutionManifest,
    ExecutionStatus,
    ItemState,
    PushEvent,
    Target,
)
from registry_control.replication.services import rules
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry_data.storage.base import BlobStore, Key
from tests.factories import TestKey, push_image
from tests.integration.replication.content import image_manifest, push_remote
from tests.integration.replication.scene import make_rule, make_target, run_rule, work_off
from tests.services.scripted import replying, running_script

pytestmark = pytest.mark.django_db(transaction=True)


def test_images_that_share_a_blob_that_cannot_be_copied_fail_together(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given two tags, of which the first is tried before the second one is looked at
    layer = os.urandom(1000)
    push_image(owner, namespace, layers=(layer,), tags=("one",), store=store)
    push_image(owner, namespace, layers=(layer, b"more"), tags=("two",), store=store)
    store.delete(Key(Blob.objects.get(size=len(layer)).storage_key))

    # when they are replicated, then the execution ends
    done = run_rule(owner, make_rule(owner, namespace, target))
    assert (done.status, done.images_total, done.images_done) == (ExecutionStatus.FAILED, 2, 0)
    assert len(done.errors) == 1
    assert "its bytes are missing in the storage" in done.errors[0]


def test_more_tags_than_a_page_are_listed_while_others_write(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore, remote: RemoteRegistry
) -> None:
    pushed = push_image(owner, namespace, tags=("tag",), store=store)
    tag = Tag.objects.get(image=pushed.image_id)
    names = [f"v{number}" for number in range(1200)]
    Tag.objects.bulk_create(
        Tag(image_id=pushed.image_id, manifest_id=tag.manifest_id, name=name) for name in names
    )
    rules.run(principal=owner.principal, rule_id=make_rule(owner, namespace, target, tags="v*").pk)
    work = claims.claim_next()
    assert work is not None
    run(work)
    assert set(ExecutionImage.objects.values_list("reference", flat=True)) == set(names)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (
            {
                "mediaType": OCI_INDEX,
                "manifests": [
                    {
                        "mediaType": OCI_MANIFEST,
                        "digest": "sha256:" + hashlib.sha256(b"%d" % number).hexdigest(),
                        "size": 1,
                    }
                    for number in range(10_000)
                ],
            },
            "more than 10000 children and referrers belong to it",
        ),
        (
            {
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "a/b", "digest": "sha256:" + "0" * 64, "size": 2**63 - 1},
                "layers": [{"mediaType": "a/b", "digest": "sha256:" + "1" * 64, "size": 1}],
            },
            "claim more bytes than any registry has",
        ),
    ],
    ids=["children", "sizes"],
)
def test_a_source_cannot_fill_the_database(
    owner: TestKey, namespace: Namespace, document: dict[str, object], reason: str
) -> None:
    payload = json.dumps({"schemaVersion": 2, **document}).encode()
    with running_script() as source:
        source.on("GET /v2/a/b/tags", replying(200, b'{"tags": ["1"]}'))
        source.on("GET /v2/a/b/manifests/1", replying(200, payload, Content_Type=str(document["mediaType"])))
        bad = make_target(owner, f"http://{source.host}")
        done = run_rule(owner, make_rule(owner, namespace, bad, Direction.PULL, repositories=["a/b"]))
    assert done.status == ExecutionStatus.FAILED
    assert reason in done.errors[0]
    assert ExecutionManifest.objects.count() <= 1


def test_a_thread_that_lost_its_claim_adds_nothing_to_the_plan_of_another(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given a thread that has claimed an image, and another that has taken the image over and planned it
    push_image(owner, namespace, tags=("v1",), store=store)
    execution = rules.run(principal=owner.principal, rule_id=make_rule(owner, namespace, target).pk)
    listing, late = claims.claim_next(), None
    assert listing is not None
    run(listing)
    late = claims.claim_next()
    assert late is not None
    ExecutionImage.objects.update(claimed_until=now())
    taken = claims.claim_next()
    assert taken is not None
    run(taken)
    image = ExecutionImage.objects.get(execution=execution)
    planned = [row.pk for row in planned_manifests(image)]

    # when the first one wakes up, then the plan stays as it is
    with transaction.atomic(), pytest.raises(Interrupted):
        outcomes.require_claim(late)
    run(late)
    assert [row.pk for row in planned_manifests(image)] == planned
    work_off()
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.SUCCEEDED


@pytest.mark.parametrize("direction", Direction.values)
def test_an_upload_that_a_killed_worker_completed_counts_as_sent(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    remote: RemoteRegistry,
    store: BlobStore,
    direction: str,
) -> None:
    # given an execution with a blob that has arrived, while its row says that an upload is under way
    layer = os.urandom(100_000)
    names = [f"{namespace.name}/app"]
    if direction == Direction.PUSH:
        push_image(owner, namespace, layers=(layer,), tags=("v1",), store=store)
        names = ["*"]
    else:
        push_remote(remote, names[0], image_manifest(layer), layer, tag="v1")
    rule = make_rule(owner, namespace, target, Direction(direction), repositories=names)
    execution = rules.run(principal=owner.principal, rule_id=rule.pk)
    while not ExecutionBlob.objects.exclude(state=ItemState.PENDING).filter(size=len(layer)).exists():
        work = claims.claim_next()
        assert work is not None
        run(work)
    copied = ExecutionBlob.objects.filter(size=len(layer))
    copied.update(state=ItemState.PENDING, sent=40_000, upload=uuid4().hex)
    type(execution).objects.update(bytes_done=40_000)

    # when another worker continues, then all of its bytes are counted
    work_off()
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.SUCCEEDED
    assert execution.bytes_done - execution.bytes_total in (0, -2)  # the empty config may be there already


def test_events_of_rules_that_are_gone_are_deleted() -> None:
    PushEvent.objects.create(rule_id=uuid4(), image_id=uuid4(), digest="sha256:" + "0" * 64)
    triggers.clean_up(limit=100)
    assert not PushEvent.objects.exists()


def test_progress_of_a_long_transfer_ends_a_row_of_failures(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given a blob that failed hours ago and has been transferred in part since
    layer = os.urandom(100_000)
    push_image(owner, namespace, layers=(layer,), tags=("v1",), store=store)
    execution = rules.run(principal=owner.principal, rule_id=make_rule(owner, namespace, target).pk)
    for _ in range(2):  # the list of images, and the image
        work = claims.claim_next()
        assert work is not None
        run(work)
    long_ago = now() - timedelta(hours=3)
    ExecutionBlob.objects.update(failures=5, failing_since=long_ago)
    type(execution).objects.update(failures=2, failing_since=long_ago)
    work = claims.claim_next()
    assert work is not None
    assert isinstance(work.item, ExecutionBlob)
    outcomes.count_sent(work, 10)

    # when it fails again, then it is tried again
    outcomes.retry(work, "no answer")
    blob = ExecutionBlob.objects.get(pk=work.item.pk)
    execution.refresh_from_db()
    assert (blob.state, blob.failures, execution.status) == (ItemState.PENDING, 1, ExecutionStatus.RUNNING)

    # and bytes that are sent again are no progress
    ExecutionBlob.objects.update(next_attempt_at=now(), failing_since=long_ago)
    type(execution).objects.update(next_attempt_at=now())
    while (again := claims.claim_next()) is not None and again.item.pk != blob.pk:
        pass
    assert again is not None
    outcomes.count_sent(again, 5)
    outcomes.retry(again, "no answer")
    blob.refresh_from_db()
    execution.refresh_from_db()
    assert (blob.state, execution.bytes_done) == (ItemState.FAILED, 10)
