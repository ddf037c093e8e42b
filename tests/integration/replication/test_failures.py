"""What a target does wrong: which failures end an execution, and which are tried again."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test import override_settings

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, Image, Manifest, UploadSession
from registry_control.catalog.services import images
from registry_control.common.clock import now
from registry_control.common.secrets import derived_key
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims
from registry_control.replication.models import (
    Direction,
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionStatus,
    Target,
)
from registry_control.replication.policy import GIVE_UP
from registry_control.replication.services import rules
from registry_data.client.egress import EgressPolicy
from registry_data.oci.digest import Digest
from registry_data.storage.base import BlobStore
from tests.factories import TestKey, push_image
from tests.integration.replication.content import CONFIG, image_manifest
from tests.integration.replication.scene import end_waiting, make_rule, make_target, run_rule, work_off
from tests.services.ports import free_port
from tests.services.registries import running_registry
from tests.services.scripted import Exchange, Script, replying, running_script

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def script() -> Iterator[Script]:
    with running_script() as script:
        yield script


@pytest.fixture
def scripted(owner: TestKey, script: Script) -> Target:
    return make_target(owner, f"http://{script.host}", username="robot", password="wrong")


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_end_the_execution_at_once(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script, store: BlobStore, status: int
) -> None:
    # given two images and a target that refuses the credentials
    script.on("", replying(status, WWW_Authenticate='Basic realm="x"'))
    for name in ("one", "two"):
        push_image(owner, namespace, name, store=store)

    # when they are replicated, then the execution has failed, with one sentence
    done = run_rule(owner, make_rule(owner, namespace, scripted))
    assert done.status == ExecutionStatus.FAILED
    assert done.finished_at is not None
    (error,) = done.errors
    assert str(status) in error
    assert "wrong" not in error

    # and nothing is tried again
    sent = len(script.requests)
    end_waiting()
    work_off()
    assert len(script.requests) == sent


def test_internal_addresses_are_never_connected_to(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script, store: BlobStore
) -> None:
    push_image(owner, namespace, store=store)
    rule = make_rule(owner, namespace, scripted)
    with override_settings(EGRESS=EgressPolicy()):
        done = run_rule(owner, rule)
    assert done.status == ExecutionStatus.FAILED
    assert "REGISTRY_EGRESS_ALLOW" in done.errors[0]
    assert script.requests == []


def test_a_password_of_another_secret_key_ends_the_execution(
    owner: TestKey, namespace: Namespace, scripted: Target, store: BlobStore
) -> None:
    push_image(owner, namespace, store=store)
    rule = make_rule(owner, namespace, scripted)
    execution = rules.run(principal=owner.principal, rule_id=rule.pk)
    derived_key.cache_clear()
    with override_settings(SECRET_KEY="another secret key of more than 32 characters"):
        work_off()
    derived_key.cache_clear()
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.FAILED
    assert "enter it again" in execution.errors[0]


@pytest.mark.clients
def test_a_target_that_is_away_is_tried_again_until_it_is_back(
    owner: TestKey, namespace: Namespace, store: BlobStore, tmp_path: Path
) -> None:
    # given a target that does not answer
    host = f"127.0.0.1:{free_port()}"
    push_image(owner, namespace, store=store)
    rule = make_rule(owner, namespace, make_target(owner, f"http://{host}"))

    # when a rule runs, then it waits, and says why
    waiting = run_rule(owner, rule)
    assert waiting.status == ExecutionStatus.RUNNING
    assert "cannot be reached" in waiting.shown_errors[-1]
    assert waiting.errors == []
    work_off()  # nothing is due
    end_waiting()
    work_off()
    assert ExecutionBlob.objects.filter(failures__gt=0).exists()

    # and when the target is back, then the execution succeeds without an error
    with running_registry("docker-registry", tmp_path, host=host):
        end_waiting()
        work_off()
    waiting.refresh_from_db()
    assert (waiting.status, waiting.shown_errors) == (ExecutionStatus.SUCCEEDED, [])


def test_a_target_says_when_to_try_again(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script, store: BlobStore
) -> None:
    script.on("", replying(429, Retry_After="1200"))
    push_image(owner, namespace, store=store)
    waiting = run_rule(owner, make_rule(owner, namespace, scripted))
    assert waiting.status == ExecutionStatus.RUNNING
    assert "429" in waiting.shown_errors[-1]
    left = waiting.next_attempt_at - now()
    assert timedelta(minutes=19) < left <= timedelta(minutes=20)
    assert claims.claim_next() is None


def test_an_execution_without_success_for_an_hour_is_given_up(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script, store: BlobStore
) -> None:
    script.on("", replying(503))
    push_image(owner, namespace, store=store)
    execution = run_rule(owner, make_rule(owner, namespace, scripted))
    for model in (Execution, ExecutionBlob, ExecutionImage):
        model.objects.filter(failures__gt=0).update(failing_since=now() - GIVE_UP)
    end_waiting()
    work_off()
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.FAILED
    assert all("given up after an hour" in error for error in execution.shown_errors)


def test_wrong_content_is_not_stored(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script, store: BlobStore
) -> None:
    # given a source that sends other bytes than those of a layer
    layer = os.urandom(1000)
    manifest = image_manifest(layer)
    script.on("GET /v2/x/app/tags/list", replying(200, b'{"tags": ["v1"]}'))
    media_type = {"Content_Type": "application/vnd.oci.image.manifest.v1+json"}
    script.on("(GET|HEAD) /v2/x/app/manifests/v1", replying(200, manifest, **media_type))
    script.on(f"GET /v2/x/app/blobs/{Digest.of(CONFIG)}", replying(200, CONFIG))
    script.on(f"GET /v2/x/app/blobs/{Digest.of(layer)}", replying(200, os.urandom(1000)))
    rule = make_rule(owner, namespace, scripted, Direction.PULL, repositories=["x/app"])

    # when it is pulled, then it is tried three times, and fails
    execution = run_rule(owner, rule)
    for _ in range(3):
        end_waiting()
        work_off()
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.FAILED
    assert f"the blob {Digest.of(layer)} of x/app" in execution.errors[0]
    requests = [line for line in script.lines() if line.endswith(str(Digest.of(layer)))]
    assert len(requests) == 3

    # and nothing of it is stored
    assert list(Blob.objects.values_list("digest", flat=True)) == [str(Digest.of(CONFIG))]
    assert not UploadSession.objects.filter(is_open=True).exists()


def test_a_blob_whose_image_was_removed_meanwhile_is_copied_again(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script, store: BlobStore
) -> None:
    # given a source, and a worker that removes the image, to which nothing was ever pushed, during a transfer
    manifest = image_manifest()
    script.on("GET /v2/x/app/tags/list", replying(200, b'{"tags": ["v1"]}'))
    media_type = {"Content_Type": "application/vnd.oci.image.manifest.v1+json"}
    script.on("(GET|HEAD) /v2/x/app/manifests/v1", replying(200, manifest, **media_type))

    def remove_and_reply(exchange: Exchange) -> None:
        with transaction.atomic():
            for image in Image.objects.select_for_update().filter(created_at__lte=began):
                images.remove(image, actor=SYSTEM)
        connection.close()
        exchange.reply(200, CONFIG)

    script.on(f"GET /v2/x/app/blobs/{Digest.of(CONFIG)}", remove_and_reply)
    images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    began = now()

    # when it is pulled, then the next attempt brings the blob into a new image
    execution = run_rule(owner, make_rule(owner, namespace, scripted, Direction.PULL, repositories=["x/app"]))
    end_waiting()
    work_off()
    execution.refresh_from_db()
    assert execution.status == ExecutionStatus.SUCCEEDED, execution.errors
    assert Manifest.objects.get().image.created_at > began


def test_a_source_that_sends_no_manifest_fails_with_a_reason(
    owner: TestKey, namespace: Namespace, scripted: Target, script: Script
) -> None:
    script.on("GET /v2/x/app/tags/list", replying(200, b'{"tags": ["v1"]}'))
    script.on("(GET|HEAD) /v2/x/app/manifests/v1", replying(200, b"<html>", Content_Type="text/html"))
    rule = make_rule(owner, namespace, scripted, Direction.PULL, repositories=["x/app"])
    done = run_rule(owner, rule)
    assert done.status == ExecutionStatus.FAILED
    assert done.errors[0].startswith("x/app:v1: ")
