"""`GET gc/scrub`: who may read it, and what it returns."""

from typing import Any

import pytest
from django.conf import settings

from registry_control.catalog.models import Blob
from registry_control.catalog.selectors.holders import names_of_images_with
from registry_control.common.clock import now
from registry_control.identity.models import Organization
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import FULL_ACCESS, OPERATOR, Pushed, TestKey, digest_of, make_key, push_blob, push_image
from tests.integration.control.api import Api
from tests.integration.integrity.conftest import LAYER
from tests.integration.integrity.steps import change, remove, report_lost, scrub_all

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/registry/v1beta1/regions/fr-par/gc/scrub"


@pytest.fixture
def operator() -> TestKey:
    key = make_key(FULL_ACCESS, OPERATOR)
    Organization.objects.filter(pk=key.organization.pk).update(operates_installation=True)
    return key


def test_only_operators_read_the_findings(owner: TestKey, operator: TestKey) -> None:
    assert Api(owner).get(PATH).status == 403
    assert Api(operator).get(PATH, unknown="1").status == 400
    response = Api(operator).get(PATH)
    assert response.status == 200
    assert response.body == {
        "period": settings.SCRUB_PERIOD.total_seconds(),
        "covered": 1.0,
        "damaged": [],
        "damaged_total": 0,
        "missing": [],
        "missing_total": 0,
        "quarantined_total": 0,
        "waiting": 0,
        "reconcile": {
            "period": settings.RECONCILE_PERIOD.total_seconds(),
            "started_at": None,
            "finished_at": None,
            "unknown_objects": 0,
            "unknown_bytes": 0,
            "foreign_objects": 0,
        },
        "errors": [],
    }


def test_findings_name_the_images_of_all_organizations(
    owner: TestKey, operator: TestKey, pushed: Pushed, store: FilesystemStore
) -> None:
    change(store, digest_of(LAYER))
    remove(store, digest_of(b"another layer"))
    scrub_all(store)
    push_blob(owner, pushed.image_id, b"another layer", store=store)

    body: dict[str, Any] = Api(operator).get(PATH).body
    (damaged,), (missing,) = body["damaged"], body["missing"]
    assert (damaged["digest"], damaged["state"], damaged["images"]) == (
        digest_of(LAYER),
        "quarantined",
        [str(pushed.image)],
    )
    assert damaged["detail"].startswith("the digest of the content is sha256:")
    assert (missing["digest"], missing["state"]) == (digest_of(b"another layer"), "healed")
    assert missing["healed_at"] >= missing["found_at"]


def test_findings_that_the_lists_lack_are_counted(operator: TestKey) -> None:
    # given more findings than a list holds, quarantined and healed ones
    damaged = report_lost(501)
    report_lost(3, healed_at=now())
    report_lost(498, kind="missing")
    report_lost(5, kind="missing", healed_at=now())

    # when an operator reads them, then the newest of the quarantined ones come first, and the totals are true
    body = Api(operator).get(PATH).body
    assert [each["digest"] for each in body["damaged"]] == [each.digest for each in reversed(damaged[1:])]
    assert [each["state"] for each in body["missing"]] == ["quarantined"] * 498 + ["healed"] * 2
    assert (body["damaged_total"], body["missing_total"], body["quarantined_total"]) == (504, 503, 999)


def test_images_of_many_blobs_are_looked_up_at_once(owner: TestKey, namespace: Namespace) -> None:
    # given blobs that images link, that images only lease, and that no image has
    pushed = [push_image(owner, namespace, f"app-{number}", layers=[LAYER]) for number in range(4)]
    for each in pushed[1:]:
        push_blob(owner, each.image_id, b"leased")
    linked, only_leased = (Blob.objects.get(digest=digest_of(content)).pk for content in (LAYER, b"leased"))
    none = range(10**12, 10**12 + 600)

    # then each has its own images, up to a number of them
    names = [str(each.image) for each in pushed]
    found = names_of_images_with([linked, *none, only_leased, linked])
    assert (found[linked], found[only_leased], found[none[0]]) == (names, names[1:], [])
    assert len(found) == 602
    few = names_of_images_with([linked, only_leased], limit=2)
    assert [len(each) for each in few.values()] == [2, 2]
    assert set(few[only_leased]) < set(names[1:])
    assert names_of_images_with([]) == {}
