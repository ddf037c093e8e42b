"""Authorization of pulls by the data plane: nine combinations of policies, three callers."""

import base64
import itertools
import json
import time
from uuid import uuid4

import pytest

from tests.oci_client import OciClient
from tests.tenants import Tenants

POLICIES = [
    (is_public, visibility)
    for is_public, visibility in itertools.product([False, True], ["inherit", "private", "public"])
]


def expected_public(*, is_public: bool, visibility: str) -> bool:
    return visibility == "public" or (visibility == "inherit" and is_public)


@pytest.mark.parametrize(("is_public", "visibility"), POLICIES)
@pytest.mark.parametrize("caller", ["owner", "stranger", "anonymous"])
def test_a_pull_is_authorized_by_policies_and_caller(
    tenants: Tenants, caller: str, visibility: str, *, is_public: bool
) -> None:
    # given an image with policies set through the API
    repository = tenants.image_with_policies(is_public=is_public, visibility=visibility)
    client = {"owner": tenants.owner, "stranger": tenants.stranger, "anonymous": tenants.anonymous}[caller]

    # when the caller pulls manifest and blob
    manifest = client.on(repository, "GET", "manifests/latest")
    blob = client.on(repository, "GET", f"blobs/{tenants.layer_digest}")

    # then the owner is always authorized, others for public images only; a 401 has a challenge
    allowed = caller == "owner" or expected_public(is_public=is_public, visibility=visibility)
    assert (manifest.status_code, blob.status_code) == ((200, 200) if allowed else (401, 401))
    if not allowed:
        assert 'error="insufficient_scope"' in manifest.headers["www-authenticate"]


@pytest.mark.parametrize(("is_public", "visibility"), POLICIES)
def test_a_public_image_can_be_pulled_without_an_authorization_header(
    tenants: Tenants, visibility: str, *, is_public: bool
) -> None:
    repository = tenants.image_with_policies(is_public=is_public, visibility=visibility)
    response = tenants.anonymous.http.get(f"/v2/{repository}/manifests/latest")
    public = expected_public(is_public=is_public, visibility=visibility)
    assert response.status_code == (200 if public else 401)


@pytest.mark.parametrize("switch", ["namespace", "image"])
def test_a_changed_policy_applies_to_the_next_pull_with_an_earlier_token(
    tenants: Tenants, switch: str
) -> None:
    # given a private image, and a stranger's token issued while it was public
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    assert tenants.stranger.on(repository, "GET", "manifests/latest").status_code == 200

    for public in (False, True, False):
        # when the owner changes the policy through the API
        if switch == "namespace":
            tenants.set_namespace(repository, is_public=public)
        else:
            tenants.set_image(repository, visibility="public" if public else "private")

        # then it applies to the next request with that token, and to the next anonymous one
        status = 200 if public else 401
        assert tenants.stranger.on(repository, "GET", "manifests/latest").status_code == status
        assert tenants.anonymous.http.get(f"/v2/{repository}/manifests/latest").status_code == status


def test_visibility_never_lets_a_stranger_push_or_delete(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="public")
    for client in (tenants.stranger, tenants.anonymous):
        assert client.on(repository, "POST", "blobs/uploads/").status_code == 401
        assert client.on(repository, "PUT", "manifests/x", content=b"{}").status_code == 401
        assert client.on(repository, "DELETE", "manifests/latest").status_code == 401
    assert tenants.owner.on(repository, "GET", "manifests/latest").status_code == 200


@pytest.mark.oci(160)
def test_invariant_9_missing_and_private_images_have_equal_responses(tenants: Tenants) -> None:
    # given a private image in a public namespace, and a missing image there
    private = tenants.image_with_policies(is_public=True, visibility="private")
    missing = f"{private.split('/')[0]}/never-{uuid4().hex[:8]}"
    no_namespace = f"none-{uuid4().hex[:8]}/app"

    # when an anonymous caller and a stranger request both, with and without a token
    for path in (
        "manifests/latest",
        "tags/list",
        f"blobs/{tenants.layer_digest}",
        f"referrers/{tenants.layer_digest}",
    ):
        responses = [
            [_shape(client, repository, path) for client in (tenants.stranger, tenants.anonymous)]
            for repository in (private, missing, no_namespace)
        ]
        # then the responses are equal except for the names
        assert responses[0] == responses[1] == responses[2]


def _shape(client: OciClient, repository: str, path: str) -> tuple[object, ...]:
    def without_names(text: str) -> str:
        namespace, _, _ = repository.partition("/")
        return text.replace(repository, "REPOSITORY").replace(namespace, "NAMESPACE")

    with_token = client.on(repository, "GET", path)
    without = client.http.get(f"/v2/{repository}/{path}")
    return tuple(
        (
            response.status_code,
            without_names(response.text),
            without_names(response.headers["www-authenticate"]),
        )
        for response in (with_token, without)
    )


@pytest.mark.oci(148)
def test_invariant_5_tokens_of_a_revoked_key_are_rejected_at_once(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    key = tenants.new_key("ContainerRegistryReadOnly")
    with OciClient(tenants.owner.host, key["secret_key"]) as client:
        assert client.on(repository, "GET", "manifests/latest").status_code == 200
        tenants.revoke(key["access_key"])
        response = client.on(repository, "GET", "manifests/latest")
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


@pytest.mark.parametrize("kid", ["unknown", "\0", "' OR 1=1", 7, None])
def test_a_token_with_an_unknown_key_id_is_rejected(tenants: Tenants, kid: object) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    parts = ({"alg": "EdDSA", "typ": "JWT", "kid": kid}, {"sub": "somebody"})
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )
    headers = {"Authorization": f"Bearer {token}.c2lnbmF0dXJl"}
    response = tenants.owner.http.get(f"/v2/{repository}/manifests/latest", headers=headers)
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_a_policy_change_applies_within_a_second_under_load(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    tenants.set_namespace(repository, is_public=False)
    changed = time.monotonic()
    statuses = {
        tenants.anonymous.http.get(f"/v2/{repository}/manifests/latest").status_code for _ in range(50)
    }
    assert statuses == {401}, f"{time.monotonic() - changed:.1f} s after the change"
