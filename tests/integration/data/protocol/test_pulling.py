"""Pulls of manifests and blobs (OCI 30-48)."""

import os
from collections.abc import Callable

import httpx
import pytest

from tests.integration.data.protocol.conftest import Pushed
from tests.integration.data.protocol.wire import PER_RESPONSE, Wire
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, digest_of
from tests.tenants import LAYER, Tenants

Connect = Callable[..., Wire]
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@pytest.mark.oci(33, 34)
@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["*/*"],
        [OCI_MANIFEST],
        [SCHEMA_1],
        ["text/html"],
        ["", "nonsense", ";;q=x"],
        [f"{SCHEMA_1}, {DOCKER_MANIFEST}, {OCI_INDEX}, {OCI_MANIFEST}, */*"],
        [f"{OCI_MANIFEST};q=0, {OCI_INDEX};q=1.0"],
        [SCHEMA_1, DOCKER_MANIFEST, "application/json", OCI_INDEX, OCI_MANIFEST, "*/*;q=0.1"],
    ],
)
def test_the_stored_manifest_is_sent_for_any_accept_header(
    tenants: Tenants, image: Pushed, wire: Connect, lines: list[str]
) -> None:
    stored = tenants.owner.on(image.name, "GET", f"manifests/{image.manifest}").content
    connection = wire()
    for reference in ("latest", image.manifest):
        accept = [f"Accept: {line}" for line in lines]
        found = connection.request("GET", f"{image.base}/manifests/{reference}", *accept)
        assert (found.status, found.body) == (200, stored)
        assert found.headers["Content-Type"] == OCI_MANIFEST
        head = connection.request("HEAD", f"{image.base}/manifests/{reference}", *accept)
        assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image.manifest)


@pytest.mark.oci(34)
def test_an_index_is_sent_as_an_index_when_an_image_is_accepted(tenants: Tenants) -> None:
    repository = tenants.repository()
    child = tenants.owner.push_image(repository, "child", LAYER)
    size = int(tenants.owner.on(repository, "HEAD", "manifests/child").headers["content-length"])
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": child,
        "size": size,
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    assert tenants.owner.put_manifest(repository, "index", index).status_code == 201
    found = tenants.owner.on(repository, "GET", "manifests/index", headers={"Accept": OCI_MANIFEST})
    assert (found.headers["content-type"], found.json()) == (OCI_INDEX, index)


@pytest.mark.oci(31, 32)
def test_get_and_head_of_a_manifest_have_the_same_headers(image: Pushed, wire: Connect) -> None:
    connection = wire()
    for reference in ("latest", image.manifest):
        path = f"{image.base}/manifests/{reference}"
        found, head = connection.request("GET", path), connection.request("HEAD", path)
        assert (found.status, head.status, head.body) == (200, 200, b"")
        assert dict(found.headers) | PER_RESPONSE == dict(head.headers) | PER_RESPONSE
        assert found.headers["Content-Type"] == OCI_MANIFEST
        assert found.headers["Content-Length"] == str(len(found.body))
        assert found.headers["Docker-Content-Digest"] == image.manifest


@pytest.mark.oci(35, 38, 41)
def test_missing_content_is_404_for_a_pusher_before_and_after_the_first_push(
    tenants: Tenants, image: Pushed, wire: Connect
) -> None:
    connection, nothing = wire(), digest_of(os.urandom(9))
    for repository, code in ((tenants.repository(), "NAME_UNKNOWN"), (image.name, "MANIFEST_UNKNOWN")):
        for reference in ("none", nothing):
            path = f"/v2/{repository}/manifests/{reference}"
            assert connection.request("HEAD", path).status == 404
            missing = connection.request("GET", path)
            assert (missing.status, missing.codes) == (404, [code])
        # containerd then requests the digest of the manifest as a blob
        for digest in (nothing, image.manifest):
            path = f"/v2/{repository}/blobs/{digest}"
            assert connection.request("HEAD", path).status == 404
            missing = connection.request("GET", path)
            assert (missing.status, missing.codes) == (404, ["BLOB_UNKNOWN"])


