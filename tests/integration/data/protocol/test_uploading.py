"""Uploads in the forms of all clients, and their errors (OCI 49-79)."""

import os
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OciClient, digest_of
from tests.tenants import Tenants

Connect = Callable[..., Wire]


def patch(client: OciClient, repository: str, upload: str, data: bytes, content_range: str) -> httpx.Response:
    return client.on(repository, "PATCH", upload, content=data, headers={"Content-Range": content_range})


def close(client: OciClient, repository: str, upload: str, data: bytes, rest: bytes = b"") -> httpx.Response:
    """Close an upload of `data` with the `rest` of it."""
    return client.on(repository, "PUT", upload, params={"digest": digest_of(data)}, content=rest)


@pytest.mark.oci(49, 50, 51, 53)
@pytest.mark.parametrize("content_type", [None, "application/json", "application/octet-stream", "nonsense"])
def test_the_response_to_a_started_upload_has_all_headers(
    tenants: Tenants, wire: Connect, content_type: str | None
) -> None:
    repository = tenants.repository()
    headers = [f"Content-Type: {content_type}"] if content_type else []
    response = wire().request("POST", f"/v2/{repository}/blobs/uploads/", *headers, body=b"")
    assert (response.status, response.body) == (202, b"")
    session = response.headers["Docker-Upload-UUID"]
    assert response.headers["Location"] == f"/v2/{repository}/blobs/uploads/{UUID(session)}"
    assert response.headers["Range"] == "0-0"
    assert response.headers["Content-Length"] == "0"
    assert response.headers["OCI-Chunk-Min-Length"] is None


@pytest.mark.oci(54)
def test_the_first_upload_creates_the_repository_if_the_caller_may_push(
    tenants: Tenants, wire: Connect
) -> None:
    # given a namespace without images, a key with read access, and a namespace that does not exist
    repository = tenants.repository()
    reader = wire(tenants.new_key("ContainerRegistryReadOnly")["secret_key"])
    rejected = reader.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"")
    assert (rejected.status, rejected.codes) == (403, ["DENIED"])
    assert tenants.owner.on(repository, "GET", "tags/list").status_code == 404
    nowhere = wire().request("POST", "/v2/no-such-namespace-here/app/blobs/uploads/", body=b"")
    assert (nowhere.status, nowhere.codes) == (403, ["DENIED"])

    # when a caller with the right to push starts an upload
    assert tenants.owner.on(repository, "POST", "blobs/uploads/").status_code == 202

    # then the repository exists
    assert tenants.owner.on(repository, "GET", "tags/list").json() == {"name": repository, "tags": []}


@pytest.mark.oci(55, 78)
def test_a_blob_can_be_read_at_the_location_of_its_201(tenants: Tenants, wire: Connect) -> None:
    repository, data, connection = tenants.repository(), os.urandom(70_000), wire()
    session = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    response = connection.request("PUT", f"{session}?digest={digest_of(data)}", body=data)
    assert (response.status, response.body) == (201, b"")
    assert response.headers["Docker-Content-Digest"] == digest_of(data)
    assert response.headers["Location"] == f"/v2/{repository}/blobs/{digest_of(data)}"
    # with a new connection for each request, so that other processes respond too
    for _ in range(8):
        head = wire().request("HEAD", response.headers["Location"], "Connection: close")
        assert (head.status, head.headers["Content-Length"]) == (200, "70000")


@pytest.mark.oci(56, 57)
def test_a_single_post_with_another_digest_stores_nothing(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(100)
    params = {"digest": digest_of(b"other")}
    response = tenants.owner.on(repository, "POST", "blobs/uploads/", params=params, content=data)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert response.json()["errors"][0]["detail"] == {"expected": digest_of(b"other"), "got": digest_of(data)}
    for digest in (digest_of(data), digest_of(b"other")):
        assert tenants.owner.on(repository, "HEAD", f"blobs/{digest}").status_code == 404


@pytest.mark.oci(59)
@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "application/json", "nonsense"])
def test_the_content_type_of_a_body_is_ignored(
    tenants: Tenants, wire: Connect, content_type: str | None
) -> None:
    repository, data, connection = tenants.repository(), os.urandom(100), wire()
    headers = [f"Content-Type: {content_type}"] if content_type else []
    session = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    assert connection.request("PATCH", session, *headers, body=data[:50]).status == 202
    put = connection.request("PUT", f"{session}?digest={digest_of(data)}", *headers, body=data[50:])
    assert put.status == 201


