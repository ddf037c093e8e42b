"""Manifests through the real data plane (OCI 30-38, 87-109, 134-140)."""

import json
import os
from typing import Any

import pytest

from tests.oci_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    OciClient,
    descriptor,
    digest_of,
    image_manifest,
)
from tests.tenants import Tenants

CONFIG = b"{}"


@pytest.fixture
def repository(tenants: Tenants) -> str:
    """A repository that has the config blob."""
    name = tenants.repository()
    tenants.owner.push_blob(name, CONFIG)
    return name


def errors(response: Any) -> list[str]:
    return [item["code"] for item in response.json()["errors"]]


@pytest.mark.oci(30, 31, 32, 87, 88)
def test_invariant_6_a_manifest_is_returned_byte_for_byte(tenants: Tenants, repository: str) -> None:
    # given a manifest with odd white space, order, unknown fields and a final newline
    body = json.dumps(image_manifest(CONFIG, [], custom={"b": 1, "a": "ü"}), indent=3).encode() + b"\n"
    pushed = tenants.owner.put_manifest(repository, "odd", body)
    assert pushed.status_code == 201
    assert pushed.headers["docker-content-digest"] == digest_of(body)
    assert pushed.headers["location"] == f"/v2/{repository}/manifests/{digest_of(body)}"

    # when it is read by tag and by digest, by GET and by HEAD
    for reference in ("odd", digest_of(body)):
        found = tenants.owner.on(repository, "GET", f"manifests/{reference}")
        head = tenants.owner.on(repository, "HEAD", f"manifests/{reference}")
        # then bytes and headers are those of the push
        assert found.content == body
        assert head.content == b""
        for response in (found, head):
            assert response.headers["content-type"] == OCI_MANIFEST
            assert response.headers["content-length"] == str(len(body))
            assert response.headers["docker-content-digest"] == digest_of(body)
            assert response.headers["etag"] == f'"{digest_of(body)}"'


@pytest.mark.oci(36)
@pytest.mark.parametrize("form", ['"{}"', "{}", 'W/"{}"', '"other", "{}"', "*"])
def test_if_none_match_with_the_present_digest_is_304(tenants: Tenants, repository: str, form: str) -> None:
    digest = tenants.owner.put_manifest(repository, "a", image_manifest(CONFIG, [])).headers[
        "docker-content-digest"
    ]
    headers = {"If-None-Match": form.format(digest)}
    response = tenants.owner.on(repository, "GET", "manifests/a", headers=headers)
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["docker-content-digest"] == digest


@pytest.mark.oci(24, 31, 108)
def test_a_manifest_pushed_by_sha512_digest_is_tagged_from_the_query(
    tenants: Tenants, repository: str
) -> None:
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    digest = digest_of(body, "sha512")
    response = tenants.owner.put_manifest(repository, digest, body, params={"tag": ["x", "y"]})
    assert (response.status_code, response.headers["oci-tag"]) == (201, "x, y")
    for tag in ("x", "y"):
        assert (
            tenants.owner.on(repository, "HEAD", f"manifests/{tag}").headers["docker-content-digest"]
            == digest
        )


@pytest.mark.oci(89)
def test_a_digest_that_does_not_match_is_rejected(tenants: Tenants, repository: str) -> None:
    response = tenants.owner.put_manifest(repository, digest_of(b"other"), image_manifest(CONFIG, []))
    assert (response.status_code, errors(response)) == (400, ["DIGEST_INVALID"])


@pytest.mark.oci(97)
def test_every_missing_blob_is_one_error(tenants: Tenants, repository: str) -> None:
    manifest = image_manifest(CONFIG, [b"not pushed", b"nor this"])
    response = tenants.owner.put_manifest(repository, "x", manifest)
    assert (response.status_code, errors(response)) == (400, ["MANIFEST_BLOB_UNKNOWN"] * 2)
    assert {item["detail"]["digest"] for item in response.json()["errors"]} == {
        layer["digest"] for layer in manifest["layers"]
    }
    assert tenants.owner.on(repository, "GET", "manifests/x").status_code == 404


@pytest.mark.oci(93, 94, 96)
@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"not json", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[]", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"\xff\xfe", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[" * 100_000, OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion":1}', OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion":2}', "text/plain", 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion":2,"layers":[],"manifests":[]}', OCI_INDEX, 400, "MANIFEST_INVALID"),
        (b" " * (4 * 1024 * 1024 + 1), OCI_MANIFEST, 413, "MANIFEST_INVALID"),
    ],
    ids=["empty", "no json", "list", "no utf-8", "deep", "schema1", "text", "confused", "too large"],
)
def test_an_invalid_manifest_is_rejected_with_a_message(
    tenants: Tenants, repository: str, body: bytes, content_type: str, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type}
    response = tenants.owner.on(repository, "PUT", "manifests/x", content=body, headers=headers)
    assert (response.status_code, errors(response)) == (status, [code])
    assert response.json()["errors"][0]["message"]


