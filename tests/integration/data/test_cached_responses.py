"""Cached responses of a running registry: a change acts on the next request, in every process."""

from typing import Any

import httpx

from tests.oci_client import OCI_MANIFEST, OciClient, descriptor, image_manifest
from tests.tenants import LAYER, Tenants


def test_invariant_5_what_was_just_answered_does_not_outlive_a_change(tenants: Tenants) -> None:
    # given an image that all processes have sent again and again
    owner, stranger = tenants.owner, tenants.stranger
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    for number in range(6):
        # when the tag moves, then its old manifest is never seen again
        pushed = owner.push_image(repository, "latest", b"layer %d" % number)
        assert {_digest(owner, repository) for _ in range(10)} == {pushed}

        # when the image becomes private, then the very next pull of a stranger is refused
        assert _statuses(stranger, repository) == {200}
        tenants.set_image(repository, visibility="private")
        assert _statuses(stranger, repository) == {401}
        tenants.set_image(repository, visibility="inherit")

    # when the tag is deleted, then it is gone at once
    assert owner.on(repository, "DELETE", "manifests/latest").status_code == 202
    assert _statuses(owner, repository) == {404}


def test_invariant_5_a_revoked_key_sees_nothing_more_of_what_it_just_pulled(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    for _ in range(2):
        key = tenants.new_key("ContainerRegistryReadOnly")
        with OciClient(tenants.owner.host, key["secret_key"]) as robot:
            assert _statuses(robot, repository) == {200}
            tenants.manage("delete_key", key["access_key"])
            assert _statuses(robot, repository) == {401}


def test_invariant_5_a_list_that_was_just_answered_does_not_outlive_a_change(tenants: Tenants) -> None:
    # given lists that all processes have sent again and again
    repository = tenants.repository()
    subject = tenants.owner.push_image(repository, "first", LAYER)
    tags, referrers = "tags/list", f"referrers/{subject}"
    catalog = f"/v2/_catalog?n=1&last={repository[:-1]}"
    assert _lists(tenants.owner, repository, tags) == {("first",)}
    assert _lists(tenants.owner, repository, referrers) == {()}
    assert _lists(tenants.owner, repository, catalog) == {(repository,)}

    # when a tag, a referrer and a repository come, then each stands in the very next list
    signature = tenants.owner.put_manifest(
        repository, "signature", image_manifest(LAYER, [LAYER], subject=_subject(tenants.owner, repository))
    ).headers["docker-content-digest"]
    assert _lists(tenants.owner, repository, tags) == {("first", "signature")}
    assert _lists(tenants.owner, repository, referrers) == {(signature,)}
    tenants.owner.push_image(f"{repository[:-1]}a", "latest", LAYER)
    assert _lists(tenants.owner, repository, catalog) == {(f"{repository[:-1]}a",)}

    # when what they list goes, then so does its line
    assert tenants.owner.on(repository, "DELETE", f"manifests/{signature}").status_code == 202
    assert _lists(tenants.owner, repository, tags) == {("first",)}
    assert _lists(tenants.owner, repository, referrers) == {()}


def test_invariant_5_a_stranger_sees_a_list_only_while_the_image_is_public(tenants: Tenants) -> None:
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
    return {answer.status_code for answer in _answers(client, repository, path)}


def _lists(client: OciClient, repository: str, path: str) -> set[tuple[str, ...]]:
    """What the list holds; one element when all processes agree."""
    found = set()
    for answer in _answers(client, repository, path):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        listed = body.get("tags", body.get("repositories"))
        found.add(tuple(listed if listed is not None else (each["digest"] for each in body["manifests"])))
    return found


def _answers(client: OciClient, repository: str, path: str) -> list[httpx.Response]:
    """A token made before, and each request on a connection of its own, so that all processes are met."""
    scope = f"repository:{repository}:pull"
    if path.startswith("/"):
        scope = "registry:catalog:*"
    else:
        path = f"/v2/{repository}/{path}"
    headers = {"Authorization": f"Bearer {client.token(scope)}", "Connection": "close"}
    return [client.http.get(path, headers=headers) for _ in range(10)]
