"""`GET /metrics`: who may read it, and that its figures are those of the database."""

import re
from datetime import timedelta
from typing import Final

import pytest
import yaml
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from registry_control.catalog.models import Blob, BlobReview, UploadSession
from registry_control.catalog.services import uploads
from registry_control.common.background import Queue
from registry_control.common.clock import database_now
from registry_control.gc.models import Breaker, GcRun
from registry_control.gc.policy import Rules
from registry_control.gc.services import inventory
from registry_control.gc.services.figures import count_new
from registry_control.integrity.models import BlobFault, Job, UnknownObject
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.replication.models import Execution, ExecutionStatus, Rule
from registry_control.serving.heartbeat import record_heartbeat
from tests.factories import TestKey, make_key, make_namespace, push_image, unique
from tests.integration.control.api import Api
from tests.integration.replication.scene import make_rule, make_target
from tests.services.stack import ROOT

pytestmark = pytest.mark.django_db

RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yml"


def scrape(operator: TestKey) -> dict[str, float]:
    """All samples, by name and labels, as Prometheus reads them."""
    response = Client().get("/metrics", headers={"Authorization": f"Bearer {operator.secret}"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(response.content.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_only_operators_read_the_figures(operator: TestKey) -> None:
    assert Api(None).get("/metrics").status == 401
    assert Api(make_key()).get("/metrics").status == 403
    with_token = Client().get("/metrics", headers={"X-Auth-Token": operator.secret, "Accept": "text/plain"})
    assert with_token.status_code == 200
    for credentials in (f"Basic {operator.secret}", "Bearer", "Bearer nonsense"):
        assert Client().get("/metrics", headers={"Authorization": credentials}).status_code == 401
    assert Client().post("/metrics", headers={"X-Auth-Token": operator.secret}).status_code == 405


def test_other_paths_take_no_bearer_token(operator: TestKey) -> None:
    headers = {"Authorization": f"Bearer {operator.secret}"}
    assert Client().get("/registry/v1/regions/fr-par/namespaces", headers=headers).status_code == 401


def _fill(owner: TestKey, times: int) -> None:
    """Rows of each kind that a figure counts."""
    namespace = make_namespace(owner)
    target = make_target(owner, "https://registry.invalid")
    for _ in range(times):
        rule = make_rule(owner, namespace, target)
        for status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED):
            Execution.objects.create(
                rule=rule,
                organization_id=owner.organization.pk,
                status=status,
                trigger="cron",
                finished_at=database_now(),
            )
        pushed = push_image(owner, make_namespace(owner), layers=[b"layer"], config=b"config")
        uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
        for kind in ("tag", "image"):
            RecycleBinEntry.objects.create(
                kind=kind,
                name="a",
                namespace=namespace,
                organization_id=owner.organization.pk,
                object_id=namespace.pk,
                size=10,
                expires_at=database_now(),
            )
    for _ in range(times):
        GcRun.objects.create(kind="requested", blobs=2, bytes=100, manifests=1)
        GcRun.objects.create(kind="requested", blobs=2, bytes=100, manifests=1, dry_run=True)
        UnknownObject.objects.create(name=unique("blobs/"), kind="content", upload="", size=7)
        for kind, healed_at in (("damaged", None), ("damaged", database_now()), ("missing", None)):
            blob_id = BlobFault.objects.count()
            fault = {"digest": "sha256:1", "size": 1, "storage_key": "k", "detail": "d"}
            BlobFault.objects.create(blob_id=blob_id, kind=kind, healed_at=healed_at, **fault)
        BlobFault.objects.create(blob_id=blob_id, kind="damaged", dropped_at=database_now(), **fault)
    Job.objects.update_or_create(name=Job.Name.SCRUB, defaults={"error": "no answer"})
    Breaker.objects.update_or_create(pk=1, defaults={"stopped_at": database_now(), "reason": "too much"})
    for queue in Queue:
        record_heartbeat(queue)


def test_the_figures_are_those_of_the_database(operator: TestKey) -> None:
    _fill(operator, 2)
    assert inventory.advance() is False
    UploadSession.objects.filter(is_open=True).update(hashed_size=500)
    found = scrape(operator)
    expected = {
        'stowage_gc_stopped{by="breaker"}': 1,
        'stowage_gc_stopped{by="clock"}': 0,
        "stowage_gc_removed_blobs_total": 4,
        "stowage_gc_removed_bytes_total": 200,
        "stowage_gc_removed_manifests_total": 2,
        'stowage_blobs{kept="tagged"}': 2,
        'stowage_blob_bytes{kept="tagged"}': 11,
        'stowage_recycle_bin_entries{kind="tag"}': 2,
        'stowage_recycle_bin_entries{kind="namespace"}': 0,
        "stowage_recycle_bin_bytes": 20,
        "stowage_reconcile_unknown_objects": 2,
        "stowage_reconcile_unknown_bytes": 14,
        "stowage_scrub_covered_ratio": 1.0,
        'stowage_blob_faults{kind="damaged"}': 2,
        'stowage_blob_faults{kind="missing"}': 2,
        'stowage_blob_faults_found_total{kind="damaged"}': 6,
        'stowage_blob_faults_healed_total{kind="damaged"}': 2,
        'stowage_blob_faults_healed_total{kind="missing"}': 0,
        'stowage_integrity_job_failing{job="scrub"}': 1,
        'stowage_integrity_job_failing{job="reconcile"}': 0,
        'stowage_replication_executions{status="failed"}': 2,
        'stowage_replication_executions{status="running"}': 0,
        "stowage_replication_failing_rules": 2,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["stowage_upload_bytes"] == 500 * found['stowage_uploads{state="open"}']
    assert 0 <= found['stowage_worker_heartbeat_age_seconds{queue="fast"}'] < 60


def test_a_rule_that_is_disabled_or_deleted_does_not_fail(operator: TestKey) -> None:
    _fill(operator, 2)
    first, second = Rule.objects.all()
    Rule.objects.filter(pk=first.pk).update(enabled=False)
    Rule.objects.filter(pk=second.pk).update(deleted_at=database_now())
    assert scrape(operator)["stowage_replication_failing_rules"] == 0


def test_the_queue_is_overdue_from_the_end_of_the_grace_period(operator: TestKey) -> None:
    assert scrape(operator)["stowage_gc_queue_overdue_seconds"] == 0
    blob = Blob.objects.create(digest="sha256:" + "0" * 64, size=5, storage_key="k")
    review = BlobReview.objects.create(blob=blob, cause="test", unreferenced_since=database_now())
    count_new(Rules(database_now(), settings.GC_GRACE), limit=10)
    found = scrape(operator)
    assert (found["stowage_gc_queue_entries"], found["stowage_gc_queue_bytes"]) == (1, 5)
    assert found["stowage_gc_queue_overdue_seconds"] == 0
    review.unreferenced_since -= settings.GC_GRACE + timedelta(hours=1)
    review.save()
    assert 3600 <= scrape(operator)["stowage_gc_queue_overdue_seconds"] < 3700


def test_the_number_of_queries_does_not_depend_on_the_number_of_rows(operator: TestKey) -> None:
    counts = []
    for times in (1, 5):
        _fill(operator, times)
        with CaptureQueriesContext(connection) as captured:
            scrape(operator)
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 25


def test_alerts_use_figures_that_exist(operator: TestKey) -> None:
    _fill(operator, 1)
    names = {re.sub(r"\{.*", "", name) for name in scrape(operator)}
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert len(rules) > 5
    for rule in rules:
        used = set(re.findall(r"\bstowage_\w+", rule["expr"]))
        assert used <= names, rule["alert"]
        assert rule["annotations"]["summary"]
