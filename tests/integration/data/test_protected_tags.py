"""Protected tags on the data plane of a running registry: 403 DENIED with the rule."""

from tests.oci_client import image_manifest
from tests.services.waiting import wait_until
from tests.tenants import Tenants


def test_the_data_plane_refuses_to_move_and_to_delete_a_protected_tag(tenants: Tenants) -> None:
    # given a protected tag, whose manifest has another tag as well
    repository, owner = tenants.repository(), tenants.owner
    digest = owner.push_image(repository, "v1", b"one")
    manifest = owner.on(repository, "GET", "manifests/v1").json()
    owner.put_manifest(repository, "other", manifest)
    owner.push_blob(repository, b"{}")
    tenants.set_retention(repository, protected_tags=["v*"], protected_except=["*-rc"])

    # when a client moves or deletes it, by tag or by digest, then the answer names the rule
    new = image_manifest(b"{}", [])
    responses = [
        owner.put_manifest(repository, "v1", new),
        owner.on(repository, "DELETE", "manifests/v1"),
        owner.on(repository, "DELETE", f"manifests/{digest}"),
    ]
    for response in responses:
        (error,) = response.json()["errors"]
        assert (response.status_code, error["code"]) == (403, "DENIED")
        assert f'tag v1 of {repository} is protected by the rule "v*"' in error["message"]
        assert error["detail"] == {"tag": "v1", "rule": "v*"}
    assert owner.on(repository, "HEAD", "manifests/v1").headers["docker-content-digest"] == digest

    # and everything else is accepted: the same digest, a new tag, an exception, another tag
    for tag, body in (("v1", manifest), ("v2", new), ("v3-rc", manifest), ("v3-rc", new), ("other", new)):
        assert owner.put_manifest(repository, tag, body).status_code == 201, tag
    assert owner.on(repository, "DELETE", "manifests/v3-rc").status_code == 202


def test_the_worker_enforces_rules_within_a_minute_of_their_put(tenants: Tenants) -> None:
    repository, owner = tenants.repository(), tenants.owner
    for tag in ("a", "b", "c"):
        owner.push_image(repository, tag, tag.encode())
    tenants.set_retention(repository, rules=[{"images": "*", "tags": "*", "keep_newest": 1}])
    wait_until(lambda: owner.on(repository, "GET", "tags/list").json()["tags"] == ["c"], timeout=60)
