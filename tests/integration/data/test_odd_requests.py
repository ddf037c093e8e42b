"""Unusual requests of clients, and faults of disks and connections."""

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.oci_client import digest_of, image_manifest
from tests.services.stack import Stack
from tests.tenants import Tenants, pushing

MakeStack = Callable[..., Stack]
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
MIB = 1024 * 1024


@pytest.mark.oci(98, 136)
def test_a_pushed_foreign_layer_belongs_to_its_manifest(tenants: Tenants) -> None:
    repository, config, layer = tenants.repository(), b"{}", os.urandom(100)
    for blob in (config, layer):
        tenants.owner.push_blob(repository, blob)
    manifest = image_manifest(config, [layer])
    manifest["layers"][0] |= {"mediaType": FOREIGN, "urls": ["https://example.com/layer"]}
    assert tenants.owner.put_manifest(repository, "1", manifest).status_code == 201
    rejected = tenants.owner.on(repository, "DELETE", f"blobs/{digest_of(layer)}")
    assert (rejected.status_code, rejected.headers["allow"]) == (405, "GET, HEAD")
    assert tenants.owner.on(repository, "GET", f"blobs/{digest_of(layer)}").content == layer


@pytest.mark.oci(98, 109, 136)
def test_a_foreign_layer_pushed_after_its_manifest_belongs_to_it_after_a_repeated_push(
    tenants: Tenants,
) -> None:
    # given a manifest pushed without its foreign layer, which clients can be configured to push
    repository, config, layer = f"{tenants.repository()}/late", b"{}", os.urandom(100)
    tenants.owner.push_blob(repository, config)
    manifest = image_manifest(config, [layer])
    manifest["layers"][0] |= {"mediaType": FOREIGN, "urls": ["https://example.com/layer"]}
    assert tenants.owner.put_manifest(repository, "1", manifest).status_code == 201
    tenants.owner.push_blob(repository, layer)
    size = _size_of(tenants, repository)

    # when the manifest is pushed again, twice
    for _ in range(2):
        assert tenants.owner.put_manifest(repository, "1", manifest).status_code == 201

    # then the layer belongs to the image, and is counted once
    rejected = tenants.owner.on(repository, "DELETE", f"blobs/{digest_of(layer)}")
    assert (rejected.status_code, rejected.headers["allow"]) == (405, "GET, HEAD")
    assert _size_of(tenants, repository) == size + len(layer)


def _size_of(tenants: Tenants, repository: str) -> int:
    name = repository.partition("/")[2]
    found = tenants.api("GET", f"/images?name={name}")["images"]
    return int(found[0]["size"])


@pytest.mark.oci(100)
def test_an_image_may_have_hundreds_of_layers(tenants: Tenants) -> None:
    repository, config = tenants.repository(), b"{}"
    layers = [b"layer %d" % number for number in range(300)]
    for blob in (config, *layers):
        tenants.owner.push_blob(repository, blob)
    for count in (300, 200, 63, 65):
        manifest = image_manifest(config, layers[:count])
        assert tenants.owner.put_manifest(repository, f"of-{count}", manifest).status_code == 201


@pytest.mark.oci(127)
def test_a_page_of_referrers_has_a_limited_size(tenants: Tenants) -> None:
    # given signatures with annotations of the maximum size
    repository, config = tenants.repository(), b"{}"
    tenants.owner.push_blob(repository, config)
    subject = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest_of(b"s"),
        "size": 1,
    }
    for number in range(20):
        long = {"number": str(number), "long": "x" * 262_000}
        manifest = image_manifest(config, [], subject=subject, annotations=long)
        assert tenants.owner.put_manifest(repository, f"s{number}", manifest).status_code == 201

    # when a client follows the links to the next pages
    pages = []
    path = f"/v2/{repository}/referrers/{subject['digest']}"
    while path:
        page = tenants.owner.call("GET", path, scope=f"repository:{repository}:pull")
        pages.append(page)
        found = re.match(r"<(.+)>", page.headers.get("link", ""))
        path = found[1] if found else ""

    # then it gets each referrer once, and no page exceeds the limit
    numbers = [each["annotations"]["number"] for page in pages for each in page.json()["manifests"]]
    assert numbers == [str(number) for number in range(20)]
    assert [len(page.json()["manifests"]) for page in pages] == [3] * 6 + [2]
    assert all(len(page.content) <= 2 * MIB for page in pages)


@pytest.mark.oci(124)
def test_a_name_without_a_namespace_has_an_empty_list_of_referrers(tenants: Tenants) -> None:
    found = httpx.get(f"http://{tenants.owner.host}/v2/ubuntu/referrers/{digest_of(b'x')}")
    assert (found.status_code, found.json()["manifests"]) == (200, [])


@pytest.mark.oci(36)
def test_a_repeated_if_none_match_header_is_one_list(tenants: Tenants) -> None:
    repository = tenants.repository(is_public=True)
    digest = tenants.owner.push_image(repository, "1", b"layer")
    lines = [("If-None-Match", '"other"'), ("If-None-Match", f'"{digest}"')]
    assert (
        httpx.get(f"http://{tenants.owner.host}/v2/{repository}/manifests/1", headers=lines).status_code
        == 304
    )


