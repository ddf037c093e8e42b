"""Connections and bodies of HTTP/1.1 (OCI 1-5)."""

import json
import os
from collections.abc import Callable

import pytest

from tests.integration.data.protocol.conftest import CONFIG, Pushed
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OCI_MANIFEST, digest_of, image_manifest
from tests.tenants import LAYER, Tenants

pytestmark = pytest.mark.only_on("sqlite")  # HTTP, no SQL
MIB = 1024 * 1024
Connect = Callable[..., Wire]


@pytest.mark.oci(1)
def test_a_connection_is_persistent_for_any_number_of_requests(image: Pushed, wire: Connect) -> None:
    connection = wire()
    for _ in range(3):
        assert connection.request("GET", f"{image.base}/manifests/latest").status == 200
        assert connection.request("HEAD", f"{image.base}/blobs/{image.layer}").status == 200
        assert connection.request("GET", f"{image.base}/blobs/{image.layer}").body == LAYER
        assert connection.request("GET", f"{image.base}/manifests/none").status == 404


@pytest.mark.oci(1)
def test_connection_close_is_honoured_after_the_response(image: Pushed, wire: Connect) -> None:
    connection = wire()
    response = connection.request("GET", f"{image.base}/blobs/{image.layer}", "Connection: close")
    assert (response.status, response.body) == (200, LAYER)
    assert connection.is_over()


@pytest.mark.oci(2, 62)
@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
def test_the_body_of_an_upload_may_be_chunked(tenants: Tenants, wire: Connect, method: str) -> None:
    # given bytes in pieces of odd sizes, and an upload
    repository, pieces = tenants.repository(), [os.urandom(size) for size in (1, 70_000, 3, 2_000_001)]
    digest = digest_of(b"".join(pieces))
    uploads, connection = f"/v2/{repository}/blobs/uploads/", wire()
    if method != "POST":
        uploads = connection.request("POST", uploads, body=b"").headers["Location"]

    # when they are sent as chunks
    query = "" if method == "PATCH" else f"?digest={digest}"
    response = connection.in_chunks(method, uploads + query, pieces=pieces)

    # then all of them are stored
    assert response.status == (202 if method == "PATCH" else 201)
    if method == "PATCH":
        assert response.headers["Range"] == "0-2070004"
        assert connection.request("PUT", f"{uploads}?digest={digest}", body=b"").status == 201
    assert connection.request("GET", f"/v2/{repository}/blobs/{digest}").body == b"".join(pieces)


@pytest.mark.oci(2)
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_the_body_of_a_manifest_may_be_chunked(tenants: Tenants, wire: Connect, by: str) -> None:
    repository = tenants.repository()
    tenants.owner.push_blob(repository, CONFIG)
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    reference = digest_of(body) if by == "digest" else "chunked"
    pieces = [body[:1], body[1:100], body[100:]]
    response = wire().in_chunks(
        "PUT", f"/v2/{repository}/manifests/{reference}", f"Content-Type: {OCI_MANIFEST}", pieces=pieces
    )
    assert (response.status, response.headers["Docker-Content-Digest"]) == (201, digest_of(body))
    assert tenants.owner.on(repository, "GET", f"manifests/{reference}").content == body


@pytest.mark.oci(3)
@pytest.mark.parametrize("accepted", ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "br, *"])
def test_content_is_never_compressed(tenants: Tenants, image: Pushed, wire: Connect, accepted: str) -> None:
    manifest = tenants.owner.on(image.name, "GET", "manifests/latest").content
    connection, header = wire(), f"Accept-Encoding: {accepted}"
    for path, content in (
        ("manifests/latest", manifest),
        (f"blobs/{image.layer}", LAYER),
        (f"referrers/{image.manifest}", None),
    ):
        response = connection.request("GET", f"{image.base}/{path}", header)
        assert "Content-Encoding" not in response.headers
        assert response.headers["Content-Length"] == str(len(response.body))
        assert content in (None, response.body)