@pytest.mark.oci(96)
def test_a_chunked_manifest_over_the_limit_is_413(tenants: Tenants, repository: str) -> None:
    body = iter([b" " * 1_000_000] * 6)
    headers = {"Content-Type": OCI_MANIFEST}
    response = tenants.owner.on(repository, "PUT", "manifests/x", content=body, headers=headers)
    assert response.status_code == 413


@pytest.mark.oci(96)
def test_a_manifest_of_almost_4_mib_is_stored(tenants: Tenants, repository: str) -> None:
    manifest = image_manifest(CONFIG, [], custom="x" * 3_900_000)
    assert tenants.owner.put_manifest(repository, "big", manifest).status_code == 201
    assert tenants.owner.on(repository, "GET", "manifests/big").json() == manifest


@pytest.mark.oci(104)
def test_a_blob_does_not_satisfy_a_child_that_is_a_manifest(tenants: Tenants, repository: str) -> None:
    # given the bytes of a manifest that were pushed as a blob
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    tenants.owner.push_blob(repository, body)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(body, OCI_MANIFEST)]}

    # when an index lists it as a manifest, then the index is rejected until the manifest is pushed
    assert errors(tenants.owner.put_manifest(repository, "i", index)) == ["MANIFEST_BLOB_UNKNOWN"]
    assert tenants.owner.put_manifest(repository, digest_of(body), body).status_code == 201
    assert tenants.owner.put_manifest(repository, "i", index).status_code == 201


def test_an_index_requires_its_children(tenants: Tenants, repository: str) -> None:
    child = image_manifest(CONFIG, [])
    body = json.dumps(child).encode()
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(body, OCI_MANIFEST)]}
    assert errors(tenants.owner.put_manifest(repository, "i", index)) == ["MANIFEST_BLOB_UNKNOWN"]
    assert tenants.owner.put_manifest(repository, digest_of(body), body).status_code == 201
    response = tenants.owner.put_manifest(repository, "i", index)
    assert response.status_code == 201
    assert tenants.owner.on(repository, "GET", "manifests/i").headers["content-type"] == OCI_INDEX


@pytest.mark.oci(103)
def test_an_index_may_list_blobs_as_build_caches_do(tenants: Tenants, repository: str) -> None:
    layer = os.urandom(30)
    tenants.owner.push_blob(repository, layer)
    entries = [
        descriptor(layer, "application/vnd.oci.image.layer.v1.tar"),
        descriptor(CONFIG, "application/x"),
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    assert tenants.owner.put_manifest(repository, "cache", index).status_code == 201


@pytest.mark.oci(109)
def test_a_tag_moves_and_the_old_manifest_remains(tenants: Tenants, repository: str) -> None:
    first = tenants.owner.put_manifest(repository, "t", image_manifest(CONFIG, [])).headers[
        "docker-content-digest"
    ]
    second = tenants.owner.put_manifest(repository, "t", image_manifest(CONFIG, [], annotations={"n": "2"}))
    assert second.status_code == 201
    now = tenants.owner.on(repository, "HEAD", "manifests/t").headers["docker-content-digest"]
    assert now == second.headers["docker-content-digest"] != first
    assert tenants.owner.on(repository, "HEAD", f"manifests/{first}").status_code == 200


@pytest.mark.oci(134)
def test_deleting_a_tag_does_not_delete_other_tags_of_its_manifest(tenants: Tenants, repository: str) -> None:
    for tag in ("a", "b"):
        tenants.owner.put_manifest(repository, tag, image_manifest(CONFIG, []))
    assert tenants.owner.on(repository, "DELETE", "manifests/a").status_code == 202
    assert tenants.owner.on(repository, "GET", "manifests/a").status_code == 404
    assert tenants.owner.on(repository, "GET", "manifests/b").status_code == 200
    again = tenants.owner.on(repository, "DELETE", "manifests/a")
    assert (again.status_code, errors(again)) == (404, ["MANIFEST_UNKNOWN"])


@pytest.mark.oci(135)
def test_deleting_by_digest_deletes_all_tags_of_the_manifest(tenants: Tenants, repository: str) -> None:
    for tag in ("a", "b"):
        response = tenants.owner.put_manifest(repository, tag, image_manifest(CONFIG, []))
    digest = response.headers["docker-content-digest"]
    assert tenants.owner.on(repository, "DELETE", f"manifests/{digest}").status_code == 202
    for reference in ("a", "b", digest):
        assert tenants.owner.on(repository, "GET", f"manifests/{reference}").status_code == 404
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == []


@pytest.mark.oci(136, 137)
def test_a_blob_can_be_deleted_only_without_manifests_that_refer_to_it(
    tenants: Tenants, repository: str
) -> None:
    digest = digest_of(CONFIG)
    pushed = tenants.owner.put_manifest(repository, "a", image_manifest(CONFIG, []))
    rejected = tenants.owner.on(repository, "DELETE", f"blobs/{digest}")
    assert (rejected.status_code, errors(rejected)) == (405, ["UNSUPPORTED"])
    tenants.owner.on(repository, "DELETE", f"manifests/{pushed.headers['docker-content-digest']}")
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest}").status_code == 200
    assert tenants.owner.on(repository, "DELETE", f"blobs/{digest}").status_code == 202
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest}").status_code == 404
    assert tenants.owner.on(repository, "DELETE", f"blobs/{digest}").status_code == 404


