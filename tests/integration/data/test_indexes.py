"""Indexes with missing children, and foreign layers (OCI 98-99, 103-105)."""

import json
from typing import Any

import pytest

from tests.oci_client import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, image_manifest
from tests.tenants import Tenants

CONFIG = b"{}"
FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)


def manifest_for(architecture: str) -> bytes:
    return json.dumps(image_manifest(CONFIG, [], annotations={"for": architecture})).encode()


def child(architecture: str, **more: str) -> dict[str, Any]:
    platform = {"os": "linux", "architecture": architecture, **more}
    return {**descriptor(manifest_for(architecture), OCI_MANIFEST), "platform": platform}


def index_of(*children: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}


@pytest.fixture
def repository(tenants: Tenants) -> str:
    """A repository that has the config blob and the manifest for amd64."""
    name = tenants.repository()
    tenants.owner.push_blob(name, CONFIG)
    assert tenants.owner.put_manifest(name, "amd64", manifest_for("amd64")).status_code == 201
    return name


def accept_sparse_indexes(tenants: Tenants, repository: str, choice: str = "accept") -> None:
    tenants.manage("sparse_indexes", repository.split("/")[0], choice)


@pytest.mark.oci(104)
def test_an_index_with_missing_children_is_rejected_with_their_platforms(
    tenants: Tenants, repository: str
) -> None:
    index = index_of(child("amd64"), child("arm64", variant="v8"), child("s390x"))
    response = tenants.owner.put_manifest(repository, "all", index)
    assert response.status_code == 400
    found = {item["detail"]["platform"]: item for item in response.json()["errors"]}
    assert set(found) == {"linux/arm64/v8", "linux/s390x"}
    for platform, item in found.items():
        assert item["code"] == "MANIFEST_BLOB_UNKNOWN"
        assert f"{item['detail']['digest']} ({platform})" in item["message"]
        assert item["message"].endswith("push it first")
    assert tenants.owner.on(repository, "HEAD", "manifests/all").status_code == 404


@pytest.mark.oci(104)
def test_a_namespace_may_accept_sparse_indexes_with_a_warning(tenants: Tenants, repository: str) -> None:
    # given a namespace that accepts sparse indexes
    accept_sparse_indexes(tenants, repository)
    index = index_of(child("amd64"), child("arm64"), child("s390x"))

    # when one is pushed, then it is stored unchanged, with a warning that names the missing children
    pushed = tenants.owner.put_manifest(repository, "some", index)
    assert pushed.status_code == 201
    text = pushed.headers["warning"]
    assert text.startswith('299 - "')
    assert "without 2 of its manifests" in text
    assert {"linux/arm64", "linux/s390x"} <= set(text.strip('"').replace(",", "").split())
    assert json.loads(tenants.owner.on(repository, "GET", "manifests/some").content) == index
    missing = tenants.owner.on(repository, "GET", f"manifests/{digest_of(manifest_for('arm64'))}")
    assert missing.status_code == 404

    # and when the missing children were pushed, then there is no warning
    tenants.owner.put_manifest(repository, digest_of(manifest_for("arm64")), manifest_for("arm64"))
    again = tenants.owner.put_manifest(repository, "some", index)
    assert "without 1 of its manifests: linux/s390x" in again.headers["warning"]
    tenants.owner.put_manifest(repository, digest_of(manifest_for("s390x")), manifest_for("s390x"))
    assert "warning" not in tenants.owner.put_manifest(repository, "some", index).headers


@pytest.mark.oci(104)
def test_accepting_sparse_indexes_is_a_reversible_setting_of_a_namespace(
    tenants: Tenants, repository: str
) -> None:
    other = tenants.repository()
    accept_sparse_indexes(tenants, other)
    index = index_of(child("arm64"))
    assert tenants.owner.put_manifest(repository, "x", index).status_code == 400
    assert tenants.owner.put_manifest(other, "x", index).status_code == 201
    accept_sparse_indexes(tenants, other, "refuse")
    assert tenants.owner.put_manifest(other, "y", index_of(child("riscv64"))).status_code == 400


