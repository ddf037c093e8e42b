"""The content that manifests refer to: blobs, manifests, foreign layers (OCI 95-105, 114)."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.data.protocol.conftest import CONFIG
from tests.integration.data.protocol.documents import DOCKER_LIST, EMPTY_TYPE, codes, index_of
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, image_manifest
from tests.tenants import Tenants

Connect = Callable[..., Wire]


@pytest.mark.oci(97)
@pytest.mark.parametrize("what", ["config", "layer", "child"])
def test_missing_content_is_named_by_its_digest(tenants: Tenants, repository: str, what: str) -> None:
    absent = os.urandom(9)
    document = {
        "config": image_manifest(absent, []),
        "layer": image_manifest(CONFIG, [absent, absent]),
        "child": index_of(descriptor(absent, OCI_MANIFEST)),
    }[what]
    response = tenants.owner.put_manifest(repository, "x", document)
    assert (response.status_code, codes(response)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    [error] = response.json()["errors"]
    assert error["detail"] == {"digest": digest_of(absent)}
    assert digest_of(absent) in error["message"]


@pytest.mark.oci(100, 101)
def test_the_empty_config_is_a_blob_like_any_other(tenants: Tenants) -> None:
    # given an artifact whose config and layer are the same two bytes
    repository, client = tenants.repository(), tenants.owner
    artifact = image_manifest(b"{}", [b"{}"], artifactType="application/vnd.example")
    artifact["config"]["mediaType"] = artifact["layers"][0]["mediaType"] = EMPTY_TYPE

    # then they have to be pushed, once
    assert codes(client.put_manifest(repository, "a", artifact)) == ["MANIFEST_BLOB_UNKNOWN"]
    digest = client.push_blob(repository, b"{}")
    response = client.put_manifest(repository, "a", artifact)
    assert response.status_code == 201
    # and after the manifest is deleted, they can be deleted
    manifest = response.headers["docker-content-digest"]
    assert client.on(repository, "DELETE", f"manifests/{manifest}").status_code == 202
    assert client.on(repository, "DELETE", f"blobs/{digest}").status_code == 202
    assert client.on(repository, "HEAD", f"blobs/{digest}").status_code == 404
    assert codes(client.put_manifest(repository, "a", artifact)) == ["MANIFEST_BLOB_UNKNOWN"]


@pytest.mark.oci(95, 100, 101, 105, 114)
@pytest.mark.parametrize(
    "document",
    [
        image_manifest(b"{}", []),
        image_manifest(b"{}", [b"{}", b"{}", CONFIG]),
        {**image_manifest(b"{}", []), "config": descriptor(b"{}", EMPTY_TYPE)},
        {**image_manifest(b"{}", []), "config": descriptor(b"{}", "application/vnd.of.my.own")},
        {**image_manifest(b"{}", []), "config": {**descriptor(b"{}", EMPTY_TYPE), "size": 3}},
        index_of(),
        index_of(media_type=DOCKER_LIST),
        {**index_of(), "artifactType": "application/vnd.example"},
    ],
)
def test_unusual_documents_are_accepted(tenants: Tenants, repository: str, document: dict[str, Any]) -> None:
    assert tenants.owner.put_manifest(repository, "unusual", document).status_code == 201
    assert tenants.owner.on(repository, "GET", "manifests/unusual").json() == document


@pytest.mark.oci(103, 105)
def test_an_index_may_list_images_indexes_attestations_and_blobs(tenants: Tenants, repository: str) -> None:
    # given an image, its attestation with an unknown platform, and an index of both, as BuildKit pushes them
    image, attestation = (
        json.dumps(image_manifest(CONFIG, [], annotations={"n": name})).encode() for name in "12"
    )
    for body in (image, attestation):
        assert tenants.owner.put_manifest(repository, digest_of(body), body).status_code == 201
    inner = index_of(
        {**descriptor(image, OCI_MANIFEST), "platform": {"architecture": "arm64", "os": "linux"}},
        {
            **descriptor(attestation, OCI_MANIFEST),
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    )
    assert tenants.owner.put_manifest(repository, "inner", inner).status_code == 201

    # when an index lists that index, and a build cache lists blobs
    outer = index_of(descriptor(json.dumps(inner).encode(), OCI_INDEX))
    cache = index_of(
        descriptor(CONFIG, "application/vnd.buildkit.cacheconfig.v0"),
        descriptor(b"{}", "application/vnd.oci.image.layer.v1.tar+gzip"),
    )
    # then both are accepted
    for tag, document in (("outer", outer), ("cache", cache)):
        assert tenants.owner.put_manifest(repository, tag, document).status_code == 201
        assert tenants.owner.on(repository, "GET", f"manifests/{tag}").json() == document


@pytest.mark.oci(98)
@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_a_foreign_layer_may_be_missing_only_with_urls(
    tenants: Tenants, repository: str, media_type: str
) -> None:
    manifest = image_manifest(CONFIG, [])
    manifest["layers"] = [descriptor(b"elsewhere", media_type)]
    assert codes(tenants.owner.put_manifest(repository, "f", manifest)) == ["MANIFEST_BLOB_UNKNOWN"]
    manifest["layers"][0]["urls"] = ["https://example.com/layer"]
    assert tenants.owner.put_manifest(repository, "f", manifest).status_code == 201
