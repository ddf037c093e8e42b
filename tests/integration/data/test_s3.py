"""The registry with blobs in a bucket, as clients and operators use it."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.oci_client import OciClient, digest_of
from tests.services.child import ServiceError
from tests.services.minio import S3Server, running_minio
from tests.services.stack import Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.clients

MakeStack = Callable[..., Stack]
REPOSITORY = "bucket/app"
LAYER = os.urandom(12_000_000)  # more than two parts


@contextmanager
def owner_of(stack: Stack) -> Iterator[OciClient]:
    """A client of the owner of a new namespace."""
    credentials = stack.credentials
    httpx.post(
        f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces",
        headers={"X-Auth-Token": credentials.secret_key},
        json={"name": REPOSITORY.split("/")[0]},
    ).raise_for_status()
    with OciClient(credentials.registry_host, credentials.secret_key) as client:
        yield client


def test_images_can_be_pushed_and_pulled_with_ranges(minio: S3Server, make_stack: MakeStack) -> None:
    with owner_of(make_stack(REGISTRY_STORAGE_URL=minio.url()).start()) as client:
        # given a small layer and a large one
        digest = client.push_image(REPOSITORY, "1", b"small", LAYER)

        # then the registry itself sends them, completely and by range
        assert client.on(REPOSITORY, "GET", "manifests/1").headers["docker-content-digest"] == digest
        assert client.on(REPOSITORY, "GET", f"blobs/{digest_of(b'small')}").content == b"small"
        path = f"blobs/{digest_of(LAYER)}"
        whole = client.on(REPOSITORY, "GET", path)
        assert (whole.status_code, whole.content) == (200, LAYER)
        part = client.on(REPOSITORY, "GET", path, headers={"Range": "bytes=6000000-6000009"})
        assert (part.status_code, part.content) == (206, LAYER[6_000_000:6_000_010])


def test_clients_are_redirected_to_the_bucket_for_large_blobs(minio: S3Server, make_stack: MakeStack) -> None:
    with owner_of(make_stack(REGISTRY_STORAGE_URL=minio.redirecting_url()).start()) as client:
        client.push_image(REPOSITORY, "1", b"small", LAYER)

        # a small blob is sent by the registry
        assert client.on(REPOSITORY, "GET", f"blobs/{digest_of(b'small')}").content == b"small"

        # a large blob is redirected to a presigned URL, which needs no login and supports Range
        response = client.on(REPOSITORY, "GET", f"blobs/{digest_of(LAYER)}")
        assert response.status_code == 307
        assert response.headers["cache-control"] == "no-store"
        address = response.headers["location"]
        assert address.startswith(f"http://localhost:{minio.port}/")
        assert httpx.get(address).content == LAYER
        assert httpx.get(address, headers={"Range": "bytes=-5"}).content == LAYER[-5:]

        # HEAD is not redirected
        assert client.on(REPOSITORY, "HEAD", f"blobs/{digest_of(LAYER)}").status_code == 200


def test_an_upload_in_chunks_of_any_size_can_be_continued_after_a_kill(
    minio: S3Server, make_stack: MakeStack
) -> None:
    # given an upload with confirmed chunks of several sizes
    stack = make_stack(REGISTRY_STORAGE_URL=minio.url()).start()
    with owner_of(stack) as client:
        upload = client.start_upload(REPOSITORY)
        offset = 0
        for size in (1, 70_000, 7_000_000, 3):
            chunk = LAYER[offset : offset + size]
            headers = {"Content-Range": f"{offset}-{offset + size - 1}"}
            response = client.on(REPOSITORY, "PATCH", upload, content=chunk, headers=headers)
            offset += size
            assert (response.status_code, response.headers["range"]) == (202, f"0-{offset - 1}")

        # when every process of the data plane is killed
        for pid, command in sorted(stack.processes().items()):
            if "serve data" in command:
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: client.http.get("/healthz").status_code == 200)

        # then the upload has the same offset, and can be continued
        assert client.on(REPOSITORY, "GET", upload).headers["range"] == f"0-{offset - 1}"
        headers = {"Content-Range": f"{offset}-{len(LAYER) - 1}"}
        response = client.on(
            REPOSITORY,
            "PUT",
            upload,
            params={"digest": digest_of(LAYER)},
            content=LAYER[offset:],
            headers=headers,
        )
        assert response.status_code == 201, response.text
        assert client.on(REPOSITORY, "GET", f"blobs/{digest_of(LAYER)}").content == LAYER


@pytest.mark.oci(17)
def test_without_its_bucket_the_registry_responds_503_and_recovers(
    tmp_path: Path, make_stack: MakeStack
) -> None:
    # given an image, and a MinIO that was stopped
    with running_minio(tmp_path / "minio") as server:
        stack = make_stack(REGISTRY_STORAGE_URL=server.url("kept")).start()
        with owner_of(stack) as client:
            client.push_image(REPOSITORY, "1", LAYER)
    with OciClient(stack.credentials.registry_host, stack.credentials.secret_key) as client:
        # when a client pulls and pushes, then the response is 503 and names the storage
        for method, path in (("GET", f"blobs/{digest_of(LAYER)}"), ("POST", "blobs/uploads/")):
            response = client.on(REPOSITORY, method, path)
            assert (response.status_code, response.json()["errors"][0]["code"]) == (503, "UNAVAILABLE")
            assert "retry-after" in response.headers
            assert "storage" in response.json()["errors"][0]["message"]

        # and manifests, which are in the database, can be pulled
        assert client.on(REPOSITORY, "GET", "manifests/1").status_code == 200

        # when MinIO runs again, then pulls and pushes succeed
        with running_minio(tmp_path / "minio", port=server.port):
            assert client.on(REPOSITORY, "GET", f"blobs/{digest_of(LAYER)}").content == LAYER
            client.push_image(REPOSITORY, "2", b"new")


def test_no_log_and_no_error_contains_the_secret(tmp_path: Path, make_stack: MakeStack) -> None:
    # given a bucket that rejects the configured key
    with running_minio(tmp_path / "minio") as server:
        url = re.sub(r":[^:/@]+@", ":not-the-secret-of-anyone@", server.url())
        stack = make_stack(REGISTRY_STORAGE_URL=url)

        # when the registry starts, then it fails with an error without the key
        with pytest.raises(ServiceError, match="REGISTRY_STORAGE_URL"):
            stack.start()
        assert "not-the-secret-of-anyone" not in stack.log