@pytest.mark.oci(35)
def test_missing_content_is_404_for_the_token_of_a_pusher_too(tenants: Tenants) -> None:
    repository = tenants.repository()
    scope = f"repository:{repository}:pull,push"
    for path in ("manifests/latest", f"manifests/{digest_of(b'')}", f"blobs/{digest_of(b'')}"):
        response = tenants.owner.call("HEAD", f"/v2/{repository}/{path}", scope=scope)
        assert (response.status_code, response.content) == (404, b"")


@pytest.mark.oci(36, 39)
def test_digests_are_cacheable_and_tags_must_be_revalidated(image: Pushed, wire: Connect) -> None:
    connection = wire()
    immutable = "private, max-age=31536000, immutable"
    for path, policy, digest in (
        ("manifests/latest", "private, no-cache", image.manifest),
        (f"manifests/{image.manifest}", immutable, image.manifest),
        (f"blobs/{image.layer}", immutable, image.layer),
    ):
        response = connection.request("GET", f"{image.base}/{path}")
        assert response.headers["Cache-Control"] == policy
        assert response.headers["ETag"] == f'"{digest}"'


@pytest.mark.oci(36, 46)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_304_has_the_entity_tag_and_no_body(image: Pushed, wire: Connect, method: str) -> None:
    connection = wire()
    for path, digest in (
        ("manifests/latest", image.manifest),
        (f"manifests/{image.manifest}", image.manifest),
        (f"blobs/{image.layer}", image.layer),
    ):
        for condition in (f'"{digest}"', digest, f'W/"{digest}"', f'"x", "{digest}"', "*"):
            response = connection.request(method, f"{image.base}/{path}", f"If-None-Match: {condition}")
            assert (response.status, response.body) == (304, b"")
            assert response.headers["ETag"] == f'"{digest}"'
            assert response.headers["Docker-Content-Digest"] == digest
        other = connection.request(method, f"{image.base}/{path}", f'If-None-Match: "{digest_of(b"")}"')
        assert other.status == 200


@pytest.mark.oci(37)
@pytest.mark.parametrize("value", ["bytes=0-9", "bytes=99999999-", "bytes=5-1", "lines=1", "bytes=0-1,3-4"])
def test_a_range_on_a_manifest_is_ignored(image: Pushed, wire: Connect, value: str) -> None:
    response = wire().request("GET", f"{image.base}/manifests/latest", f"Range: {value}")
    assert response.status == 200
    assert digest_of(response.body) == image.manifest


@pytest.mark.oci(39, 40)
def test_get_and_head_of_a_blob_have_the_same_headers(image: Pushed, wire: Connect) -> None:
    connection, path = wire(), f"{image.base}/blobs/{image.layer}"
    found, head = connection.request("GET", path), connection.request("HEAD", path)
    assert (found.status, found.body, head.status, head.body) == (200, LAYER, 200, b"")
    assert dict(found.headers) | PER_RESPONSE == dict(head.headers) | PER_RESPONSE
    assert found.headers["Content-Length"] == str(len(LAYER))
    assert found.headers["Content-Type"] == "application/octet-stream"
    assert found.headers["Docker-Content-Digest"] == image.layer
    assert found.headers["Accept-Ranges"] == "bytes"


@pytest.mark.oci(43)
@pytest.mark.parametrize("value", ["bytes=5000-10000", "bytes=9-0", "bytes=-0", f"bytes={10**17}-"])
def test_a_416_is_a_complete_response_on_a_persistent_connection(
    image: Pushed, wire: Connect, value: str
) -> None:
    connection = wire()
    response = connection.request("GET", f"{image.base}/blobs/{image.layer}", f"Range: {value}")
    assert (response.status, response.codes) == (416, ["RANGE_INVALID"])
    assert response.headers["Content-Range"] == f"bytes */{len(LAYER)}"
    assert response.headers["Content-Length"] == str(len(response.body))
    assert connection.request("GET", f"{image.base}/blobs/{image.layer}").body == LAYER


