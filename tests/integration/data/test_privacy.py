"""Who may pull what, through the real data plane: nine combinations of policy, three callers."""

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
def test_policy_and_caller_decide_a_pull(
    tenants: Tenants, caller: str, visibility: str, *, is_public: bool
) -> None:
    # given an image under this pair of policies, set over the API
    repository = tenants.image_with_policies(is_public=is_public, visibility=visibility)
    client = {"owner": tenants.owner, "stranger": tenants.stranger, "anonymous": tenants.anonymous}[caller]

    # when the caller pulls manifest and blob
    manifest = client.on(repository, "GET", "manifests/latest")
    blob = client.on(repository, "GET", f"blobs/{tenants.layer_digest}")

    # then the owner always may, others only what is public; refusals come with a challenge
    allowed = caller == "owner" or expected_public(is_public=is_public, visibility=visibility)
    assert (manifest.status_code, blob.status_code) == ((200, 200) if allowed else (401, 401))
    if not allowed:
        assert 'error="insufficient_scope"' in manifest.headers["www-authenticate"]


@pytest.mark.parametrize(("is_public", "visibility"), POLICIES)
def test_a_public_image_needs_no_authorization_header_at_all(
    tenants: Tenants, visibility: str, *, is_public: bool
) -> None:
    repository = tenants.image_with_policies(is_public=is_public, visibility=visibility)
    answer = tenants.anonymous.http.get(f"/v2/{repository}/manifests/latest")
    public = expected_public(is_public=is_public, visibility=visibility)
    assert answer.status_code == (200 if public else 401)


@pytest.mark.parametrize("switch", ["namespace", "image"])
def test_a_changed_policy_decides_the_next_pull_even_with_an_old_token(tenants: Tenants, switch: str) -> None:
    # given a private image, and a stranger's token from a time when it was public
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    assert tenants.stranger.on(repository, "GET", "manifests/latest").status_code == 200

    for public in (False, True, False):
        # when the owner changes the policy over the API
        if switch == "namespace":
            tenants.set_namespace(repository, is_public=public)
        else:
            tenants.set_image(repository, visibility="public" if public else "private")

        # then it holds for the very next request with that token, and for anonymous ones
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
def test_invariant_9_missing_and_private_images_look_alike(tenants: Tenants) -> None:
    # given a private image in a public namespace, and one that was never pushed beside it
    private = tenants.image_with_policies(is_public=True, visibility="private")
    missing = f"{private.split('/')[0]}/never-{uuid4().hex[:8]}"
    no_namespace = f"none-{uuid4().hex[:8]}/app"

    # when nobody and a stranger ask, with a token and without
    for path in (
        "manifests/latest",
        "tags/list",
        f"blobs/{tenants.layer_digest}",
        f"referrers/{tenants.layer_digest}",
    ):
        answers = [
            [_shape(client, repository, path) for client in (tenants.stranger, tenants.anonymous)]
            for repository in (private, missing, no_namespace)
        ]
        # then there is nothing to tell them apart by
        assert answers[0] == answers[1] == answers[2]


def _shape(client: OciClient, repository: str, path: str) -> tuple[object, ...]:
    def without_names(text: str) -> str:
        namespace, _, _ = repository.partition("/")
        return text.replace(repository, "REPOSITORY").replace(namespace, "NAMESPACE")

    with_token = client.on(repository, "GET", path)
    without = client.http.get(f"/v2/{repository}/{path}")
    return tuple(
        (
            answer.status_code,
            without_names(answer.text),
            without_names(answer.headers["www-authenticate"]),
        )
        for answer in (with_token, without)
    )


@pytest.mark.oci(148)
def test_invariant_5_a_revoked_key_ends_its_tokens_at_once(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    key = tenants.new_key("ContainerRegistryReadOnly")
    with OciClient(tenants.owner.host, key["secret_key"]) as client:
        assert client.on(repository, "GET", "manifests/latest").status_code == 200
        tenants.revoke(key["access_key"])
        answer = client.on(repository, "GET", "manifests/latest")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("kid", ["unknown", "\0", "' OR 1=1", 7, None])
def test_a_token_that_names_a_strange_key_is_refused(tenants: Tenants, kid: object) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    parts = ({"alg": "EdDSA", "typ": "JWT", "kid": kid}, {"sub": "somebody"})
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )
    headers = {"Authorization": f"Bearer {token}.c2lnbmF0dXJl"}
    answer = tenants.owner.http.get(f"/v2/{repository}/manifests/latest", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_policy_change_shows_within_a_second_under_load(tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=True, visibility="inherit")
    tenants.set_namespace(repository, is_public=False)
    changed = time.monotonic()
    statuses = {
        tenants.anonymous.http.get(f"/v2/{repository}/manifests/latest").status_code for _ in range(50)
    }
    assert statuses == {401}, f"{time.monotonic() - changed:.1f} s after the change"
