"""The bytes of deleted content leave the storage of a running product, with grace periods of seconds."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from minio import Minio
from minio.error import S3Error

from registry_data.storage.s3.address import Address
from tests.integration.standalone.product import api, count, row
from tests.oci_client import OciClient, digest_of
from tests.services.minio import S3Server, running_minio
from tests.services.stack import Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.slow
MakeStack = Callable[..., Stack]
_SECONDS = {"REGISTRY_GC_GRACE": "2", "REGISTRY_LEASE": "5"}
_PROMISED = 5 + 5 + 2 + 30  # seconds: lease, time for the response, grace period, and for the deletion


def stored(stack: Stack) -> int:
    """Bytes in the storage; on a disk each file once, however many names it has."""
    if url := stack.environment.get("REGISTRY_STORAGE_URL"):
        return _in_bucket(url)
    found = set[tuple[int, int]]()
    for path in (stack.state_dir / "storage").rglob("*"):
        with suppress(FileNotFoundError):  # deleted since the folder was listed
            if path.is_file():
                status = path.stat()
                found.add((status.st_ino, status.st_size))
    return sum(size for _, size in found)


def _in_bucket(url: str) -> int:
    address = Address.parse(url)
    client = Minio(address.endpoint, address.access_key, address.secret_key, secure=False)
    try:
        return sum(found.size or 0 for found in client.list_objects(address.bucket, recursive=True))
    except S3Error as error:
        raise AssertionError(error.code) from error


def connected(stack: Stack) -> OciClient:
    return OciClient(stack.credentials.registry_host, stack.credentials.secret_key)


def delete_image(stack: Stack, name: str) -> None:
    images = api(stack, "GET", f"/images?name={name}")["images"]
    assert isinstance(images, list)
    api(stack, "DELETE", f"/images/{images[0]['id']}")


def delete_namespace(stack: Stack) -> None:
    namespaces = api(stack, "GET", "/namespaces")["namespaces"]
    assert isinstance(namespaces, list)
    api(stack, "DELETE", f"/namespaces/{namespaces[0]['id']}")


@contextmanager
def team(stack: Stack) -> Iterator[OciClient]:
    """A running product with a namespace, and its owner."""
    with stack:
        api(stack, "POST", "/namespaces", name="team")
        with connected(stack) as client:
            yield client


@pytest.fixture(params=["disk", pytest.param("minio", marks=pytest.mark.clients)])
def stack(request: pytest.FixtureRequest, make_stack: MakeStack) -> Stack:
    """A product with periods of seconds on each storage."""
    if request.param == "disk":
        return make_stack(**_SECONDS)
    server: S3Server = request.getfixturevalue("minio")
    return make_stack(**_SECONDS, REGISTRY_STORAGE_URL=server.url())


def test_the_bytes_of_a_deleted_image_are_gone_within_30_seconds_and_shared_layers_stay(stack: Stack) -> None:
    with team(stack) as oci:
        # given two images with a common layer, whose responses are cached, and a blob that no manifest lists
        shared, own, small = os.urandom(100_000), os.urandom(3_000_000), os.urandom(1000)
        oci.push_image("team/doomed", "latest", shared, own, small)
        oci.push_image("team/kept", "latest", shared)
        oci.push_blob("team/kept", os.urandom(2_000_000))
        assert stored(stack) > 5_000_000
        for method in ("HEAD", "GET") * 3:
            assert oci.on("team/doomed", method, f"blobs/{digest_of(small)}").status_code == 200

        # when one image is deleted, then its own bytes and the unused blob go without anybody asking
        delete_image(stack, "doomed")
        wait_until(lambda: stored(stack) < 200_000, timeout=_PROMISED)
        wait_until(lambda: count(stack, "catalog_blobreview") == 0)

        # and the other image is complete, and no request finds what is gone
        assert count(stack, "catalog_blob") == 2
        assert oci.on("team/kept", "GET", f"blobs/{digest_of(shared)}").content == shared
        for method in ("HEAD", "GET"):
            for gone in (own, small):
                for repository in ("team/kept", "team/doomed"):
                    response = oci.on(repository, method, f"blobs/{digest_of(gone)}")
                    assert response.status_code == 404, response
        assert row(stack, "SELECT sum(blobs), sum(manifests) FROM gc_gcrun") == (3, 1)


@pytest.mark.only_on("sqlite")
def test_a_deleted_manifest_answers_404_and_its_blobs_are_promised_for_a_lease(make_stack: MakeStack) -> None:
    with team(make_stack(**_SECONDS)) as oci:
        # given an image whose blobs a client has just been told to exist
        layer = os.urandom(1000)
        digest = oci.push_image("team/app", "latest", layer)
        path = f"blobs/{digest_of(layer)}"
        assert oci.on("team/app", "HEAD", path).status_code == 200

        # when the manifest is deleted, then the promise still holds
        assert oci.on("team/app", "DELETE", f"manifests/{digest}").status_code == 202
        assert oci.on("team/app", "HEAD", path).status_code == 200
        assert oci.push_image("team/app", "again", layer) == digest

        # and without a manifest the blob is gone after lease and grace period
        assert oci.on("team/app", "DELETE", f"manifests/{digest}").status_code == 202
        wait_until(lambda: oci.on("team/app", "GET", path).status_code == 404, timeout=_PROMISED)


@pytest.mark.clients
def test_an_outage_of_the_object_store_delays_the_deletion_and_loses_nothing(
    make_stack: MakeStack, tmp_path: Path
) -> None:
    folder = tmp_path / "minio"
    with running_minio(folder) as server:
        url, port = server.url(), server.port
        stack = make_stack(**_SECONDS, REGISTRY_STORAGE_URL=url)
        stack.start()
        api(stack, "POST", "/namespaces", name="team")
        with connected(stack) as oci:
            kept, own = os.urandom(1000), os.urandom(3_000_000)
            oci.push_image("team/doomed", "latest", own)
            oci.push_image("team/kept", "latest", kept)
        delete_image(stack, "doomed")

    # given a store that does not respond when the bytes are due
    wait_until(lambda: _attempts(stack) > 0, timeout=_PROMISED)
    assert count(stack, "catalog_blob") == 3

    # when it is back, then the bytes go, and the rest is there
    with running_minio(folder, port=port), connected(stack) as oci:
        wait_until(lambda: stored(stack) < 100_000, timeout=90)
        wait_until(lambda: count(stack, "catalog_blob") == 2)
        assert oci.on("team/kept", "GET", f"blobs/{digest_of(kept)}").content == kept


def _attempts(stack: Stack) -> int:
    return int(str(row(stack, "SELECT COALESCE(MAX(attempts), 0) FROM catalog_blobreview")[0]))


@pytest.mark.only_on("sqlite")
def test_the_command_removes_a_deleted_image_at_once_whatever_the_grace_period(
    make_stack: MakeStack,
) -> None:
    # given a registry with the default periods of a day, and an image
    stack = make_stack()
    with team(stack) as oci:
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


def test_what_clients_delete_is_pulled_again_after_a_restore_and_goes_when_it_is_purged(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(**_SECONDS, REGISTRY_RECYCLE_BIN="3600")
    with team(stack) as oci:
        layer = os.urandom(1_000_000)
        digest = oci.push_image("team/app", "v1", layer)
        deletions: list[Callable[[], object]] = [
            lambda: oci.on("team/app", "DELETE", "manifests/v1"),
            lambda: oci.on("team/app", "DELETE", f"manifests/{digest}"),
            lambda: delete_image(stack, "app"),
            lambda: delete_namespace(stack),
        ]
        for delete in deletions:
            assert oci.on("team/app", "GET", "manifests/v1").status_code == 200
            delete()
            # 401 without its namespace: as for every name that the client may not know of
            assert oci.on("team/app", "GET", "manifests/v1").status_code in (401, 404)
            (entry,) = recycle_bin(stack, "GET")["entries"]
            recycle_bin(stack, "POST", f"/{entry['id']}/restore")
            pulled = oci.on("team/app", "GET", "manifests/v1")
            assert (pulled.status_code, digest_of(pulled.content)) == (200, digest)
            assert oci.on("team/app", "GET", f"blobs/{digest_of(layer)}").content == layer

        delete_image(stack, "app")
        (entry,) = recycle_bin(stack, "GET")["entries"]
        assert entry["size"] > 1_000_000
        recycle_bin(stack, "DELETE", f"/{entry['id']}")
        wait_until(lambda: stored(stack) < 100_000, timeout=_PROMISED)


def recycle_bin(stack: Stack, method: str, path: str = "") -> Any:
    response = httpx.request(
        method,
        f"http://{stack.control_address}/registry/v1beta1/regions/fr-par/recycle-bin{path}",
        headers={"X-Auth-Token": stack.credentials.secret_key},
    )
    assert response.status_code == 200, response.text
    return response.json()
