"""Why the disk has not shrunk: the page, the API and the command tell the same of all that keeps bytes."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client, override_settings

from registry_control.catalog.models import UploadSession
from registry_control.catalog.services import uploads
from registry_control.common.clock import now
from registry_control.gc.models import Inventory
from registry_control.gc.services import inventory
from registry_control.integrity.models import Job, UnknownObject
from registry_control.integrity.services import reconcile
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import Kind
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, digest_of, make_user, push_image
from tests.integration.control.api import Api
from tests.integration.integrity.steps import change, orphan, remove, scrub_all

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/registry/v1beta1/regions/fr-par/gc/report"


def _finish_reconciling(store: FilesystemStore) -> None:
    for _ in range(100):
        reconcile.work(store, period=settings.RECONCILE_PERIOD, grace=settings.GC_GRACE)
        if Job.objects.get(pk=Job.Name.RECONCILE).finished_at is not None:
            return
    raise AssertionError("the pass does not end")


def _command(*arguments: str) -> str:
    out = StringIO()
    call_command("gc", "--report", *arguments, stdout=out)
    return out.getvalue()


def _kinds(body: dict[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    return {each["kind"]: (each["number"], each["bytes"]) for each in body["findings"]}


def test_what_no_blob_counts_and_blobs_without_content_are_findings_everywhere(
    owner: TestKey, operator: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given an installation that has compared database and storage, and has nothing to tell
    _finish_reconciling(store)
    assert Api(operator).get(PATH).body["findings"] == []

    # when uploads run, objects are unknown, foreign or abandoned, and content is lost and damaged
    pushed = push_image(owner, namespace, layers=[b"damaged", b"missing"], config=b"kept", store=store)
    for hashed, is_open in ((1000, True), (20, True), (5, False)):
        session = uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
        UploadSession.objects.filter(pk=session).update(hashed_size=hashed, is_open=is_open)
    UploadSession.objects.filter(hashed_size=0).delete()  # of the push above
    orphan(store, b"ten bytes!")
    (store._root / "blobs" / "readme.txt").write_text("of another program")  # noqa: SLF001
    Job.objects.all().delete()
    _finish_reconciling(store)
    UnknownObject.objects.create(name="blobs/aa/aa", kind=Kind.UNFINISHED.value, upload="aa", size=0)
    change(store, digest_of(b"damaged"))
    remove(store, digest_of(b"missing"))
    scrub_all(store)
    assert inventory.advance() is False

    # then the API, the command and the page name each, with the same figures and words
    body = Api(operator).get(PATH).body
    assert _kinds(body) == {
        "uploads": (2, 1020),
        "closed_uploads": (1, None),
        "unknown_objects": (1, 10),
        "abandoned_multiparts": (1, None),
        "foreign_objects": (1, None),
        "missing_blobs": (1, 7),
        "damaged_blobs": (1, 7),
    }
    assert json.loads(_command("--json")) == body
    text = _command()
    client = Client()
    client.force_login(make_user(is_administrator=True))
    page = client.get("/admin/gc/gcrun/disk/").content.decode()
    for each in body["findings"]:
        assert each["text"] in text
        assert each["text"] in page
    assert f"Tagged: {body['lines'][0]['blobs']} blobs" in text


def test_a_comparison_that_is_off_unfinished_or_stopped_is_a_finding(
    operator: TestKey, store: FilesystemStore
) -> None:
    assert "reconcile_running" in _kinds(Api(operator).get(PATH).body)
    Job.objects.create(name=Job.Name.RECONCILE, started_at=now(), error="no answer")
    assert "reconcile_stopped" in _kinds(Api(operator).get(PATH).body)
    with override_settings(RECONCILE_PERIOD=settings.RECONCILE_PERIOD * 0):
        assert "reconcile_off" in _kinds(Api(operator).get(PATH).body)


@pytest.mark.parametrize(("blobs", "is_counted"), [(20_000, True), (20_001, False)])
def test_a_count_that_is_quick_is_repeated_every_minute(blobs: int, is_counted: bool) -> None:
    last = Inventory.objects.create(finished_at=now() - timedelta(seconds=59), tagged_blobs=blobs)
    assert inventory.advance() is False
    assert Inventory.objects.filter(pk=last.pk).exists() is not is_counted
    Inventory.objects.update(finished_at=now() - timedelta(hours=1))
    inventory.advance()
    assert not Inventory.objects.filter(pk=last.pk).exists()
