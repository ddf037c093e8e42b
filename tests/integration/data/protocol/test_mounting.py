"""Mounts of blobs from other repositories (OCI 80-86)."""

import os
from collections.abc import Callable

import pytest

from tests.integration.data.protocol.conftest import Pushed
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import digest_of
from tests.tenants import LAYER, Tenants

Connect = Callable[..., Wire]


@pytest.mark.oci(80)
def test_the_response_to_a_mount_is_that_of_an_upload(tenants: Tenants, image: Pushed, wire: Connect) -> None:
    target = tenants.repository()
    query = f"?mount={image.layer}&from={image.name}"
    response = wire().request("POST", f"/v2/{target}/blobs/uploads/{query}", body=b"")
    assert (response.status, response.body) == (201, b"")
    assert response.headers["Location"] == f"/v2/{target}/blobs/{image.layer}"
    assert response.headers["Docker-Content-Digest"] == image.layer
    assert wire().request("GET", response.headers["Location"]).body == LAYER


@pytest.mark.oci(81, 82)
@pytest.mark.parametrize(
    "source",
    ["{image}", "", "No/Such Name", "one", "no-such/namespace", "%00", "a/../b", "{target}", "x" * 300],
)
def test_a_blob_that_cannot_be_mounted_becomes_an_upload(
    tenants: Tenants, image: Pushed, wire: Connect, source: str
) -> None:
    # given a digest that no repository has
    target, connection, data = tenants.repository(), wire(), os.urandom(50)
    query = f"?mount={digest_of(data)}"
    if source:
        query += f"&from={source.format(image=image.name, target=target).replace(' ', '%20')}"
    response = connection.request("POST", f"/v2/{target}/blobs/uploads/{query}", body=b"")

    # then the response is an upload session
    assert (response.status, response.headers["Range"]) == (202, "0-0")
    session = response.headers["Location"]
    assert session.endswith(response.headers["Docker-Upload-UUID"])
    assert connection.request("PUT", f"{session}?digest={digest_of(data)}", body=data).status == 201


@pytest.mark.oci(81)
@pytest.mark.parametrize("query", ["?mount=", "?mount=&from=", "?mount=&from={image}", "?mount"])
def test_an_empty_mount_parameter_starts_an_upload(
    tenants: Tenants, image: Pushed, wire: Connect, query: str
) -> None:
    path = f"/v2/{tenants.repository()}/blobs/uploads/{query.format(image=image.name)}"
    response = wire().request("POST", path, body=b"")
    assert (response.status, response.headers["Range"]) == (202, "0-0")


@pytest.mark.oci(81, 83)
def test_a_blob_is_not_mounted_from_another_repository_than_the_source(
    tenants: Tenants, image: Pushed, wire: Connect
) -> None:
    target, other = tenants.repository(), tenants.repository()
    tenants.owner.push_blob(other, b"something else")
    query = f"?mount={image.layer}&from={other}"
    assert wire().request("POST", f"/v2/{target}/blobs/uploads/{query}", body=b"").status == 202


@pytest.mark.oci(80, 83)
def test_a_public_blob_can_be_mounted_by_every_tenant_until_it_is_private(tenants: Tenants) -> None:
    source = tenants.image_with_policies(is_public=True, visibility="inherit")
    for is_public, status in ((True, 201), (False, 202)):
        tenants.set_namespace(source, is_public=is_public)
        own = tenants.strangers_repository()
        params = {"mount": tenants.layer_digest, "from": source}
        scope = f"repository:{own}:pull,push repository:{source}:pull"
        tenants.stranger.tokens.pop(scope, None)
        response = tenants.stranger.call("POST", f"/v2/{own}/blobs/uploads/", scope=scope, params=params)
        assert response.status_code == status


@pytest.mark.oci(84)
def test_a_mount_without_the_right_to_push_names_both_scopes(
    tenants: Tenants, image: Pushed, wire: Connect
) -> None:
    target = tenants.repository()
    path = f"/v2/{target}/blobs/uploads/?mount={image.layer}&from={image.name}"
    both = f'scope="repository:{target}:pull,push repository:{image.name}:pull"'

    # when an anonymous caller mounts, and one whose token has another scope
    anonymous = wire(None).request("POST", path, body=b"")
    narrow = tenants.owner.call("POST", path, scope=f"repository:{image.name}:pull")

    # then the challenge contains both scopes
    assert anonymous.status == 401
    assert anonymous.headers["WWW-Authenticate"].endswith(both)
    assert narrow.status_code == 401
    assert both in narrow.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in narrow.headers["www-authenticate"]


@pytest.mark.oci(84)
@pytest.mark.parametrize("source", ["&from={image}", ""])
def test_a_token_that_does_not_cover_the_source_mounts_nothing(
    tenants: Tenants, image: Pushed, source: str
) -> None:
    # given a token whose holder may pull the source, but which was issued for the target only
    target = tenants.repository()
    path = f"/v2/{target}/blobs/uploads/?mount={image.layer}{source.format(image=image.name)}"
    push = f"repository:{target}:pull,push"

    # when it is used to mount, then the response is an upload, as if there were no such blob
    rejected = tenants.owner.call("POST", path, scope=push)
    assert (rejected.status_code, rejected.headers["range"]) == (202, "0-0")
    assert tenants.owner.on(target, "HEAD", f"blobs/{image.layer}").status_code == 404

    # and with a token that covers both, the blob is mounted
    assert tenants.owner.call("POST", path, scope=f"{push} repository:{image.name}:pull").status_code == 201


@pytest.mark.oci(85)
def test_a_blob_that_the_repository_has_is_mounted_from_any_source(tenants: Tenants, image: Pushed) -> None:
    for source in ({"from": image.name}, {"from": "no-such/namespace"}, {}):
        params = {"mount": image.layer, **source}
        assert tenants.owner.on(image.name, "POST", "blobs/uploads/", params=params).status_code == 201


@pytest.mark.oci(86)
def test_a_failed_mount_with_digest_and_body_starts_an_upload(tenants: Tenants, wire: Connect) -> None:
    target, connection, data = tenants.repository(), wire(), os.urandom(50)
    query = f"?mount={digest_of(data)}&digest={digest_of(data)}"
    response = connection.request("POST", f"/v2/{target}/blobs/uploads/{query}", body=data)
    assert response.status == 202
    session = response.headers["Location"]
    assert connection.request("PUT", f"{session}?digest={digest_of(data)}", body=data).status == 201