@pytest.mark.oci(138)
def test_a_push_of_an_index_warns_of_a_child_that_was_deleted(tenants: Tenants, repository: str) -> None:
    index = index_of(child("amd64"))
    assert "warning" not in tenants.owner.put_manifest(repository, "all", index).headers
    digest = digest_of(manifest_for("amd64"))
    assert tenants.owner.on(repository, "DELETE", f"manifests/{digest}").status_code == 202
    assert digest in tenants.owner.put_manifest(repository, "all", index).headers["warning"]
    tenants.owner.put_manifest(repository, "amd64", manifest_for("amd64"))
    assert "warning" not in tenants.owner.put_manifest(repository, "all", index).headers


@pytest.mark.oci(103, 104)
def test_a_sparse_index_still_requires_its_blobs(tenants: Tenants, repository: str) -> None:
    # given an index whose children are layers, as BuildKit exports its cache
    accept_sparse_indexes(tenants, repository)
    layer = descriptor(b"a layer of a cache", "application/vnd.oci.image.layer.v1.tar+gzip")
    cache = index_of(layer, child("arm64"))
    rejected = tenants.owner.put_manifest(repository, "cache", cache)
    assert rejected.status_code == 400
    assert [item["detail"]["digest"] for item in rejected.json()["errors"]] == [layer["digest"]]
    tenants.owner.push_blob(repository, b"a layer of a cache")
    assert tenants.owner.put_manifest(repository, "cache", cache).status_code == 201


@pytest.mark.oci(104)
@pytest.mark.parametrize(
    "platform", [None, [], "linux", {"os": 1}, {"os": 'x"\r\ny: z'}, {"os": ["a"]}, {"architecture": "ü"}]
)
def test_an_invalid_platform_of_a_missing_child_is_accepted(
    tenants: Tenants, repository: str, platform: object
) -> None:
    accept_sparse_indexes(tenants, repository)
    odd = {**child("arm64"), "platform": platform}
    response = tenants.owner.put_manifest(repository, "odd", index_of(odd))
    assert response.status_code == 201
    assert odd["digest"] in response.headers["warning"] or platform == {"os": 1}


@pytest.mark.oci(98)
@pytest.mark.parametrize("media_type", FOREIGN)
def test_a_foreign_layer_with_urls_need_not_exist(tenants: Tenants, repository: str, media_type: str) -> None:
    layer = {**descriptor(media_type.encode(), media_type), "urls": ["https://example.com/layer"]}
    manifest = image_manifest(CONFIG, [])
    manifest["layers"] = [layer]
    pushed = tenants.owner.put_manifest(repository, "foreign", manifest)
    assert pushed.status_code == 201
    assert json.loads(tenants.owner.on(repository, "GET", "manifests/foreign").content) == manifest
    assert tenants.owner.on(repository, "HEAD", f"blobs/{layer['digest']}").status_code == 404


@pytest.mark.oci(98)
@pytest.mark.parametrize(
    "layer",
    [
        descriptor(b"absent", FOREIGN[0]),
        {**descriptor(b"absent", FOREIGN[0]), "urls": []},
        {**descriptor(b"absent", "application/vnd.oci.image.layer.v1.tar"), "urls": ["https://example.com/"]},
    ],
    ids=["without urls", "with no url", "of an ordinary type"],
)
def test_any_other_layer_must_exist(tenants: Tenants, repository: str, layer: dict[str, Any]) -> None:
    manifest = {**image_manifest(CONFIG, []), "layers": [layer]}
    rejected = tenants.owner.put_manifest(repository, "x", manifest)
    assert (rejected.status_code, rejected.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.oci(99)
@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x", "example.com/x", ""])
def test_the_urls_of_a_layer_must_be_http_or_https(tenants: Tenants, repository: str, url: str) -> None:
    layer = {**descriptor(b"absent", FOREIGN[0]), "urls": [url]}
    rejected = tenants.owner.put_manifest(repository, "x", {**image_manifest(CONFIG, []), "layers": [layer]})
    assert (rejected.status_code, rejected.json()["errors"][0]["code"]) == (400, "MANIFEST_INVALID")
    assert "layers[0].urls[0]" in rejected.json()["errors"][0]["message"]
