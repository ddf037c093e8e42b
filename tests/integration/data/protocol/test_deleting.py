"""Deletion of tags, manifests and blobs (OCI 134-140, 167, 173)."""

import json
import os
from collections.abc import Callable

import pytest

from tests.integration.data.protocol.conftest import CONFIG, Pushed
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, OciClient, descriptor, digest_of, image_manifest
from tests.tenants import LAYER, Tenants

Connect = Callable[..., Wire]


@pytest.fixture
def pushed(tenants: Tenants) -> Pushed:
    """A new image for each test."""
    name = tenants.repository()
    return Pushed(name, tenants.owner.push_image(name, "latest", LAYER))


@pytest.mark.oci(134, 167)
def test_a_deleted_tag_is_404_at_once_and_its_manifest_remains(
    tenants: Tenants, pushed: Pushed, wire: Connect
) -> None:
    response = wire().request("DELETE", f"{pushed.base}/manifests/latest")
    assert (response.status, response.body) == (202, b"")
    for method in ("GET", "HEAD", "DELETE"):
        again = wire().request(method, f"{pushed.base}/manifests/latest", "Connection: close")
        assert again.status == 404
        assert method == "HEAD" or again.codes == ["MANIFEST_UNKNOWN"]
    assert tenants.owner.on(pushed.name, "GET", "tags/list").json()["tags"] == []
    assert tenants.owner.on(pushed.name, "HEAD", f"manifests/{pushed.manifest}").status_code == 200


@pytest.mark.oci(135, 139, 167)
def test_a_deleted_manifest_and_all_of_its_tags_are_404_at_once(
    tenants: Tenants, pushed: Pushed, wire: Connect
) -> None:
    body = tenants.owner.on(pushed.name, "GET", f"manifests/{pushed.manifest}").content
    other = image_manifest(CONFIG, [])
    tenants.owner.put_manifest(pushed.name, pushed.manifest, body, params={"tag": ["one", "two"]})
    tenants.owner.put_manifest(pushed.name, "other", other)
    assert wire().request("DELETE", f"{pushed.base}/manifests/{pushed.manifest}").status == 202
    for reference in (pushed.manifest, "latest", "one", "two"):
        for _ in range(3):
            gone = wire().request("GET", f"{pushed.base}/manifests/{reference}", "Connection: close")
            assert (gone.status, gone.codes) == (404, ["MANIFEST_UNKNOWN"])
    again = wire().request("DELETE", f"{pushed.base}/manifests/{pushed.manifest}")
    assert (again.status, again.codes) == (404, ["MANIFEST_UNKNOWN"])
    assert tenants.owner.on(pushed.name, "GET", "tags/list").json()["tags"] == ["other"]


@pytest.mark.oci(135, 136)
def test_missing_content_cannot_be_deleted(tenants: Tenants, pushed: Pushed, wire: Connect) -> None:
    nothing = digest_of(os.urandom(9))
    for repository in (pushed.name, tenants.repository()):
        for path, code in (
            ("manifests/none", "MANIFEST_UNKNOWN"),
            (f"manifests/{nothing}", "MANIFEST_UNKNOWN"),
            (f"blobs/{nothing}", "BLOB_UNKNOWN"),
        ):
            response = wire().request("DELETE", f"/v2/{repository}/{path}")
            assert (response.status, response.codes) == (404, [code])


@pytest.mark.oci(136)
def test_a_deleted_blob_is_404_and_remains_in_other_repositories(tenants: Tenants, wire: Connect) -> None:
    here, there, data = tenants.repository(), tenants.repository(), os.urandom(100)
    for repository in (here, there):
        digest = tenants.owner.push_blob(repository, data)
    assert wire().request("DELETE", f"/v2/{here}/blobs/{digest}").status == 202
    for _ in range(6):
        gone = wire().request("HEAD", f"/v2/{here}/blobs/{digest}", "Connection: close")
        assert gone.status == 404
    assert tenants.owner.on(there, "GET", f"blobs/{digest}").content == data
    # and it can be pushed again
    tenants.owner.push_blob(here, data)
    assert tenants.owner.on(here, "GET", f"blobs/{digest}").content == data


