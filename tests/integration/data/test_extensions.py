"""Extensions and how they are found, and the `ns` of mirrors (OCI 7, 177-179)."""

import pytest

from tests.oci_client import OCI_MANIFEST, digest_of, image_manifest
from tests.tenants import Tenants

DISCOVER = "_oci/ext/discover"


@pytest.mark.oci(178)
def test_the_registrys_extensions_are_listed_for_whoever_may_log_in(tenants: Tenants) -> None:
    answer = tenants.owner.call("GET", f"/v2/{DISCOVER}", scope="")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = {extension["name"]: extension for extension in answer.json()["extensions"]}
    assert set(found) == {"_oci", "_catalog"}
    for extension in found.values():
        assert extension["url"].startswith("https://")
        for endpoint in extension["endpoints"]:
            scope = "registry:catalog:*"
            assert tenants.owner.call("GET", f"/v2/{endpoint}", scope=scope).status_code == 200
    head = tenants.owner.call("HEAD", f"/v2/{DISCOVER}", scope="")
    assert (head.status_code, head.content) == (200, b"")
    refused = tenants.anonymous.http.get(f"/v2/{DISCOVER}")
    assert refused.status_code == 401
    assert "scope" not in refused.headers["www-authenticate"]


@pytest.mark.oci(178)
def test_a_repositorys_extensions_are_listed_for_whoever_may_pull(tenants: Tenants) -> None:
    # given a private image whose name has the words of other routes in it
    repository = f"{tenants.repository()}/manifests/tags/list"
    tenants.owner.push_image(repository, "1", b"x")
    scope = {"scope": f"repository:{repository}:pull"}

    # when its extensions are asked for, then who may pull is told, and others learn nothing
    path = f"/v2/{repository}/{DISCOVER}"
    answer = tenants.owner.call("GET", path, **scope)
    assert answer.status_code == 200
    assert [extension["name"] for extension in answer.json()["extensions"]] == ["_oci"]
    assert tenants.anonymous.http.get(path).status_code == 401
    assert tenants.stranger.call("GET", path, **scope).status_code == 401
    unknown = tenants.owner.on(f"{repository}-none", "GET", DISCOVER)
    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


@pytest.mark.oci(10, 178, 179)
@pytest.mark.parametrize(
    "path", ["/v2/_other/ext/x", "/v2/_oci/ext/other", "/v2/a/b/_oci/tag-history/x", "/v1/search", "/v2/_oci"]
)
def test_an_extension_that_is_not_here_is_unsupported(tenants: Tenants, path: str) -> None:
    answer = tenants.owner.call("GET", path, scope="")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "UNSUPPORTED")


@pytest.mark.oci(10, 178)
def test_extensions_are_only_to_be_read(tenants: Tenants) -> None:
    answer = tenants.owner.call("POST", f"/v2/{DISCOVER}", scope="")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.oci(7, 177)
def test_the_namespace_that_a_mirrors_client_adds_changes_nothing(tenants: Tenants) -> None:
    # given a client that adds ?ns= to whatever it asks for, as containerd does with mirrors
    repository, blob = tenants.repository(), b"{}"
    manifest = image_manifest(blob, [])
    ns = {"ns": "docker.io"}

    # when it pushes and pulls
    started = tenants.owner.on(repository, "POST", "blobs/uploads/", params=ns)
    upload = started.headers["location"].removeprefix(f"/v2/{repository}/")
    query = {"digest": digest_of(blob), **ns}
    answers = [
        started,
        tenants.owner.on(repository, "PUT", upload, params=query, content=blob),
        tenants.owner.put_manifest(repository, "1", manifest, params=ns),
        tenants.owner.on(repository, "GET", "manifests/1", params=ns),
        tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(blob)}", params=ns),
        tenants.owner.on(repository, "GET", f"blobs/{digest_of(blob)}", params=ns),
        tenants.owner.on(repository, "GET", "tags/list", params=ns),
        tenants.owner.on(repository, "GET", f"referrers/{digest_of(blob)}", params=ns),
    ]

    # then it gets what is here, and no answer claims to come from elsewhere
    assert [answer.status_code for answer in answers] == [202, 201, 201, 200, 200, 200, 200, 200]
    assert answers[3].headers["content-type"] == OCI_MANIFEST
    assert not any("oci-namespace" in answer.headers for answer in answers)
