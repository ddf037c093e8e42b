"""Names of repositories, tags and content (OCI 18-26)."""

import json
import os
from collections.abc import Callable

import pytest

from tests.integration.data.protocol.conftest import CONFIG, Pushed
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OCI_MANIFEST, descriptor, digest_of, image_manifest
from tests.tenants import LAYER, Tenants

Connect = Callable[..., Wire]


@pytest.mark.oci(18)
@pytest.mark.parametrize("name", ["a", "a.b", "a_b", "a__b", "a---b", "0", "a/b/c/d/e/f/g/h", "a1.b2_c3-d4"])
def test_every_form_of_a_name_can_be_pushed_and_pulled(tenants: Tenants, name: str) -> None:
    repository = f"{tenants.namespace()['name']}/{name}"
    digest = tenants.owner.push_image(repository, "1", LAYER)
    assert tenants.owner.on(repository, "HEAD", f"manifests/{digest}").status_code == 200


@pytest.mark.oci(19)
def test_the_length_of_a_name_is_limited_by_the_host(tenants: Tenants) -> None:
    # given a name that has 255 characters together with host and slash
    namespace, room = tenants.namespace()["name"], 255 - len(tenants.owner.host) - 1
    fits = f"{namespace}/{'x' * (room - len(namespace) - 1)}"
    assert tenants.owner.on(fits, "POST", "blobs/uploads/").status_code == 202
    rejected = tenants.owner.on(f"{fits}x", "POST", "blobs/uploads/")
    assert (rejected.status_code, rejected.json()["errors"][0]["code"]) == (400, "NAME_INVALID")
    assert f"{room} at most" in rejected.json()["errors"][0]["message"]


@pytest.mark.oci(20)
def test_tags_are_case_sensitive(tenants: Tenants) -> None:
    repository = tenants.repository()
    tenants.owner.push_blob(repository, CONFIG)
    tags = ["v1", "V1", "_", "_.-", "0", "a" * 128, "UPPER.lower-0_1"]
    digests = {}
    for number, tag in enumerate(tags):
        manifest = image_manifest(CONFIG, [], annotations={"number": str(number)})
        response = tenants.owner.put_manifest(repository, tag, manifest)
        assert response.status_code == 201
        digests[tag] = response.headers["docker-content-digest"]
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == sorted(tags)
    for tag, digest in digests.items():
        found = tenants.owner.on(repository, "HEAD", f"manifests/{tag}")
        assert found.headers["docker-content-digest"] == digest


@pytest.mark.oci(20, 21)
@pytest.mark.parametrize("tag", [".x", "-x", "a" * 129, "a+b", "a%20b", "%C3%A4", "a%00", "a%0Ab"])
def test_a_malformed_tag_is_404_for_reads_and_400_for_a_push(
    tenants: Tenants, image: Pushed, wire: Connect, tag: str
) -> None:
    connection = wire()
    for method in ("GET", "HEAD", "DELETE"):
        assert connection.request(method, f"{image.base}/manifests/{tag}").status == 404
    put = connection.request("PUT", f"{image.base}/manifests/{tag}", body=b"{}")
    assert (put.status, put.codes) == (400, ["TAG_INVALID"])


MALFORMED = [
    "sha256:totallywrong",
    "sha256:baddigeststring",
    "sha256:",
    "sha256:" + "a" * 63,
    "sha256:" + "A" * 64,
    "sha512:" + "a" * 64,
    "md5:" + "a" * 32,
    "blake3:" + "a" * 64,
    ":",
    "sha256:" + "%00" * 64,
]


@pytest.mark.oci(22, 23)
@pytest.mark.parametrize("digest", MALFORMED)
def test_a_malformed_digest_is_rejected_by_every_route(image: Pushed, wire: Connect, digest: str) -> None:
    connection = wire()
    for method, path in (
        ("GET", f"manifests/{digest}"),
        ("PUT", f"manifests/{digest}"),
        ("DELETE", f"manifests/{digest}"),
        ("GET", f"blobs/{digest}"),
        ("DELETE", f"blobs/{digest}"),
        ("GET", f"referrers/{digest}"),
        ("POST", f"blobs/uploads/?digest={digest}"),
        ("POST", f"blobs/uploads/?mount={digest}"),
    ):
        response = connection.request(method, f"{image.base}/{path}", body=b"{}" if method == "PUT" else None)
        assert (response.status, response.codes) == (400, ["DIGEST_INVALID"]), path
        assert connection.request("HEAD", f"{image.base}/blobs/{digest}").status == 400


