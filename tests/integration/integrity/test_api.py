"""`GET gc/scrub`: who may read it, and what it returns."""

from typing import Any

import pytest
from django.conf import settings

from registry_control.identity.models import Organization
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import FULL_ACCESS, OPERATOR, Pushed, TestKey, digest_of, make_key, push_blob
from tests.integration.control.api import Api
from tests.integration.integrity.conftest import LAYER
from tests.integration.integrity.steps import change, remove, scrub_all

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
        "missing": [],
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
