"""What `manage.py scrub` prints, and what it refuses."""

import json
import re
import time
from datetime import datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from registry_control.catalog.models import Blob
from registry_control.common.store import blob_store
from registry_control.integrity.policy import MIB
from registry_control.integrity.selectors import report
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, digest_of, push_blob, push_image
from tests.integration.integrity.conftest import LAYER
from tests.integration.integrity.steps import remove, scrub_all, truncate

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.only_on("sqlite")]


@pytest.fixture
def lost(owner: TestKey, namespace: Namespace) -> Pushed:
    """An image in the store of the settings that has lost a layer."""
    store = blob_store()
    assert isinstance(store, FilesystemStore)
    store.check()
    pushed = push_image(owner, namespace, layers=[LAYER, b"another layer"], store=store)
    remove(store, digest_of(LAYER))
    return pushed


def scrub(*arguments: str) -> tuple[dict[str, Any], str]:
    """The document, and the error with which the command ended."""
    out, error = StringIO(), ""
    try:
        call_command("scrub", "--json", *arguments, stdout=out)
    except CommandError as found:
        error = str(found)
    return json.loads(out.getvalue()), error


def test_the_document_is_that_of_the_api_with_times_as_rfc_3339_has_them(lost: Pushed) -> None:
    found, error = scrub()
    assert error == ""
    assert [each["digest"] for each in found["missing"]] == [digest_of(LAYER)]
    assert "T" in found["missing"][0]["found_at"]
    assert datetime.fromisoformat(found["missing"][0]["found_at"]).tzinfo is not None


def test_the_document_has_the_errors_of_the_run(lost: Pushed) -> None:
    unknown = digest_of(b"no blob")
    found, error = scrub(unknown)
    assert found["errors"] == [f"the registry has no blob {unknown}"]
    assert unknown in error


def test_losses_are_accepted_of_the_named_digests_only(owner: TestKey, lost: Pushed) -> None:
    # given lost content, which workers refuse to mark because it is most of all content
    store = blob_store()
    assert isinstance(store, FilesystemStore)
    digests = [push_blob(owner, lost.image_id, b"layer %d" % number, store=store) for number in range(20)]
    for digest in digests:
        remove(store, digest)
    scrub_all(store)
    assert set(Blob.objects.values_list("state", flat=True)) == {Blob.State.LIVE}

    # when an operator accepts the loss of two, then these are marked, and no others
    found, error = scrub("--accept-losses", *digests[:2])
    assert error == ""
    assert sorted(each["digest"] for each in found["missing"]) == sorted(digests[:2])
    assert set(Blob.objects.exclude(state=Blob.State.LIVE).values_list("digest", flat=True)) == {*digests[:2]}


@pytest.mark.parametrize("is_named", [True, False])
def test_content_is_read_no_faster_than_the_rate(owner: TestKey, lost: Pushed, is_named: bool) -> None:
    digest = push_blob(owner, lost.image_id, b"x" * MIB, store=blob_store())
    Blob.objects.exclude(digest=digest).update(state=Blob.State.DELETING)
    began = time.monotonic()
    found, _ = scrub("--rate=1", *[digest] * is_named)
    assert found["bytes"] == MIB
    assert time.monotonic() - began > 0.9


def test_the_true_number_of_findings_is_printed(lost: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    # given more findings than a list holds
    store = blob_store()
    assert isinstance(store, FilesystemStore)
    truncate(store, digest_of(b"another layer"))
    truncate(store, lost.blobs[0])
    monkeypatch.setattr(report, "MOST", 1)

    # when content is read and compared, then all are counted
    text = run("scrub")
    assert re.findall(r"^(?:damaged|missing): .*$", text, re.MULTILINE) == ["damaged: 2", "missing: 1"]
    assert text.count("\n  and 1 more, which the administration lists\n") == 1
    text = run("reconcile")
    assert "damaged or missing: 3\n" in text
    assert len(re.findall(r"^  sha256:", text, re.MULTILINE)) == 2
    assert "\n  and 1 more, which the administration lists\n" in text
    found = json.loads(run("reconcile", "--json"))
    assert (len(found["quarantined"]), found["quarantined_total"]) == (2, 3)


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("rate", ["0", "-1", "x", "1.5", ""])
def test_a_rate_is_a_positive_number(lost: Pushed, rate: str) -> None:
    with pytest.raises(CommandError, match="is not a whole number of at least 1"):
        call_command("scrub", f"--rate={rate}")