@pytest.mark.oci(98)
def test_foreign_layers_need_not_exist(tenants: Tenants, repository: str) -> None:
    manifest = image_manifest(CONFIG, [])
    manifest["layers"] = [
        {
            **descriptor(b"elsewhere", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            "urls": ["https://example.com/layer"],
        }
    ]
    assert tenants.owner.put_manifest(repository, "foreign", manifest).status_code == 201


@pytest.mark.oci(21, 22, 41, 86, 118, 124)
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),
        ("GET", "manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("GET", "manifests/sha256:totallywrong", 400, "DIGEST_INVALID"),
        ("PUT", "manifests/sha256:totallywrong", 400, "DIGEST_INVALID"),
        ("PUT", "manifests/-bad", 400, "TAG_INVALID"),
        ("PUT", "manifests/" + "a" * 129, 400, "TAG_INVALID"),
        ("GET", "blobs/sha256:xyz", 400, "DIGEST_INVALID"),
        ("GET", "blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN"),
        ("GET", "referrers/nonsense", 400, "DIGEST_INVALID"),
        ("GET", "tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("PATCH", "manifests/x", 405, "UNSUPPORTED"),
        ("POST", "blobs/sha256:" + "0" * 64, 405, "UNSUPPORTED"),
        ("POST", "blobs/uploads/?digest=nonsense", 400, "DIGEST_INVALID"),
        ("POST", "blobs/uploads/?mount=nonsense", 400, "DIGEST_INVALID"),
        ("POST", "blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
    ],
)
def test_invalid_requests_get_the_specified_error(
    tenants: Tenants, repository: str, method: str, path: str, status: int, code: str
) -> None:
    response = tenants.owner.on(repository, method, path)
    assert (response.status_code, errors(response)) == (status, [code])
    assert response.headers["content-type"] == "application/json"
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"
    assert response.json()["errors"][0]["message"]


@pytest.mark.oci(18)
@pytest.mark.parametrize(
    "name", ["UPPER/case", "a/b..c", "a/-b", "a//b", "a/" + "b" * 300, "a/b%00c", "a/bü"]
)
def test_an_invalid_name_gets_the_specified_error(tenants: Tenants, name: str) -> None:
    with OciClient(tenants.owner.host, tenants.owner.secret) as client:
        auth = ("x", tenants.owner.secret or "")
        push = client.http.post(f"/v2/{name}/blobs/uploads/", auth=auth)
        read = client.http.get(f"/v2/{name}/manifests/latest", auth=auth)
    assert (push.status_code, errors(push)) == (400, ["NAME_INVALID"])
    assert read.status_code in (400, 404)
    assert errors(read)[0] in ("NAME_INVALID", "NAME_UNKNOWN")


@pytest.mark.oci(8)
def test_names_may_contain_the_keywords_of_the_routes(tenants: Tenants) -> None:
    namespace = tenants.namespace()["name"]
    for name in ("manifests/blobs", "blobs/uploads/tags", "tags/list", "a/referrers/b", "v2/v2"):
        repository = f"{namespace}/{name}"
        digest = tenants.owner.push_image(repository, "list", os.urandom(10))
        assert tenants.owner.on(repository, "GET", "tags/list").json() == {
            "name": repository,
            "tags": ["list"],
        }
        assert tenants.owner.on(repository, "HEAD", f"manifests/{digest}").status_code == 200


@pytest.mark.oci(9, 10, 28)
def test_unknown_routes_and_the_ping(tenants: Tenants) -> None:
    http = tenants.anonymous.http
    assert http.get("/v2/_catalogue").json()["errors"][0]["code"] == "UNSUPPORTED"
    assert http.get("/nothing").status_code == 404
    for path in ("/v2", "/v2/"):
        response = http.get(path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith('Bearer realm="http://')
        assert "scope" not in response.headers["www-authenticate"]
        assert http.get(path, auth=("any", tenants.owner.secret or "")).json() == {}
    assert http.post("/v2/").headers["allow"] == "GET, HEAD"


def test_invalid_credentials_are_unauthorized(tenants: Tenants) -> None:
    http = tenants.anonymous.http
    wrong = "00000000-0000-4000-8000-000000000000"
    for headers in (
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic !!"},
        {"Authorization": "Other x"},
    ):
        assert errors(http.get("/v2/", headers=headers)) == ["UNAUTHORIZED"]
    assert http.get("/v2/", auth=("x", wrong)).status_code == 401
    rejected = http.get("/token", auth=("x", wrong))
    assert rejected.status_code == 401
    assert rejected.json()["message"]
    assert errors(rejected) == ["UNAUTHORIZED"]