@pytest.mark.oci(42, 44)
def test_an_interrupted_download_can_be_resumed(tenants: Tenants, wire: Connect) -> None:
    # given a client that loses its connection after 100,000 bytes of 3 MB
    repository, data = tenants.repository(), os.urandom(3_000_000)
    digest = tenants.owner.push_blob(repository, data)
    got = b""
    with tenants.owner.stream(repository, f"blobs/{digest}") as response:
        for piece in response.iter_raw(100_000):
            got += piece
            break

    # when it requests the rest on two connections at once, as newer containerd does
    middle = 1_500_000
    path = f"/v2/{repository}/blobs/{digest}"
    parts = [
        wire().request("GET", path, f"Range: bytes={start}-{stop}")
        for start, stop in ((len(got), middle - 1), (middle, ""))
    ]

    # then all parts together are the blob
    assert [part.status for part in parts] == [206, 206]
    assert parts[1].headers["Content-Range"] == f"bytes {middle}-{len(data) - 1}/{len(data)}"
    assert got + parts[0].body + parts[1].body == data


@pytest.mark.oci(46)
def test_if_range_applies_to_the_same_entity_tag_only(image: Pushed, wire: Connect) -> None:
    connection, path = wire(), f"{image.base}/blobs/{image.layer}"
    same = connection.request("GET", path, "Range: bytes=0-3", f'If-Range: "{image.layer}"')
    assert (same.status, same.body) == (206, LAYER[:4])
    weak = (f'W/"{image.layer}"', "*", f'"{image.config}", "{image.layer}"')
    for other in (f'"{image.config}"', "Wed, 21 Oct 2026 07:28:00 GMT", *weak):
        whole = connection.request("GET", path, "Range: bytes=0-3", f"If-Range: {other}")
        assert (whole.status, whole.body) == (200, LAYER)


@pytest.mark.oci(47)
@pytest.mark.parametrize("how", ["post", "put", "patch"])
def test_an_empty_blob_can_be_pushed_pulled_and_deleted(tenants: Tenants, how: str) -> None:
    repository, digest, client = tenants.repository(), digest_of(b""), tenants.owner
    if how == "post":
        response = client.on(repository, "POST", "blobs/uploads/", params={"digest": digest}, content=b"")
    else:
        upload = client.start_upload(repository)
        if how == "patch":
            assert client.on(repository, "PATCH", upload, content=b"").status_code == 202
        response = client.on(repository, "PUT", upload, params={"digest": digest}, content=b"")
    assert response.status_code == 201
    head = client.on(repository, "HEAD", f"blobs/{digest}")
    assert (head.status_code, head.headers["content-length"]) == (200, "0")
    found = client.on(repository, "GET", f"blobs/{digest}", headers={"Range": "bytes=0-"})
    assert (found.status_code, found.content) == (200, b"")
    assert client.on(repository, "DELETE", f"blobs/{digest}").status_code == 202
    assert client.on(repository, "HEAD", f"blobs/{digest}").status_code == 404


@pytest.mark.oci(48)
def test_many_slow_readers_of_large_blobs_do_not_block_others(tenants: Tenants) -> None:
    # given more clients in the middle of a download than the registry has threads
    repository, data = tenants.repository(), os.urandom(8_000_000)
    digest = tenants.owner.push_blob(repository, data)
    token = tenants.owner.token(f"repository:{repository}:pull,push,delete")
    headers = {"Authorization": f"Bearer {token}"}
    path = f"http://{tenants.owner.host}/v2/{repository}/blobs/{digest}"
    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=100)) as client:
        slow = [
            client.send(client.build_request("GET", path, headers=headers | more), stream=True)
            for more in ({}, {"Range": "bytes=1-"})
            for _ in range(20)
        ]
        # then others are served meanwhile, and finally the slow ones
        assert tenants.owner.on(repository, "GET", f"blobs/{digest}").content == data
        assert digest_of(slow[0].read()) == digest
        assert slow[-1].read() == data[1:]
        for response in slow:
            response.close()