ERRORS = {
    "anonymous": ("PUT", "manifests/x", 401, "UNAUTHORIZED"),
    "wrong": ("PUT", "manifests/x", 401, "UNAUTHORIZED"),
    "reader": ("PATCH", "blobs/uploads/{upload}", 403, "DENIED"),
    "owner": ("PATCH", "blobs/uploads/00000000-0000-4000-8000-000000000000", 404, "BLOB_UPLOAD_UNKNOWN"),
    "too large": ("PUT", "manifests/x", 413, "MANIFEST_INVALID"),
    "no route": ("PUT", "nothing/x", 404, "UNSUPPORTED"),
    "no method": ("POST", "manifests/x", 405, "UNSUPPORTED"),
}


def secret_for(case: str, tenants: Tenants) -> str | None:
    if case == "anonymous":
        return None
    if case == "wrong":
        return "00000000-0000-4000-8000-000000000000"
    if case == "reader":
        return tenants.new_key("ContainerRegistryReadOnly")["secret_key"]
    return tenants.owner.secret


@pytest.mark.oci(4)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("size", [5 * MIB, 40 * MIB])
@pytest.mark.parametrize("case", ERRORS)
def test_an_error_reaches_a_client_that_sends_its_complete_body_first(
    tenants: Tenants, wire: Connect, case: str, size: int, *, chunked: bool
) -> None:
    # given a request that will fail, and a client that reads nothing before it has sent its body
    repository = tenants.repository()
    upload = tenants.owner.start_upload(repository).rpartition("/")[2]
    method, path, status, code = ERRORS[case]
    path = f"/v2/{repository}/{path.format(upload=upload)}"
    connection = wire(secret_for(case, tenants))

    # when the whole body is sent
    if chunked:
        response = connection.in_chunks(method, path, pieces=[bytes(MIB)] * (size // MIB))
    else:
        response = connection.request(method, path, body=bytes(size))

    # then the error can be read, and the connection can be used again or is closed
    assert (response.status, response.codes) == (status, [code])
    if response.headers.get("Connection", "").lower() == "close":
        assert connection.is_over()
    else:
        again = connection.request("GET", f"/v2/{repository}/manifests/none")
        assert again.status in (401, 404)


@pytest.mark.oci(4)
@pytest.mark.parametrize("case", ["anonymous", "owner", "too large"])
def test_an_error_is_sent_before_the_body_has_arrived(tenants: Tenants, wire: Connect, case: str) -> None:
    # given a client that announces 40 MiB, sends one and waits
    repository, (method, path, status, code) = tenants.repository(), ERRORS[case]
    connection = wire(secret_for(case, tenants))
    connection.begin(method, f"/v2/{repository}/{path}", f"Content-Length: {40 * MIB}")
    connection.send(bytes(MIB))

    # then it gets the error without sending more
    response = connection.reply(method)
    assert (response.status, response.codes) == (status, [code])
    assert response.headers["Connection"].lower() == "close"


@pytest.mark.oci(5)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_client_that_waits_for_100_continue_gets_it(tenants: Tenants, wire: Connect, method: str) -> None:
    repository, data, connection = tenants.repository(), os.urandom(3000), wire()
    upload = tenants.owner.start_upload(repository)
    query = f"?digest={digest_of(data)}" if method == "PUT" else ""
    headers = (f"Content-Length: {len(data)}", "Expect: 100-continue")
    connection.begin(method, f"/v2/{repository}/{upload}{query}", *headers)
    assert connection.first_line() == b"HTTP/1.1 100 Continue"
    connection.send(data)
    assert connection.reply(method).status == (201 if method == "PUT" else 202)


@pytest.mark.oci(4, 5)
def test_a_client_that_waits_for_100_continue_gets_an_error_instead(tenants: Tenants, wire: Connect) -> None:
    connection = wire(None)
    headers = ("Content-Length: 3000000000", "Expect: 100-continue")
    connection.begin("PUT", f"/v2/{tenants.repository()}/manifests/x", *headers)
    response = connection.reply("PUT")
    assert (response.status, response.codes) == (401, ["UNAUTHORIZED"])


@pytest.mark.oci(4, 86)
def test_a_response_that_needs_no_body_reaches_a_client_that_sends_one(
    tenants: Tenants, image: Pushed, wire: Connect
) -> None:
    # given a successful mount whose request also has the blob and more as its body
    target = tenants.repository()
    query = f"?mount={image.layer}&from={image.name}&digest={image.layer}"
    response = wire().request("POST", f"/v2/{target}/blobs/uploads/{query}", body=bytes(40 * MIB))
    assert response.status == 201


UNWANTED = {
    "anonymous": ("POST", "blobs/uploads/", 401),
    "owner": ("POST", "blobs/uploads/", 202),
    "no method": ("POST", "manifests/x", 405),
    "no route": ("PUT", "nothing/x", 404),
}


@pytest.mark.oci(4)
@pytest.mark.parametrize("case", UNWANTED)
def test_a_response_does_not_wait_for_an_ignored_body(tenants: Tenants, wire: Connect, case: str) -> None:
    # given a client that closes its sending side in the middle of a body
    repository, (method, path, status) = tenants.repository(), UNWANTED[case]
    connection = wire(secret_for(case, tenants))
    connection.begin(method, f"/v2/{repository}/{path}", "Content-Length: 5000")
    connection.send(b"hello")
    connection.hang_up()

    # then it gets the same response as after the whole body, and the connection is closed
    response = connection.reply(method)
    assert (response.status, response.headers["Connection"]) == (status, "close")
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert ("Allow" in response.headers) == (status == 405)
    assert ("Docker-Upload-UUID" in response.headers) == (status == 202)
    assert connection.is_over()


@pytest.mark.oci(4, 134)
def test_a_deletion_is_confirmed_to_a_client_that_stops_in_the_middle_of_its_body(
    tenants: Tenants, wire: Connect
) -> None:
    repository, connection = tenants.repository(), wire()
    tenants.owner.push_image(repository, "victim", LAYER)
    connection.begin("DELETE", f"/v2/{repository}/manifests/victim", "Content-Length: 5000")
    connection.send(b"hello")
    connection.hang_up()
    assert connection.reply("DELETE").status == 202
    assert tenants.owner.on(repository, "GET", "manifests/victim").status_code == 404


@pytest.mark.oci(49, 61)
@pytest.mark.parametrize("zeros", [0, 18, 40, 5000])
def test_a_content_length_may_have_leading_zeros(tenants: Tenants, wire: Connect, zeros: int) -> None:
    repository, connection = tenants.repository(), wire()
    upload = tenants.owner.start_upload(repository)
    connection.begin("PATCH", f"/v2/{repository}/{upload}", f"Content-Length: {'0' * zeros}5")
    connection.send(b"hello")
    response = connection.reply("PATCH")
    assert (response.status, response.headers["Range"]) == (202, "0-4")
    empty = connection.request("PATCH", f"/v2/{repository}/{upload}", f"Content-Length: {'0' * zeros}0")
    assert (empty.status, empty.headers["Range"]) == (202, "0-4")


@pytest.mark.oci(175)
@pytest.mark.parametrize("length", [10**17, 10**18, 10**19])
def test_a_content_length_larger_than_the_disk_is_rejected(
    tenants: Tenants, wire: Connect, length: int
) -> None:
    repository, connection = tenants.repository(), wire()
    upload = tenants.owner.start_upload(repository)
    connection.begin("PATCH", f"/v2/{repository}/{upload}", f"Content-Length: {length}")
    assert connection.reply("PATCH").status == 507


@pytest.mark.oci(58)
def test_a_malformed_content_length_is_rejected(tenants: Tenants, wire: Connect) -> None:
    repository = tenants.repository()
    upload = tenants.owner.start_upload(repository)
    for length in ("", "-1", "+5", "x", "9" * 30):
        connection = wire()
        connection.begin("PATCH", f"/v2/{repository}/{upload}", f"Content-Length: {length}")
        connection.send(b"hello")
        assert connection.reply("PATCH").status == 400
    assert tenants.owner.on(repository, "GET", upload).headers["range"] == "0-0"