@pytest.mark.oci(61, 69, 79)
def test_the_response_to_every_chunk_has_the_offset_of_the_upload(tenants: Tenants, wire: Connect) -> None:
    # given chunks of one byte and of other lengths
    repository, connection, data = tenants.repository(), wire(), os.urandom(1007)
    session = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    offset = 0
    for size in (1, 1, 5, 1000):
        piece, last = data[offset : offset + size], offset + size - 1
        response = connection.request("PATCH", session, f"Content-Range: {offset}-{last}", body=piece)

        # then each response, and GET and HEAD of the upload, contain the offset of the last byte
        assert (response.status, response.body) == (202, b"")
        looks = [connection.request(method, session) for method in ("GET", "HEAD")]
        assert [look.status for look in looks] == [204, 204]
        for seen in (response, *looks):
            assert seen.headers["Range"] == f"0-{last}"
            assert seen.headers["Location"] == session
            assert seen.headers["Docker-Upload-UUID"] == session.rpartition("/")[2]
        offset += size
    assert connection.request("PUT", f"{session}?digest={digest_of(data)}", body=b"").status == 201


@pytest.mark.oci(63)
@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/1000", "bytes {}-{}/*", "bytes={}-{}", "{}-{}/1000"])
def test_content_range_is_accepted_in_the_forms_that_clients_send(tenants: Tenants, form: str) -> None:
    repository, data, client = tenants.repository(), os.urandom(1000), tenants.owner
    upload = client.start_upload(repository)
    assert patch(client, repository, upload, data[:400], form.format(0, 399)).status_code == 202
    assert patch(client, repository, upload, data[400:], form.format(400, 999)).status_code == 202
    assert close(client, repository, upload, data).status_code == 201


@pytest.mark.oci(64, 65, 143)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_first_chunk_that_does_not_begin_at_0_changes_nothing(
    tenants: Tenants, wire: Connect, method: str
) -> None:
    repository, connection, data = tenants.repository(), wire(), os.urandom(20)
    session = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    query = f"?digest={digest_of(data)}" if method == "PUT" else ""
    response = connection.request(method, session + query, "Content-Range: 10-29", body=data)
    assert (response.status, response.codes) == (416, ["BLOB_UPLOAD_INVALID"])
    assert (response.headers["Location"], response.headers["Range"]) == (session, "0-0")
    assert connection.request("PUT", f"{session}?digest={digest_of(data)}", body=data).status == 201


@pytest.mark.oci(66)
def test_the_content_range_of_a_closing_put_is_checked(tenants: Tenants, wire: Connect) -> None:
    # given an upload with its first half
    repository, connection, data = tenants.repository(), wire(), os.urandom(200)
    session = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    connection.request("PATCH", session, "Content-Range: 0-99", body=data[:100])
    url = f"{session}?digest={digest_of(data)}"

    # when the last chunk has another offset, then it is 416 with the correct one
    for wrong in ("0-99", "99-198", "101-200"):
        response = connection.request("PUT", url, f"Content-Range: {wrong}", body=data[100:])
        assert (response.status, response.headers["Range"]) == (416, "0-99")
        assert response.headers["Location"] == session
    # and with the correct offset the upload is closed
    assert connection.request("PUT", url, "Content-Range: 100-199", body=data[100:]).status == 201


@pytest.mark.oci(67)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("last", [8, 10])
def test_a_content_range_that_contradicts_the_length_writes_nothing(
    tenants: Tenants, wire: Connect, last: int, *, chunked: bool
) -> None:
    repository, connection, header = tenants.repository(), wire(), f"Content-Range: 0-{last}"
    session = connection.request("POST", f"/v2/{repository}/blobs/uploads/", body=b"").headers["Location"]
    for method, url in (("PATCH", session), ("PUT", f"{session}?digest={digest_of(b'0123456789')}")):
        if chunked:
            response = connection.in_chunks(method, url, header, pieces=[b"01234", b"56789"])
        else:
            response = connection.request(method, url, header, body=b"0123456789")
        assert (response.status, response.codes) == (400, ["SIZE_INVALID"])
        assert connection.request("GET", session).headers["Range"] == "0-0"


@pytest.mark.oci(70)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("how", ["never", "finished", "cancelled"])
def test_a_closed_upload_is_unknown(tenants: Tenants, how: str, method: str) -> None:
    repository, data, client = tenants.repository(), os.urandom(30), tenants.owner
    upload = client.start_upload(repository)
    if how == "never":
        upload = "blobs/uploads/00000000-0000-4000-8000-000000000000"
    elif how == "finished":
        assert close(client, repository, upload, data, data).status_code == 201
    else:
        assert client.on(repository, "DELETE", upload).status_code == 204
    params = {"digest": digest_of(b"something else")} if method == "PUT" else {}
    response = client.on(repository, method, upload, params=params)
    assert response.status_code == 404
    if method != "HEAD":
        assert response.json()["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.oci(72)
def test_after_a_failed_put_the_upload_has_its_previous_offset(tenants: Tenants) -> None:
    # given an upload with one chunk, and a closing PUT with other content
    repository, data, client = tenants.repository(), os.urandom(3000), tenants.owner
    upload = client.start_upload(repository)
    assert patch(client, repository, upload, data[:1000], "0-999").status_code == 202
    assert close(client, repository, upload, data, b"not the rest").status_code == 400
    # then regctl's next step works: it queries the offset and sends the rest in chunks
    assert client.on(repository, "GET", upload).headers["range"] == "0-999"
    assert patch(client, repository, upload, data[1000:], "1000-2999").status_code == 202
    assert close(client, repository, upload, data).status_code == 201


@pytest.mark.oci(74)
def test_a_repeated_body_does_not_become_part_of_a_blob(tenants: Tenants) -> None:
    # given a proxy that sent a PATCH twice
    repository, data, client = tenants.repository(), os.urandom(3000), tenants.owner
    upload = client.start_upload(repository)
    for _ in range(2):
        assert client.on(repository, "PATCH", upload, content=data).status_code == 202
    # then the digest does not match, nothing is stored, and the client can start again
    rejected = close(client, repository, upload, data)
    assert (rejected.status_code, rejected.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert client.on(repository, "HEAD", f"blobs/{digest_of(data)}").status_code == 404
    assert client.push_blob(repository, data) == digest_of(data)


@pytest.mark.oci(58)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_a_truncated_body_is_never_committed_and_is_not_a_server_error(
    tenants: Tenants, wire: Connect, what: str, *, chunked: bool
) -> None:
    # given a client that disconnects in the middle; the part that it has sent would be a valid blob
    repository, sent = tenants.repository(), b'{"schemaVersion":2,"manifests":[]}'
    connection, upload = wire(), tenants.owner.start_upload(repository)
    path = f"{upload}?digest={digest_of(sent)}" if what == "blob" else f"manifests/{digest_of(sent)}"
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1000"
    connection.begin("PUT", f"/v2/{repository}/{path}", framing)
    connection.send(b"%x\r\n%s\r\n" % (len(sent), sent) if chunked else sent)
    connection.hang_up()

    # then it gets an error, if it still reads, and nothing is stored
    response = connection.reply("PUT")
    assert (response.status, response.codes) == (400, ["SIZE_INVALID"])
    found = f"blobs/{digest_of(sent)}" if what == "blob" else f"manifests/{digest_of(sent)}"
    assert tenants.owner.on(repository, "HEAD", found).status_code == 404