@pytest.mark.oci(42)
def test_a_range_may_have_very_large_numbers(tenants: Tenants) -> None:
    repository = tenants.repository()
    digest = tenants.owner.push_blob(repository, b"0123456789")
    rest = tenants.owner.on(repository, "GET", f"blobs/{digest}", headers={"Range": f"bytes=7-{2**63 - 1}"})
    assert (rest.status_code, rest.content) == (206, b"789")
    none = tenants.owner.on(repository, "GET", f"blobs/{digest}", headers={"Range": f"bytes={10**20}-"})
    assert (none.status_code, none.headers["content-range"]) == (416, "bytes */10")


@pytest.mark.oci(64, 67)
def test_a_chunk_that_ends_before_it_begins_is_416_with_the_offset(tenants: Tenants) -> None:
    repository = tenants.repository()
    upload = tenants.owner.start_upload(repository)
    tenants.owner.on(repository, "PATCH", upload, content=b"12345")
    rejected = tenants.owner.on(
        repository, "PATCH", upload, content=b"x", headers={"Content-Range": "10-9", "Content-Length": "1"}
    )
    assert (rejected.status_code, rejected.headers["range"]) == (416, "0-4")
    assert rejected.headers["location"].endswith(upload)


@pytest.mark.oci(152)
def test_a_catalog_scope_without_actions_grants_nothing(tenants: Tenants) -> None:
    response = tenants.owner.http.get(
        "/token", params={"scope": "registry:catalog:"}, auth=("x", tenants.owner.secret or "")
    )
    rejected = tenants.owner.http.get(
        "/v2/_catalog", headers={"Authorization": f"Bearer {response.json()['token']}"}
    )
    assert (response.status_code, rejected.status_code) == (200, 401)
    assert "insufficient_scope" in rejected.headers["www-authenticate"]


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(159)
def test_a_token_with_the_maximum_of_scopes_is_valid(tenants: Tenants) -> None:
    namespace = tenants.namespace()["name"]
    scopes = [f"repository:{namespace}/{number:03d}{'x' * 150}:pull,push" for number in range(100)]
    response = tenants.owner.http.post(
        "/token",
        data={
            "grant_type": "password",
            "username": "x",
            "password": tenants.owner.secret or "",
            "service": "registry",
            "client_id": "test",
            "scope": " ".join(scopes),
        },
    )
    token = response.json()["access_token"]
    assert tenants.owner.http.get("/v2/", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.oci(56)
@pytest.mark.parametrize("how", ["wrong", "cut"])
def test_a_failed_single_post_leaves_no_session(make_stack: MakeStack, how: str) -> None:
    stack = make_stack(REGISTRY_MAX_UPLOADS="1").start()
    with pushing(stack) as (client, name):
        for _ in range(3):
            if how == "wrong":
                params = {"digest": digest_of(b"other")}
                assert (
                    client.on(name, "POST", "blobs/uploads/", params=params, content=b"x").status_code == 400
                )
            else:
                cut_post(client.host, client.token(f"repository:{name}:pull,push,delete"), name)
        until = time.monotonic() + 10
        while client.on(name, "POST", "blobs/uploads/").status_code != 202:
            assert time.monotonic() < until
            time.sleep(0.1)


def cut_post(host: str, token: str, name: str) -> None:
    address, _, port = host.partition(":")
    with socket.create_connection((address, int(port))) as connection:
        connection.sendall(
            f"POST /v2/{name}/blobs/uploads/?digest={digest_of(b'x')} HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: 5000000\r\n\r\n".encode()
            + b"x" * 2_000_000
        )
        time.sleep(0.3)


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(17, 141)
@pytest.mark.parametrize("fault", ["gone", "short"])
def test_invariant_7_a_blob_whose_file_cannot_be_read_is_503_and_not_404(
    make_stack: MakeStack, fault: str
) -> None:
    stack = make_stack().start()
    content = os.urandom(200_000)
    with pushing(stack) as (client, name):
        digest = client.push_blob(name, content)
        (file,) = stack.state_dir.rglob(f"{digest.removeprefix('sha256:')}.*")
        if fault == "gone":
            file.rename(file.with_name("elsewhere"))
        else:
            os.truncate(file, 1000)
        rejected = client.on(name, "GET", f"blobs/{digest}")
        assert rejected.status_code == 503
        assert rejected.json()["errors"][0]["code"] == "UNAVAILABLE"
        assert "retry-after" in rejected.headers


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(48)
def test_a_blob_is_not_read_further_after_its_client_disconnected(make_stack: MakeStack) -> None:
    stack = make_stack().start()
    with pushing(stack) as (client, name):
        digest = client.push_blob(name, os.urandom(96 * MIB))
        token = client.token(f"repository:{name}:pull,push,delete")
        before = bytes_read(stack)

        # when a client requests a complete blob by a range, and disconnects after the first bytes
        address, _, port = client.host.partition(":")
        with socket.create_connection((address, int(port))) as connection:
            connection.sendall(
                f"GET /v2/{name}/blobs/{digest} HTTP/1.1\r\nHost: {client.host}\r\n"
                f"Authorization: Bearer {token}\r\nRange: bytes=0-\r\n\r\n".encode()
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 206")
        time.sleep(2)

        # then only the bytes of the buffers were read
        assert bytes_read(stack) - before < 48 * MIB


def bytes_read(stack: Stack) -> int:
    """The number of bytes that the data processes have read so far, from any source."""
    counters = [
        Path(f"/proc/{pid}/io").read_text()
        for pid, command in stack.processes().items()
        if "serve data" in command
    ]
    return sum(int(line.split()[1]) for text in counters for line in text.splitlines() if "rchar" in line)