@pytest.mark.oci(24, 31, 125)
def test_content_with_a_sha512_digest_is_returned_with_it(tenants: Tenants) -> None:
    # given an image whose digests are all sha512
    repository, layer = tenants.repository(), os.urandom(1000)
    for data in (CONFIG, layer):
        digest = digest_of(data, "sha512")
        response = tenants.owner.on(
            repository,
            "PUT",
            tenants.owner.start_upload(repository),
            params={"digest": digest},
            content=data,
        )
        assert response.status_code == 201
        assert response.headers["docker-content-digest"] == digest
        assert response.headers["location"] == f"/v2/{repository}/blobs/{digest}"
    manifest = image_manifest(CONFIG, [layer])
    for entry, data in ((manifest["config"], CONFIG), (manifest["layers"][0], layer)):
        entry["digest"] = digest_of(data, "sha512")
    body = json.dumps(manifest).encode()
    digest = digest_of(body, "sha512")
    response = tenants.owner.put_manifest(repository, digest, body, params={"tag": "long"})
    assert (response.status_code, response.headers["docker-content-digest"]) == (201, digest)

    # then it is found by them and by tag, and not by sha256
    for reference in (digest, "long"):
        found = tenants.owner.on(repository, "GET", f"manifests/{reference}")
        assert (found.content, found.headers["docker-content-digest"]) == (body, digest)
    blob = tenants.owner.on(repository, "GET", f"blobs/{digest_of(layer, 'sha512')}")
    assert (blob.content, blob.headers["docker-content-digest"]) == (layer, digest_of(layer, "sha512"))
    assert tenants.owner.on(repository, "HEAD", f"manifests/{digest_of(body)}").status_code == 404
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 404


@pytest.mark.oci(24)
def test_the_same_bytes_may_be_stored_with_both_algorithms(tenants: Tenants) -> None:
    repository, body = tenants.repository(), json.dumps(image_manifest(CONFIG, [])).encode()
    tenants.owner.push_blob(repository, CONFIG)
    for algorithm in ("sha256", "sha512"):
        digest = digest_of(body, algorithm)
        assert tenants.owner.put_manifest(repository, digest, body).status_code == 201
    tenants.owner.on(repository, "DELETE", f"manifests/{digest_of(body)}")
    assert tenants.owner.on(repository, "GET", f"manifests/{digest_of(body, 'sha512')}").content == body


@pytest.mark.oci(25, 77)
@pytest.mark.parametrize("announced", [None, "sha256", "sha512"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_an_upload_may_be_closed_with_any_algorithm(
    tenants: Tenants, announced: str | None, algorithm: str, pieces: int
) -> None:
    repository, data = tenants.repository(), os.urandom(3000)
    hint = {} if announced is None else {"digest-algorithm": announced}
    upload = tenants.owner.start_upload(repository, **hint)
    for number in range(pieces):
        part = data[number * 1000 : (number + 1) * 1000]
        assert tenants.owner.on(repository, "PATCH", upload, content=part).status_code == 202
    digest = digest_of(data, algorithm)
    response = tenants.owner.on(
        repository, "PUT", upload, params={"digest": digest}, content=data[pieces * 1000 :]
    )
    assert response.status_code == 201
    assert tenants.owner.on(repository, "GET", f"blobs/{digest}").content == data


@pytest.mark.oci(26)
def test_manifests_blobs_tags_and_referrers_stay_in_their_repository(tenants: Tenants, image: Pushed) -> None:
    other = tenants.repository()
    tenants.owner.push_image(other, "other", b"another layer")
    for path in (
        f"manifests/{image.manifest}",
        "manifests/latest",
        f"blobs/{image.layer}",
    ):
        for method in ("GET", "HEAD", "DELETE"):
            assert tenants.owner.on(other, method, path).status_code == 404, path
    index = {"schemaVersion": 2, "manifests": [{**descriptor(b"", OCI_MANIFEST), "digest": image.manifest}]}
    body = json.dumps(index).encode()
    response = tenants.owner.put_manifest(
        other, "index", body, headers={"Content-Type": "application/vnd.oci.image.index.v1+json"}
    )
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
