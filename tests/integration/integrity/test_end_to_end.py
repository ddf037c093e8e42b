"""A running product: damaged content answers 404 on every path to it, and a client's push heals it."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from minio import Minio

from registry_data.storage.s3.address import Address
from registry_data.storage.s3.state import blob_object
from tests.integration.standalone.product import api, row
from tests.oci_client import OciClient, digest_of
from tests.services.stack import Stack
from tests.services.waiting import wait_until

if TYPE_CHECKING:
    from tests.services.minio import S3Server

pytestmark = pytest.mark.slow
MakeStack = Callable[..., Stack]


@pytest.fixture(params=["disk", pytest.param("minio", marks=pytest.mark.clients)])
def stack(request: pytest.FixtureRequest, make_stack: MakeStack) -> Stack:
    """A product that scrubs only by hand, on each storage."""
    settings = {"REGISTRY_SCRUB_PERIOD": "0", "REGISTRY_RECONCILE_PERIOD": "0"}
    if request.param == "disk":
        return make_stack(**settings)
    server: S3Server = request.getfixturevalue("minio")
    return make_stack(**settings, REGISTRY_STORAGE_URL=server.url())


@contextmanager
def team(stack: Stack) -> Iterator[OciClient]:
    with stack:
        api(stack, "POST", "/namespaces", name="team")
        credentials = stack.credentials
        with OciClient(credentials.registry_host, credentials.secret_key) as client:
            yield client


def overwrite(stack: Stack, digest: str, content: bytes | None) -> None:
    """Replace the stored bytes of a blob behind the product's back; None deletes them."""
    key = str(row(stack, f"SELECT storage_key FROM catalog_blob WHERE digest = '{digest}'")[0])
    if url := stack.environment.get("REGISTRY_STORAGE_URL"):
        address, name = Address.parse(url), blob_object(key.rpartition(".")[2])
        client = Minio(address.endpoint, address.access_key, address.secret_key, secure=False)
        if content is None:
            client.remove_object(address.bucket, name)
        else:
            client.put_object(address.bucket, name, BytesIO(content), len(content))
        return
    path = Path(stack.state_dir) / "storage" / key
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def is_absent(oci: OciClient, path: str) -> bool:
    return oci.on("team/app", "HEAD", path).status_code == 404


def scrub(stack: Stack, *digests: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.manage("scrub", "--json", *digests).stdout)
    return found


def test_damaged_content_answers_404_until_it_is_pushed_again(stack: Stack) -> None:
    with team(stack) as oci:
        # given an image whose small layer is in the caches of the data plane, and other content in its place
        small, large, gone = os.urandom(1000), os.urandom(300_000), os.urandom(2000)
        oci.push_image("team/app", "latest", small, large, gone)
        for layer in (small, large, gone):
            assert oci.on("team/app", "GET", f"blobs/{digest_of(layer)}").content == layer
        overwrite(stack, digest_of(small), b"x" * len(small))
        overwrite(stack, digest_of(large), large[:-1])
        overwrite(stack, digest_of(gone), None)

        # when the content is scrubbed, then every path to it answers 404, and the manifest can be pulled
        report = scrub(stack)
        assert {fault["digest"] for fault in report["damaged"]} == {digest_of(small), digest_of(large)}
        assert [fault["digest"] for fault in report["missing"]] == [digest_of(gone)]
        assert report["missing"][0]["images"] == ["team/app"]
        for layer in (small, large, gone):
            path = f"blobs/{digest_of(layer)}"
            wait_until(partial(is_absent, oci, path), timeout=2)
            assert oci.on("team/app", "GET", path).status_code == 404
            assert oci.on("team/app", "GET", path, headers={"Range": "bytes=0-9"}).status_code == 404
            mount = {"mount": digest_of(layer), "from": "team/app"}
            assert oci.on("team/other", "POST", "blobs/uploads/", params=mount).status_code == 202
        manifest = oci.on("team/app", "GET", "manifests/latest")
        assert manifest.status_code == 200
        again = oci.on(
            "team/app",
            "PUT",
            "manifests/again",
            content=manifest.content,
            headers={"Content-Type": manifest.headers["content-type"]},
        )
        assert again.status_code == 400, again.text
        assert {error["code"] for error in again.json()["errors"]} == {"MANIFEST_BLOB_UNKNOWN"}

        # when a client pushes as usual: HEAD, upload whole or in chunks, manifest; then everything is back
        oci.push_blob("team/app", small)
        upload = oci.start_upload("team/app")
        oci.on("team/app", "PATCH", upload, content=large[:100_000])
        location = oci.on("team/app", "PATCH", upload, content=large[100_000:]).headers["location"]
        path = location.partition("/v2/team/app/")[2]
        assert oci.on("team/app", "PUT", path, params={"digest": digest_of(large)}).status_code == 201
        oci.push_image("team/app", "again", small, large, gone)
        for layer in (small, large, gone):
            assert oci.on("team/app", "GET", f"blobs/{digest_of(layer)}").content == layer
        assert {fault["state"] for fault in scrub(stack)["damaged"]} == {"healed"}


def test_a_download_that_finds_broken_content_sends_none_of_it_and_has_it_checked(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(REGISTRY_SCRUB_PERIOD="0", REGISTRY_RECONCILE_PERIOD="0")
    with team(stack) as oci:
        changed, cut, gone = os.urandom(1000), os.urandom(300_000), os.urandom(300_000)
        oci.push_image("team/app", "latest", changed, cut, gone)
        overwrite(stack, digest_of(changed), changed[::-1])
        overwrite(stack, digest_of(cut), cut[:-1])
        overwrite(stack, digest_of(gone), None)
        paths = [f"blobs/{digest_of(layer)}" for layer in (changed, cut, gone)]
        for path in paths:
            assert oci.on("team/app", "GET", path).status_code == 503
            assert oci.on("team/app", "HEAD", path).status_code == 200
        for path in paths:
            wait_until(partial(is_absent, oci, path), timeout=40)
        oci.push_image("team/app", "latest", changed, cut, gone)
        for layer, path in zip((changed, cut, gone), paths, strict=True):
            assert oci.on("team/app", "GET", path).content == layer


def test_the_worker_scrubs_within_the_period(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_SCRUB_PERIOD="6")
    with team(stack) as oci:
        layer = os.urandom(100_000)
        oci.push_image("team/app", "latest", layer)
        path = f"blobs/{digest_of(layer)}"
        overwrite(stack, digest_of(layer), layer[::-1])
        wait_until(lambda: is_absent(oci, path), timeout=30)
        oci.push_image("team/app", "latest", layer)
        assert oci.on("team/app", "GET", path).content == layer
