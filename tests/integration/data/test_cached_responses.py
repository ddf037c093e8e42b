"""Cached responses of a running registry: a change applies to the next request, in every process."""

from typing import Any

import httpx

from tests.oci_client import OCI_MANIFEST, OciClient, descriptor, image_manifest
from tests.tenants import LAYER, Tenants


def test_invariant_5_a_cached_manifest_is_not_sent_after_a_change(tenants: Tenants) -> None:
    # given a manifest that all processes have cached
    owner, stranger = tenants.owner, tenants.stranger
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    for number in range(6):
        # when the tag moves, then its old manifest is not sent any more
        pushed = owner.push_image(repository, "latest", b"layer %d" % number)
        assert {_digest(owner, repository) for _ in range(10)} == {pushed}

        # when the image becomes private, then the next pull of a stranger is rejected
        assert _statuses(stranger, repository) == {200}
        tenants.set_image(repository, visibility="private")
        assert _statuses(stranger, repository) == {401}
        tenants.set_image(repository, visibility="inherit")

    # when the tag is deleted, then the next pull is 404
    assert owner.on(repository, "DELETE", "manifests/latest").status_code == 202
    assert _statuses(owner, repository) == {404}


def test_invariant_5_a_revoked_key_gets_no_cached_manifest(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    for _ in range(2):
        key = tenants.new_key("ContainerRegistryReadOnly")
        with OciClient(tenants.owner.host, key["secret_key"]) as robot:
            assert _statuses(robot, repository) == {200}
            tenants.manage("delete_key", key["access_key"])
            assert _statuses(robot, repository) == {401}


def test_invariant_5_a_cached_list_is_not_sent_after_a_change(tenants: Tenants) -> None:
    # given lists that all processes have cached
    repository = tenants.repository()
    subject = tenants.owner.push_image(repository, "first", LAYER)
    tags, referrers = "tags/list", f"referrers/{subject}"
    catalog = f"/v2/_catalog?n=1&last={repository[:-1]}"
    assert _lists(tenants.owner, repository, tags) == {("first",)}
    assert _lists(tenants.owner, repository, referrers) == {()}
    assert _lists(tenants.owner, repository, catalog) == {(repository,)}

    # when a tag, a referrer and a repository are created, then the next response lists them
    signature = tenants.owner.put_manifest(
        repository, "signature", image_manifest(LAYER, [LAYER], subject=_subject(tenants.owner, repository))
    ).headers["docker-content-digest"]
    assert _lists(tenants.owner, repository, tags) == {("first", "signature")}
    assert _lists(tenants.owner, repository, referrers) == {(signature,)}
    tenants.owner.push_image(f"{repository[:-1]}a", "latest", LAYER)
    assert _lists(tenants.owner, repository, catalog) == {(f"{repository[:-1]}a",)}

    # when the manifest is deleted, then the next responses do not list it
    assert tenants.owner.on(repository, "DELETE", f"manifests/{signature}").status_code == 202
    assert _lists(tenants.owner, repository, tags) == {("first",)}
    assert _lists(tenants.owner, repository, referrers) == {()}


def test_invariant_5_a_stranger_gets_a_list_only_while_the_image_is_public(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    for _ in range(3):
        assert _statuses(tenants.stranger, repository, "tags/list") == {200}
        tenants.set_image(repository, visibility="private")
        assert _statuses(tenants.stranger, repository, "tags/list") == {401}
        tenants.set_image(repository, visibility="inherit")


def _subject(client: OciClient, repository: str) -> dict[str, Any]:
    return descriptor(client.on(repository, "GET", "manifests/first").content, OCI_MANIFEST)


def _digest(client: OciClient, repository: str) -> str:
    return str(client.on(repository, "HEAD", "manifests/latest").headers["docker-content-digest"])


def _statuses(client: OciClient, repository: str, path: str = "manifests/latest") -> set[int]:
    return {response.status_code for response in _answers(client, repository, path)}


def _lists(client: OciClient, repository: str, path: str) -> set[tuple[str, ...]]:
    """The distinct contents of the list; one element if all processes agree."""
    found = set()
    for response in _answers(client, repository, path):
        assert response.status_code == 200, response.text
        body = response.json()
        listed = body.get("tags", body.get("repositories"))
        found.add(tuple(listed if listed is not None else (each["digest"] for each in body["manifests"])))
    return found


def _answers(client: OciClient, repository: str, path: str) -> list[httpx.Response]:
    """Responses with one token; each request has its own connection, so that every process receives some."""
    scope = f"repository:{repository}:pull"
    if path.startswith("/"):
        scope = "registry:catalog:*"
    else:
        path = f"/v2/{repository}/{path}"
    headers = {"Authorization": f"Bearer {client.token(scope)}", "Connection": "close"}
    return [client.http.get(path, headers=headers) for _ in range(10)]
