"""A registry in read-only mode (OCI 145)."""

from collections.abc import Iterator

import pytest

from tests.oci_client import OciClient, image_manifest
from tests.services.plugin import Backing
from tests.services.stack import STATE, Stack
from tests.tenants import pushing

pytestmark = [pytest.mark.oci(145), pytest.mark.only_on("sqlite")]  # no SQL


@pytest.fixture(scope="module")
def unknown() -> str:
    return f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory, backing: Backing
) -> Iterator[tuple[OciClient, str, str, str]]:
    """A read-only registry with an image and an open upload: client, repository, digest, upload."""
    folder = tmp_path_factory.mktemp("read-only")
    stack = Stack(folder, environment=backing.migrated_environment(folder / STATE))
    with stack, pushing(stack) as (client, name):
        digest = client.push_image(name, "1", b"a layer")
        upload = client.start_upload(name)
        stack.environment["REGISTRY_READ_ONLY"] = "on"
        stack.restart()
        client.tokens.clear()
        yield client, name, digest, upload


def test_reads_succeed_and_writes_are_rejected_with_the_reason(
    repository: tuple[OciClient, str, str, str], unknown: str
) -> None:
    client, name, digest, upload = repository

    # when it is read, then requests succeed, including tokens by GET and POST
    layer = client.on(name, "GET", "manifests/1").json()["layers"][0]["digest"]
    for path in ("manifests/1", f"manifests/{digest}", f"blobs/{layer}", "tags/list", f"referrers/{digest}"):
        assert client.on(name, "GET", path).status_code == 200, path
        assert client.on(name, "HEAD", path).status_code == 200, path
    assert client.on(name, "GET", upload).status_code == 204
    form = {"grant_type": "password", "service": "registry", "password": client.secret or ""}
    assert client.http.post("/token", data=form).status_code == 200

    # and when it is written to, then the response is 405 with the reason, and nothing changes
    writes = [
        ("POST", "blobs/uploads/", ""),
        ("POST", f"blobs/uploads/?mount={layer}&from={name}", ""),
        ("PATCH", upload, "GET, HEAD"),
        ("PUT", upload + f"?digest={unknown}", "GET, HEAD"),
        ("DELETE", upload, "GET, HEAD"),
        ("DELETE", "manifests/1", "GET, HEAD"),
        ("DELETE", f"manifests/{digest}", "GET, HEAD"),
        ("DELETE", f"blobs/{layer}", "GET, HEAD"),
    ]
    responses = [(client.on(name, method, path, content=b""), allowed) for method, path, allowed in writes]
    responses.append((client.put_manifest(name, "2", image_manifest(b"{}", [])), "GET, HEAD"))
    for response, allowed in responses:
        assert (response.status_code, response.headers["allow"]) == (405, allowed)
        (error,) = response.json()["errors"]
        assert error["code"] == "UNSUPPORTED"
        assert "read-only" in error["message"]
        assert "administrator" in error["message"]
    assert client.on(name, "GET", "tags/list").json()["tags"] == ["1"]


def test_the_error_for_a_write_does_not_reveal_whether_a_repository_exists(
    repository: tuple[OciClient, str, str, str],
) -> None:
    client, name, _, _ = repository
    responses = [client.http.delete(f"/v2/{each}/manifests/1") for each in (name, "no-such-namespace/app")]
    assert responses[0].status_code == responses[1].status_code == 405
    assert responses[0].text == responses[1].text
