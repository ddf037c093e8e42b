"""Uploads to the data plane, by usual and by faulty clients (OCI 49-86)."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx
import pytest

from tests.oci_client import OciClient, digest_of, image_manifest
from tests.tenants import Tenants


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def put(client: OciClient, repository: str, upload: str, data: bytes, digest: str) -> int:
    return client.on(repository, "PUT", upload, params={"digest": digest}, content=data).status_code


@pytest.mark.oci(55)
def test_one_put_after_a_post_stores_a_blob(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(5000)
    response = tenants.owner.on(
        repository,
        "PUT",
        tenants.owner.start_upload(repository),
        params={"digest": digest_of(data)},
        content=data,
    )
    assert response.status_code == 201
    assert response.headers["location"] == f"/v2/{repository}/blobs/{digest_of(data)}"
    found = tenants.owner.on(repository, "GET", f"blobs/{digest_of(data)}")
    assert found.content == data
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.headers["docker-content-digest"] == digest_of(data)


@pytest.mark.oci(24, 56)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_single_post_stores_a_blob_under_either_algorithm(
    tenants: Tenants, algorithm: str, *, announced: bool
) -> None:
    repository, data = tenants.repository(), os.urandom(3000)
    digest = digest_of(data, algorithm)
    params = {"digest": digest, **({"digest-algorithm": algorithm} if announced else {})}
    response = tenants.owner.on(repository, "POST", "blobs/uploads/", params=params, content=data)
    assert response.status_code == 201
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest}").headers["content-length"] == "3000"


@pytest.mark.oci(60, 62)
def test_a_streamed_patch_of_unknown_length_and_an_empty_put(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(3_000_000)
    upload = tenants.owner.start_upload(repository)
    response = tenants.owner.on(repository, "PATCH", upload, content=pieces(data, 70_000))
    assert response.status_code == 202
    assert response.headers["range"] == "0-2999999"
    assert put(tenants.owner, repository, upload, b"", digest_of(data)) == 201
    assert tenants.owner.on(repository, "GET", f"blobs/{digest_of(data)}").content == data


@pytest.mark.oci(61, 63, 64, 65, 66, 68)
def test_chunks_in_order_are_appended_and_others_are_416_with_the_offset(tenants: Tenants) -> None:
    # given an upload with one chunk
    repository, data = tenants.repository(), os.urandom(3000)
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    assert _patch(client, repository, upload, data[:1000], "0-999").headers["range"] == "0-999"

    # when a chunk has a wrong offset, or is repeated
    for content_range in ("0-999", "1001-2000", "2000-2999"):
        response = _patch(client, repository, upload, data[1000:2000], content_range)
        # then nothing is written, and the response has the offset of the upload
        assert response.status_code == 416
        assert response.headers["range"] == "0-999"
        assert response.headers["location"].endswith(upload)
    assert client.on(repository, "GET", upload).headers["range"] == "0-999"

    # and chunks with the correct offset complete it, the last one in the closing PUT
    assert _patch(client, repository, upload, data[1000:2000], "bytes 1000-1999/3000").status_code == 202
    wrong = client.on(
        repository,
        "PUT",
        upload,
        params={"digest": digest_of(data)},
        content=data[2000:],
        headers={"Content-Range": "0-999"},
    )
    assert wrong.status_code == 416
    response = client.on(
        repository,
        "PUT",
        upload,
        params={"digest": digest_of(data)},
        content=data[2000:],
        headers={"Content-Range": "2000-2999"},
    )
    assert response.status_code == 201


def _patch(
    client: OciClient, repository: str, upload: str, data: bytes, content_range: str
) -> httpx.Response:
    return client.on(repository, "PATCH", upload, content=data, headers={"Content-Range": content_range})


@pytest.mark.oci(67)
@pytest.mark.parametrize(
    ("content_range", "status", "code"),
    [
        ("0-5", 400, "SIZE_INVALID"),
        ("9-0", 416, "RANGE_INVALID"),
        ("nonsense", 400, "RANGE_INVALID"),
        ("-5", 400, "RANGE_INVALID"),
    ],
)
def test_an_invalid_content_range_is_rejected(
    tenants: Tenants, content_range: str, status: int, code: str
) -> None:
    repository = tenants.repository()
    response = _patch(
        tenants.owner, repository, tenants.owner.start_upload(repository), b"0123456789", content_range
    )
    assert (response.status_code, response.json()["errors"][0]["code"]) == (status, code)


@pytest.mark.oci(57, 72)
def test_a_wrong_digest_stores_nothing_and_the_session_can_be_used_again(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(2000)
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    assert put(client, repository, upload, data, digest_of(b"other")) == 400
    assert client.on(repository, "HEAD", f"blobs/{digest_of(data)}").status_code == 404
    assert put(client, repository, upload, data, digest_of(data)) == 201


@pytest.mark.oci(57)
@pytest.mark.parametrize("digest", [None, "", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_a_missing_or_malformed_digest_is_rejected(tenants: Tenants, digest: str | None) -> None:
    repository = tenants.repository()
    upload = tenants.owner.start_upload(repository)
    params = {} if digest is None else {"digest": digest}
    response = tenants.owner.on(repository, "PUT", upload, params=params, content=b"x")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert tenants.owner.on(repository, "GET", upload).status_code == 204


@pytest.mark.oci(47)
def test_an_empty_blob_can_be_pushed_and_pulled(tenants: Tenants) -> None:
    repository = tenants.repository()
    digest = tenants.owner.push_blob(repository, b"")
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest}").headers["content-length"] == "0"
    assert tenants.owner.on(repository, "GET", f"blobs/{digest}").content == b""


@pytest.mark.oci(70, 71)
def test_a_cancelled_upload_is_unknown_for_every_method(tenants: Tenants) -> None:
    repository = tenants.repository()
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    client.on(repository, "PATCH", upload, content=b"abc")
    assert client.on(repository, "DELETE", upload).status_code == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        params = {"digest": digest_of(b"abc")} if method == "PUT" else {}
        response = client.on(repository, method, upload, params=params)
        assert (response.status_code, response.json()["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.oci(70)
@pytest.mark.parametrize("session", ["not-a-uuid", "00000000-0000-4000-8000-000000000000"])
def test_an_unknown_session_is_unknown(tenants: Tenants, session: str) -> None:
    repository = tenants.repository()
    tenants.owner.start_upload(repository)
    response = tenants.owner.on(repository, "PATCH", f"blobs/uploads/{session}", content=b"x")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.oci(52)
def test_a_session_belongs_to_its_repository(tenants: Tenants) -> None:
    first, second = tenants.repository(), tenants.repository()
    upload = tenants.owner.start_upload(first)
    tenants.owner.start_upload(second)
    assert tenants.owner.on(second, "PATCH", upload, content=b"x").status_code == 404
    assert tenants.owner.on(first, "GET", upload).status_code == 204


@pytest.mark.oci(166)
def test_a_closing_put_whose_response_was_lost_can_be_repeated(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(100)
    upload = tenants.owner.start_upload(repository)
    assert put(tenants.owner, repository, upload, data, digest_of(data)) == 201
    assert put(tenants.owner, repository, upload, data, digest_of(data)) == 201


@pytest.mark.oci(75)
def test_a_concurrent_write_is_416_with_the_offset(tenants: Tenants) -> None:
    # given a request that has sent half of its body and waits
    repository = tenants.repository()
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    release = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"a" * 2_000_000
        release.wait(30)
        yield b"b"

    with OciClient(client.host, client.secret) as other:
        slow = threading.Thread(target=lambda: other.on(repository, "PATCH", upload, content=slowly()))
        slow.start()
        _wait_until(lambda: client.on(repository, "GET", upload).headers["range"] != "0-0")

        # when another request writes to the same session
        response = client.on(repository, "PATCH", upload, content=b"c")
        release.set()
        slow.join()

    # then it is rejected, and the bytes of the first request are complete
    assert response.status_code == 416
    assert "range" in response.headers
    assert client.on(repository, "GET", upload).headers["range"] == "0-2000000"


def test_a_concurrent_write_is_rejected_while_a_small_body_is_incomplete(tenants: Tenants) -> None:
    repository, client = tenants.repository(), tenants.owner
    token = client.token(f"repository:{repository}:pull,push,delete")
    # Only a write could show whether the first request has begun. So the test waits longer each time that
    # the second one was faster.
    for head_start in (0.2, 1, 5, 20):
        # given a request that announces 100 bytes, sends 50 and waits
        upload = client.start_upload(repository)
        with _sending(client.host, f"/v2/{repository}/{upload}", token, b"a" * 50, announced=100) as slow:
            # when another request writes to the same session, and then the first one continues
            time.sleep(head_start)
            second = client.on(repository, "PATCH", upload, content=b"c")
            slow.sendall(b"b" * 50)
            first = slow.recv(1000)
        if second.status_code == 416:
            break

    # then only the bytes of the first one are there
    assert second.status_code == 416
    assert first.startswith(b"HTTP/1.1 202 ")
    assert client.on(repository, "GET", upload).headers["range"] == "0-99"


def test_bytes_of_an_interrupted_small_body_are_stored(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(1000)
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    token = client.token(f"repository:{repository}:pull,push,delete")
    _send_part(client.host, f"/v2/{repository}/{upload}", token, data[:400], announced=len(data))
    _wait_until(lambda: client.on(repository, "GET", upload).headers["range"] == "0-399")
    rest = {"Content-Range": "400-999"}
    _wait_until(
        lambda: client.on(repository, "PATCH", upload, content=data[400:], headers=rest).status_code == 202
    )
    assert put(client, repository, upload, b"", digest_of(data)) == 201


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.oci(73)
def test_bytes_of_an_interrupted_body_are_stored(tenants: Tenants) -> None:
    # given a client that announces 5 MB, sends 2 MB and disconnects
    repository, data = tenants.repository(), os.urandom(5_000_000)
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    token = client.token(f"repository:{repository}:pull,push,delete")
    _send_part(client.host, f"/v2/{repository}/{upload}", token, data[:2_000_000], announced=len(data))

    # when it reconnects and requests the offset
    _wait_until(lambda: client.on(repository, "PATCH", upload, content=b"").status_code == 202)
    offset = int(client.on(repository, "GET", upload).headers["range"].split("-")[1]) + 1
    assert 1_000_000 <= offset <= 2_000_000

    # then it can continue the upload from there
    response = _patch(client, repository, upload, data[offset:], f"{offset}-{len(data) - 1}")
    assert response.status_code == 202
    assert put(client, repository, upload, b"", digest_of(data)) == 201


def _send_part(host: str, path: str, token: str, part: bytes, *, announced: int) -> None:
    with _sending(host, path, token, part, announced=announced):
        time.sleep(0.3)


@contextmanager
def _sending(host: str, path: str, token: str, part: bytes, *, announced: int) -> Iterator[socket.socket]:
    """A connection on which the head of a PATCH and the first bytes of its body were sent."""
    name, port = host.split(":")
    with socket.create_connection((name, int(port)), timeout=60) as connection:
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {announced}\r\n\r\n"
        )
        connection.sendall(head.encode() + part)
        yield connection


@pytest.mark.oci(58)
def test_an_interrupted_monolithic_put_commits_nothing(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(3_000_000)
    client, upload = tenants.owner, tenants.owner.start_upload(repository)
    token = client.token(f"repository:{repository}:pull,push,delete")
    path = f"/v2/{repository}/{upload}?digest={digest_of(data[:1_000_000])}"
    name, port = client.host.split(":")
    with socket.create_connection((name, int(port))) as connection:
        head = (
            f"PUT {path} HTTP/1.1\r\nHost: {client.host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        connection.sendall(head.encode() + data[:1_000_000])
        time.sleep(0.3)
    _wait_until(lambda: client.on(repository, "PATCH", upload, content=b"").status_code == 202)
    assert client.on(repository, "HEAD", f"blobs/{digest_of(data[:1_000_000])}").status_code == 404


@pytest.mark.oci(80, 82)
@pytest.mark.parametrize("named", [True, False])
def test_a_blob_is_mounted_from_an_image_that_the_caller_may_pull(tenants: Tenants, *, named: bool) -> None:
    source, target = tenants.repository(), tenants.repository()
    digest = tenants.owner.push_blob(source, os.urandom(100))
    params = {"mount": digest, **({"from": source} if named else {})}
    scope = f"repository:{target}:pull,push repository:{source}:pull"
    response = tenants.owner.call("POST", f"/v2/{target}/blobs/uploads/", scope=scope, params=params)
    assert response.status_code == 201
    assert response.headers["location"] == f"/v2/{target}/blobs/{digest}"
    assert tenants.owner.on(target, "HEAD", f"blobs/{digest}").status_code == 200


@pytest.mark.oci(81, 83)
def test_a_mount_requires_the_right_to_pull_the_blob(tenants: Tenants) -> None:
    # given a private blob of an organization, and a stranger with a namespace
    secret = tenants.repository()
    digest = tenants.owner.push_blob(secret, os.urandom(100))
    tenants.owner.push_image(secret, "latest", b"x")
    own = tenants.strangers_repository()
    unknown = digest_of(os.urandom(10))

    # when the stranger mounts it, with or without its source, or a blob that does not exist
    responses = [
        tenants.stranger.on(own, "POST", "blobs/uploads/", params=params)
        for params in (
            {"mount": digest, "from": secret},
            {"mount": digest},
            {"mount": unknown, "from": secret},
            {"mount": unknown},
            {"mount": digest, "from": "No/Such Name"},
        )
    ]

    # then each response is 202 with an upload
    assert [response.status_code for response in responses] == [HTTPStatus.ACCEPTED] * 5
    assert tenants.stranger.on(own, "HEAD", f"blobs/{digest}").status_code == 404


@pytest.mark.oci(26)
def test_content_belongs_to_its_repository(tenants: Tenants) -> None:
    here, there = tenants.repository(), tenants.repository()
    digest = tenants.owner.push_blob(here, os.urandom(50))
    tenants.owner.push_blob(there, b"something")
    assert tenants.owner.on(there, "GET", f"blobs/{digest}").status_code == 404
    manifest = image_manifest(b"something", [])
    manifest["config"]["digest"] = digest
    assert tenants.owner.put_manifest(there, "x", manifest).status_code == 400


@pytest.mark.oci(165)
def test_concurrent_uploads_of_the_same_content_succeed_and_store_one_copy(tenants: Tenants) -> None:
    first, second = tenants.repository(), tenants.repository()
    data = os.urandom(2_000_000)
    digest = digest_of(data)
    outcomes: list[int] = []
    uploads = [
        (repository, tenants.owner.start_upload(repository))
        for repository in (first, second)
        for _ in range(4)
    ]

    def finish(repository: str, upload: str) -> None:
        with OciClient(tenants.owner.host, tenants.owner.secret) as client:
            outcomes.append(put(client, repository, upload, data, digest))

    threads = [threading.Thread(target=finish, args=upload) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [201] * 8
    for repository in (first, second):
        assert (
            hashlib.sha256(tenants.owner.on(repository, "GET", f"blobs/{digest}").content).hexdigest()
            in digest
        )