@pytest.mark.oci(138)
def test_a_manifest_that_an_index_lists_can_be_deleted(tenants: Tenants, pushed: Pushed) -> None:
    body = tenants.owner.on(pushed.name, "GET", f"manifests/{pushed.manifest}").content
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(body, OCI_MANIFEST)]}
    assert tenants.owner.put_manifest(pushed.name, "index", index).status_code == 201
    assert tenants.owner.on(pushed.name, "DELETE", f"manifests/{pushed.manifest}").status_code == 202
    # then the index can still be read, and the child is 404
    assert tenants.owner.on(pushed.name, "GET", "manifests/index").json() == index
    assert tenants.owner.on(pushed.name, "HEAD", f"manifests/{pushed.manifest}").status_code == 404


@pytest.mark.oci(140, 147)
@pytest.mark.parametrize(
    ("actions", "status"),
    [("delete", 202), ("*", 202), ("delete,pull", 202), ("pull,push", 401), ("pull", 401), ("", 401)],
)
def test_deletion_needs_a_token_with_delete_or_an_asterisk(
    tenants: Tenants, pushed: Pushed, actions: str, status: int
) -> None:
    for path in ("manifests/latest", f"manifests/{pushed.manifest}", f"blobs/{pushed.layer}"):
        response = tenants.owner.call(
            "DELETE", f"{pushed.base}/{path}", scope=f"repository:{pushed.name}:{actions}"
        )
        assert response.status_code == status
        if status == 401:
            challenge = response.headers["www-authenticate"]
            assert f'scope="repository:{pushed.name}:delete"' in challenge
            assert 'error="insufficient_scope"' in challenge


@pytest.mark.oci(139, 140)
def test_crane_requests_pull_and_push_first_and_adds_delete_after_the_401(
    tenants: Tenants, pushed: Pushed
) -> None:
    path, scopes = f"{pushed.base}/manifests/{pushed.manifest}", f"repository:{pushed.name}:push,pull"
    rejected = tenants.owner.call("DELETE", path, scope=scopes)
    assert rejected.status_code == 401
    wanted = rejected.headers["www-authenticate"].split('scope="')[1].split('"')[0]
    assert tenants.owner.call("DELETE", path, scope=f"{scopes} {wanted}").status_code == 202


@pytest.mark.oci(140)
def test_a_pusher_without_the_right_may_not_delete(tenants: Tenants, pushed: Pushed) -> None:
    key = tenants.new_key("ContainerRegistryPush")
    with OciClient(tenants.owner.host, key["secret_key"]) as pusher:
        for scope in ("*", "delete", "delete,pull,push"):
            response = pusher.call(
                "DELETE", f"{pushed.base}/manifests/latest", scope=f"repository:{pushed.name}:{scope}"
            )
            assert response.status_code == 401
    assert tenants.owner.on(pushed.name, "HEAD", "manifests/latest").status_code == 200


@pytest.mark.oci(173)
def test_a_download_continues_when_its_blob_is_deleted(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(8_000_000)
    digest = tenants.owner.push_blob(repository, data)
    with (
        OciClient(tenants.owner.host, tenants.owner.secret) as other,
        tenants.owner.stream(repository, f"blobs/{digest}") as response,
    ):
        pieces = response.iter_raw()
        got = next(pieces)
        assert other.on(repository, "DELETE", f"blobs/{digest}").status_code == 202
        assert other.on(repository, "HEAD", f"blobs/{digest}").status_code == 404
        got += b"".join(pieces)
    assert got == data


@pytest.mark.oci(137)
def test_a_blob_listed_only_by_an_index_cannot_be_deleted(tenants: Tenants) -> None:
    repository = tenants.repository()
    digest = tenants.owner.push_blob(repository, CONFIG)
    entry = descriptor(CONFIG, "application/vnd.buildkit.cacheconfig.v0")
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    assert tenants.owner.put_manifest(repository, "cache", index).status_code == 201
    rejected = tenants.owner.on(repository, "DELETE", f"blobs/{digest}")
    assert (rejected.status_code, json.loads(rejected.content)["errors"][0]["code"]) == (405, "UNSUPPORTED")
    assert tenants.owner.on(repository, "GET", f"blobs/{digest}").content == CONFIG
