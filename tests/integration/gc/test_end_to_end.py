"""The bytes of deleted content leave the storage of a running product, with grace periods of seconds."""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.integration.standalone.product import api, count, row
from tests.oci_client import OciClient, digest_of
from tests.services.stack import Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.slow
_SECONDS = {"REGISTRY_GC_GRACE": "2", "REGISTRY_LEASE": "2"}


def stored(stack: Stack) -> int:
    """Bytes on the disk, each file once however many names it has."""
    found = {
        (status.st_ino, status.st_size)
        for path in (stack.state_dir / "storage").rglob("*")
        if path.is_file() and (status := path.stat())
    }
    return sum(size for _, size in found)


def connected(stack: Stack) -> OciClient:
    return OciClient(stack.credentials.registry_host, stack.credentials.secret_key)


def delete_image(stack: Stack, name: str) -> None:
    images = api(stack, "GET", f"/images?name={name}")["images"]
    assert isinstance(images, list)
    api(stack, "DELETE", f"/images/{images[0]['id']}")


@pytest.fixture
def client(make_stack: Callable[..., Stack]) -> Iterator[tuple[Stack, OciClient]]:
    with make_stack(**_SECONDS) as stack:
        api(stack, "POST", "/namespaces", name="team")
        with connected(stack) as client:
            yield stack, client


def test_the_bytes_of_a_deleted_image_are_gone_within_30_seconds_and_shared_layers_stay(
    client: tuple[Stack, OciClient],
) -> None:
    # given two images with a common layer, and a blob that no manifest lists
    stack, oci = client
    shared, own = os.urandom(100_000), os.urandom(3_000_000)
    oci.push_image("team/doomed", "latest", shared, own)
    oci.push_image("team/kept", "latest", shared)
    oci.push_blob("team/kept", os.urandom(2_000_000))
    assert stored(stack) > 5_000_000

    # when one image is deleted, then its own bytes and the unused blob go without anybody asking
    delete_image(stack, "doomed")
    wait_until(lambda: stored(stack) < 200_000, timeout=34)

    # and the other image is complete
    assert count(stack, "catalog_blob") == 2
    assert oci.on("team/kept", "GET", f"blobs/{digest_of(shared)}").content == shared
    assert oci.on("team/kept", "HEAD", f"blobs/{digest_of(own)}").status_code == 404
    assert count(stack, "catalog_blobreview") == 0
    assert row(stack, "SELECT sum(blobs), sum(manifests) FROM gc_gcrun") == (2, 1)


def test_the_command_removes_a_deleted_image_at_once_whatever_the_grace_period(
    make_stack: Callable[..., Stack],
) -> None:
    # given a registry with the default periods of a day, and an image
    with make_stack() as stack, connected(stack) as oci:
        api(stack, "POST", "/namespaces", name="team")
        layer = os.urandom(3_000_000)
        oci.push_image("team/doomed", "latest", layer)
        oci.push_blob("team/kept", b"a leased blob")

        # when it is deleted and the command runs right after that
        delete_image(stack, "doomed")
        done = json.loads(stack.manage("gc", "--now", "--json").stdout)

        # then the bytes are gone, except those of the lease
        assert (done["dry_run"], done["blobs"]) == (False, 2)
        assert done["bytes"] > 3_000_000
        assert stored(stack) == len(b"a leased blob")
        assert [each["digest"] for each in done["waiting"]] == [digest_of(b"a leased blob")]
        assert "leased" in done["waiting"][0]["reason"]
