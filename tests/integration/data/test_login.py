"""Logins to the data plane, as by docker and containerd (OCI 28-29, 153-156)."""

import httpx
import pytest

from tests.oci_client import OciClient
from tests.services.stack import Stack
from tests.tenants import Tenants

DOCKER = {"account": "x", "client_id": "docker", "offline_token": "true", "service": "registry"}


def login(client: OciClient) -> httpx.Response:
    response = client.http.get("/token", params=DOCKER, auth=("x", client.secret or ""))
    assert response.status_code == 200, response.text
    return response


def refresh(client: OciClient, token: str, scope: str = "") -> httpx.Response:
    form = {"grant_type": "refresh_token", "service": "registry", "client_id": "docker"}
    return client.http.post("/token", data={**form, "refresh_token": token, "scope": scope})


def pull(client: OciClient, repository: str, token: str) -> int:
    """The status of a pull with a token issued for a refresh token."""
    response = refresh(client, token, f"repository:{repository}:pull")
    assert response.status_code == 200, response.text
    headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
    return client.http.get(f"/v2/{repository}/manifests/latest", headers=headers).status_code


@pytest.mark.oci(29, 153, 154, 155, 156)
def test_a_refresh_token_is_valid_until_its_key_is_revoked(tenants: Tenants, stack: Stack) -> None:
    # given a login with a read-only key
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    key = tenants.new_key("ContainerRegistryReadOnly")
    with OciClient(tenants.owner.host, key["secret_key"]) as client:
        response = login(client)
        token = response.json()["refresh_token"]
        bearer = {"Authorization": f"Bearer {response.json()['token']}"}
        assert client.http.get("/v2/", headers=bearer).status_code == 200

        # when it pulls repeatedly, then it is authorized, but not in a stranger's repository
        assert [pull(client, repository, token) for _ in range(2)] == [200, 200]
        assert pull(client, tenants.strangers_repository(), token) == 401

        # and when the key is revoked, then no token is issued, and the error tells the user to log in again
        tenants.revoke(key["access_key"])
        rejected = refresh(client, token)
        assert rejected.status_code == 401
        assert "log in again" in rejected.json()["message"]
    assert token not in stack.log


@pytest.mark.oci(154)
def test_a_refresh_token_is_neither_a_password_nor_a_token(tenants: Tenants) -> None:
    token = login(tenants.owner).json()["refresh_token"]
    http = tenants.anonymous.http
    assert http.get("/v2/", auth=("x", token)).status_code == 401
    assert http.get("/v2/", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert http.get("/token", params=DOCKER, auth=("x", token)).status_code == 401


@pytest.mark.oci(28, 157)
def test_an_anonymous_caller_gets_a_token_but_no_refresh_token(tenants: Tenants) -> None:
    assert tenants.anonymous.http.get("/v2/").status_code == 401
    response = tenants.anonymous.http.get("/token", params=DOCKER)
    assert response.status_code == 200
    assert "refresh_token" not in response.json()
