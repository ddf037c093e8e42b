"""Promises of a running product with a lease of seconds hold for three quarters of it after each response."""

import os
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from registry_control.common.clock import now
from registry_control.db.sql import time_from_db
from tests.integration.gc.test_end_to_end import team
from tests.integration.standalone.product import api, row
from tests.oci_client import OciClient, digest_of, image_manifest
from tests.services.stack import Stack
from tests.services.waiting import wait_until

LEASE = 4  # seconds


def _promised_for(stack: Stack, repository: str, digest: str, answered: datetime) -> float:
    """Seconds from a response until the end of the lease of an image."""
    image = repository.partition("/")[2]
    (until,) = row(
        stack,
        "SELECT l.expires_at FROM catalog_bloblease l"
        " JOIN catalog_image i ON i.id = l.image_id JOIN catalog_blob b ON b.id = l.blob_id"
        f" WHERE i.name = '{image}' AND b.digest = '{digest}'",
    )
    assert isinstance(until, str | datetime)
    return (time_from_db(until) - answered).total_seconds()


@pytest.mark.slow
def test_invariant_2_every_promise_of_a_short_lease_holds_for_three_quarters_of_it(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(REGISTRY_LEASE=str(LEASE), REGISTRY_GC_GRACE="0")
    with team(stack) as oci:
        # given an uploaded blob that no manifest lists, and its mount in another repository
        layer = os.urandom(1000)
        digest = oci.push_blob("team/one", layer)
        assert _promised_for(stack, "team/one", digest, now()) >= LEASE * 0.75
        scope = "repository:team/two:pull,push repository:team/one:pull"
        params = {"mount": digest, "from": "team/one"}
        mounted = oci.call("POST", "/v2/team/two/blobs/uploads/", scope=scope, params=params)
        assert mounted.status_code == 201
        assert _promised_for(stack, "team/two", digest, now()) >= LEASE * 0.75

        # when a client asks for it for longer than a lease, then each response is a promise
        began = time.monotonic()
        while time.monotonic() - began < 2 * LEASE:
            response = oci.on("team/one", "HEAD", f"blobs/{digest}")
            answered = now()
            assert response.status_code == 200
            assert _promised_for(stack, "team/one", digest, answered) >= LEASE * 0.75
            time.sleep(0.3)

        # and a manifest that refers to it is accepted at the end
        _push_manifest(oci, "team/one", layer)

        # and the deletion of the image ends all promises
        images = api(stack, "GET", "/images?name=one")["images"]
        assert isinstance(images, list)
        api(stack, "DELETE", f"/images/{images[0]['id']}")
        assert oci.on("team/one", "HEAD", f"blobs/{digest}").status_code == 404
        wait_until(lambda: row(stack, "SELECT count(*) FROM catalog_blob") == (0,), timeout=LEASE + 35)


def _push_manifest(oci: OciClient, repository: str, layer: bytes) -> None:
    oci.push_blob(repository, b"{}")
    assert oci.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 200
    assert oci.put_manifest(repository, "latest", image_manifest(b"{}", [layer])).status_code == 201
