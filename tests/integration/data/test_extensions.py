"""Extension discovery, and the `ns` parameter of clients with mirrors (OCI 7, 177-179)."""

import pytest

from tests.oci_client import OCI_MANIFEST, digest_of, image_manifest
from tests.tenants import Tenants

DISCOVER = "_oci/ext/discover"


@pytest.mark.oci(178)
def test_extensions_of_the_registry_are_listed_for_authenticated_callers(tenants: Tenants) -> None:
    response = tenants.owner.call("GET", f"/v2/{DISCOVER}", scope="")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    found = {extension["name"]: extension for extension in response.json()["extensions"]}
    assert set(found) == {"_oci", "_catalog"}
    for extension in found.values():
        assert extension["url"].startswith("https://")
        for endpoint in extension["endpoints"]:
            scope = "registry:catalog:*"
            assert tenants.owner.call("GET", f"/v2/{endpoint}", scope=scope).status_code == 200
    head = tenants.owner.call("HEAD", f"/v2/{DISCOVER}", scope="")
    assert (head.status_code, head.content) == (200, b"")
    rejected = tenants.anonymous.http.get(f"/v2/{DISCOVER}")
    assert rejected.status_code == 401
    assert "scope" not in rejected.headers["www-authenticate"]


@pytest.mark.oci(178)
def test_extensions_of_a_repository_are_listed_for_callers_that_may_pull(tenants: Tenants) -> None:
    # given a private image whose name contains keywords of other routes
    repository = f"{tenants.repository()}/manifests/tags/list"
    tenants.owner.push_image(repository, "1", b"x")
    scope = {"scope": f"repository:{repository}:pull"}

    # when its extensions are requested, then only a caller that may pull gets the list
    path = f"/v2/{repository}/{DISCOVER}"
    response = tenants.owner.call("GET", path, **scope)
    assert response.status_code == 200
    assert [extension["name"] for extension in response.json()["extensions"]] == ["_oci"]
    assert tenants.anonymous.http.get(path).status_code == 401
    assert tenants.stranger.call("GET", path, **scope).status_code == 401
    unknown = tenants.owner.on(f"{repository}-none", "GET", DISCOVER)
    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


@pytest.mark.oci(10, 178, 179)
@pytest.mark.parametrize(
    "path", ["/v2/_other/ext/x", "/v2/_oci/ext/other", "/v2/a/b/_oci/tag-history/x", "/v1/search", "/v2/_oci"]
)
def test_an_unknown_extension_is_unsupported(tenants: Tenants, path: str) -> None:
    response = tenants.owner.call("GET", path, scope="")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (404, "UNSUPPORTED")


@pytest.mark.oci(10, 178)
def test_extensions_are_read_only(tenants: Tenants) -> None:
    response = tenants.owner.call("POST", f"/v2/{DISCOVER}", scope="")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.oci(7, 177)
def test_the_ns_parameter_of_clients_with_mirrors_is_ignored(tenants: Tenants) -> None:
    # given a client that adds ?ns= to every request, as containerd does with mirrors
    repository, blob = tenants.repository(), b"{}"
    manifest = image_manifest(blob, [])
    ns = {"ns": "docker.io"}

    # when it pushes and pulls
    started = tenants.owner.on(repository, "POST", "blobs/uploads/", params=ns)
    upload = started.headers["location"].removeprefix(f"/v2/{repository}/")
    query = {"digest": digest_of(blob), **ns}
    responses = [
        started,
        tenants.owner.on(repository, "PUT", upload, params=query, content=blob),
        tenants.owner.put_manifest(repository, "1", manifest, params=ns),
        tenants.owner.on(repository, "GET", "manifests/1", params=ns),
        tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(blob)}", params=ns),
        tenants.owner.on(repository, "GET", f"blobs/{digest_of(blob)}", params=ns),
        tenants.owner.on(repository, "GET", "tags/list", params=ns),
        tenants.owner.on(repository, "GET", f"referrers/{digest_of(blob)}", params=ns),
    ]

    # then it gets the content of this registry, and no response names another one
    assert [response.status_code for response in responses] == [202, 201, 201, 200, 200, 200, 200, 200]
    assert responses[3].headers["content-type"] == OCI_MANIFEST
    assert not any("oci-namespace" in response.headers for response in responses)
