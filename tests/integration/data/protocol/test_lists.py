"""Tags, catalog and referrers (OCI 113, 116-133)."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.data.protocol.conftest import CONFIG, Pushed
from tests.integration.data.protocol.wire import PER_RESPONSE, Wire
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, digest_of, image_manifest
from tests.tenants import Tenants

Connect = Callable[..., Wire]


@pytest.fixture
def repository(tenants: Tenants) -> str:
    """A repository that has the config blob."""
    name = tenants.repository()
    tenants.owner.push_blob(name, CONFIG)
    return name


def refer(
    tenants: Tenants, repository: str, subject: str, document: dict[str, Any] | None = None, **more: Any
) -> str:
    """Push a referrer by digest; returns its digest."""
    target = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}
    manifest = {**(document or image_manifest(CONFIG, [])), "subject": target, **more}
    reference = digest_of(json.dumps(manifest).encode())
    response = tenants.owner.put_manifest(repository, reference, manifest)
    assert (response.status_code, response.headers["oci-subject"]) == (201, subject)
    return reference


def referrers(tenants: Tenants, repository: str, subject: str, query: str = "") -> list[dict[str, Any]]:
    response = tenants.owner.on(repository, "GET", f"referrers/{subject}{query}")
    assert (response.status_code, response.headers["content-type"]) == (200, OCI_INDEX)
    index = response.json()
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    found: list[dict[str, Any]] = index["manifests"]
    return found


@pytest.mark.oci(116)
def test_a_repository_without_tags_has_an_empty_list(tenants: Tenants, repository: str) -> None:
    response = tenants.owner.on(repository, "GET", "tags/list")
    assert (response.status_code, response.json()) == (200, {"name": repository, "tags": []})
    assert response.headers["content-type"] == "application/json"


@pytest.mark.oci(118, 120)
@pytest.mark.parametrize(
    ("query", "tags", "next_query"),
    [
        ("?n=2", ["a", "b"], "n=2&last=b"),
        ("?n=2&last=b", ["c", "d"], None),
        ("?n=4", ["a", "b", "c", "d"], None),
        ("?n=3&last=a", ["b", "c", "d"], None),
        ("?n=1&last=", ["a"], "n=1&last=a"),
        ("?n=0", [], None),
        ("?n=100000", ["a", "b", "c", "d"], None),
    ],
)
def test_a_page_is_full_and_links_to_the_next(
    tenants: Tenants, repository: str, query: str, tags: list[str], next_query: str | None
) -> None:
    params = {"tag": ["d", "b", "a", "c"]}
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    tenants.owner.put_manifest(repository, digest_of(body), body, params=params)
    response = tenants.owner.on(repository, "GET", f"tags/list{query}")
    assert response.json()["tags"] == tags
    link = next_query and f'</v2/{repository}/tags/list?{next_query}>; rel="next"'
    assert response.headers.get("link") == link


@pytest.mark.oci(118)
@pytest.mark.parametrize("n", ["-1", "x", "", "1.5", "1e2", "%20", "%D9%A3"])
def test_an_invalid_page_length_is_rejected_by_every_list(image: Pushed, wire: Connect, n: str) -> None:
    connection = wire()
    for path in (f"{image.base}/tags/list", f"{image.base}/referrers/{image.manifest}", "/v2/_catalog"):
        response = connection.request("GET", f"{path}?n={n}")
        assert (response.status, response.codes) == (400, ["PAGINATION_NUMBER_INVALID"])


@pytest.mark.oci(119)
def test_a_page_begins_after_a_tag_that_was_deleted_meanwhile(tenants: Tenants, repository: str) -> None:
    for tag in "abcd":
        tenants.owner.put_manifest(repository, tag, image_manifest(CONFIG, []))
    first = tenants.owner.on(repository, "GET", "tags/list?n=2")
    assert tenants.owner.on(repository, "DELETE", "manifests/b").status_code == 202
    rest = tenants.owner.on(repository, "GET", first.links["next"]["url"].removeprefix(f"/v2/{repository}/"))
    assert rest.json()["tags"] == ["c", "d"]


@pytest.mark.oci(122)
def test_head_of_a_list_has_the_headers_of_get_and_no_body(image: Pushed, wire: Connect) -> None:
    connection = wire()
    paths = (f"{image.base}/tags/list", f"{image.base}/referrers/{image.manifest}", "/v2/_catalog?n=1&last=a")
    for path in paths:
        found, head = connection.request("GET", path), connection.request("HEAD", path)
        assert (found.status, head.status, head.body) == (200, 200, b"")
        assert dict(found.headers) | PER_RESPONSE == dict(head.headers) | PER_RESPONSE
        assert head.headers["Content-Length"] == str(len(found.body))


@pytest.mark.oci(113)
def test_tags_that_look_like_digests_are_tags(tenants: Tenants, repository: str) -> None:
    names = [f"sha256-{'a' * 64}{suffix}" for suffix in ("", ".att", ".sbom", ".sig")]
    for name in names:
        assert tenants.owner.put_manifest(repository, name, image_manifest(CONFIG, [])).status_code == 201
        assert tenants.owner.on(repository, "GET", f"manifests/{name}").status_code == 200
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == names


@pytest.mark.oci(121)
def test_the_catalog_needs_a_login_and_a_token_for_it(tenants: Tenants, image: Pushed, wire: Connect) -> None:
    scope = 'scope="registry:catalog:*"'
    anonymous = wire(None).request("GET", "/v2/_catalog")
    assert (anonymous.status, anonymous.headers["WWW-Authenticate"].endswith(scope)) == (401, True)
    narrow = tenants.owner.call("GET", "/v2/_catalog", scope=f"repository:{image.name}:pull")
    assert narrow.status_code == 401
    assert f'{scope},error="insufficient_scope"' in narrow.headers["www-authenticate"]
    # and a reader of this organization sees the image, through Basic as well
    reader = wire(tenants.new_key("ContainerRegistryReadOnly")["secret_key"])
    page = reader.request("GET", f"/v2/_catalog?n=1&last={image.name[:-1]}")
    assert json.loads(page.body) == {"repositories": [image.name]}


@pytest.mark.oci(124)
def test_an_unknown_subject_has_an_empty_list_of_referrers(tenants: Tenants, image: Pushed) -> None:
    unknown = digest_of(os.urandom(9))
    for repository in (image.name, tenants.repository()):
        for subject in (unknown, digest_of(b"", "sha512")):
            assert referrers(tenants, repository, subject) == []


@pytest.mark.oci(125)
def test_the_descriptor_of_a_referrer_has_all_fields(tenants: Tenants, repository: str) -> None:
    # given images with and without an artifact type, and indexes with and without
    subject, notes = digest_of(os.urandom(9)), {"a": "1", "org.example/ü": "", "b": "x" * 1000}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    typed = refer(tenants, repository, subject, artifactType="application/vnd.x+json", annotations=notes)
    plain = refer(tenants, repository, subject)
    typed_index = refer(tenants, repository, subject, index, artifactType="application/vnd.y")
    plain_index = refer(tenants, repository, subject, index, annotations={"a": "2"})

    # then each has a complete descriptor, in the order of the pushes
    found = referrers(tenants, repository, subject)
    assert [entry["digest"] for entry in found] == [typed, plain, typed_index, plain_index]
    assert [entry.get("artifactType") for entry in found] == [
        "application/vnd.x+json",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.y",
        None,
    ]
    assert [entry.get("annotations") for entry in found] == [notes, None, None, {"a": "2"}]
    assert [entry["mediaType"] for entry in found] == [OCI_MANIFEST] * 2 + [OCI_INDEX] * 2
    for entry in found:
        body = tenants.owner.on(repository, "GET", f"manifests/{entry['digest']}").content
        assert entry["size"] == len(body)


@pytest.mark.oci(126)
@pytest.mark.parametrize(
    ("artifact_type", "matches"),
    [
        ("application/vnd.a%2Bb;c=d", 1),
        ("application/vnd.a+b;c=d", 1),
        ("application/vnd.a", 0),
        ("application/*", 0),
        ("%00", 0),
    ],
)
def test_a_filter_matches_the_full_type_and_is_confirmed_also_for_an_empty_list(
    tenants: Tenants, repository: str, artifact_type: str, matches: int
) -> None:
    subject = digest_of(os.urandom(9))
    refer(tenants, repository, subject, artifactType="application/vnd.a+b;c=d")
    refer(tenants, repository, subject, artifactType="application/vnd.other")
    response = tenants.owner.on(repository, "GET", f"referrers/{subject}?artifactType={artifact_type}")
    assert response.headers["oci-filters-applied"] == "artifactType"
    assert len(response.json()["manifests"]) == matches
    assert "oci-filters-applied" not in tenants.owner.on(repository, "GET", f"referrers/{subject}").headers


@pytest.mark.oci(6, 126, 127)
def test_the_link_to_the_next_page_contains_a_filter_with_a_plus(tenants: Tenants, repository: str) -> None:
    subject = digest_of(os.urandom(9))
    for number in range(2):
        notes = {"number": str(number)}
        refer(tenants, repository, subject, artifactType="application/vnd.x+json", annotations=notes)
    first = tenants.owner.on(
        repository, "GET", f"referrers/{subject}?n=1&artifactType=application/vnd.x+json"
    )
    rest = first.links["next"]["url"].removeprefix(f"/v2/{repository}/")
    found = [*first.json()["manifests"], *tenants.owner.on(repository, "GET", rest).json()["manifests"]]
    assert [entry["annotations"]["number"] for entry in found] == ["0", "1"]


@pytest.mark.oci(126)
def test_an_empty_filter_is_ignored(tenants: Tenants, repository: str) -> None:
    subject = digest_of(os.urandom(9))
    refer(tenants, repository, subject)
    response = tenants.owner.on(repository, "GET", f"referrers/{subject}?artifactType=")
    assert len(response.json()["manifests"]) == 1
    assert "oci-filters-applied" not in response.headers


@pytest.mark.oci(106, 107, 128)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_subject_of_any_algorithm_need_not_exist(
    tenants: Tenants, repository: str, algorithm: str, by: str
) -> None:
    subject = digest_of(os.urandom(9), algorithm)
    target = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 9}
    manifest = image_manifest(CONFIG, [], subject=target)
    reference = "t" if by == "tag" else digest_of(json.dumps(manifest).encode())
    response = tenants.owner.put_manifest(repository, reference, manifest)
    assert (response.status_code, response.headers["oci-subject"]) == (201, subject)
    assert len(referrers(tenants, repository, subject)) == 1


@pytest.mark.oci(129)
def test_deleting_the_subject_leaves_its_referrers(tenants: Tenants, repository: str) -> None:
    subject = tenants.owner.put_manifest(repository, "s", image_manifest(CONFIG, []))
    digest = subject.headers["docker-content-digest"]
    referrer = refer(tenants, repository, digest)
    assert tenants.owner.on(repository, "DELETE", f"manifests/{digest}").status_code == 202
    assert [entry["digest"] for entry in referrers(tenants, repository, digest)] == [referrer]
    assert tenants.owner.on(repository, "DELETE", f"manifests/{referrer}").status_code == 202
    assert referrers(tenants, repository, digest) == []


@pytest.mark.oci(115, 131, 132, 172)
def test_a_referrer_is_listed_at_once_in_every_process_and_can_be_referred_to(
    tenants: Tenants, repository: str, wire: Connect
) -> None:
    subject = digest_of(os.urandom(9))
    for _ in range(5):  # a signature of a signature of ...
        referrer = refer(tenants, repository, subject)
        for _ in range(4):  # each time over a connection of its own, as another process may respond
            path = f"/v2/{repository}/referrers/{subject}"
            response = wire().request("GET", path, f"Accept: {OCI_INDEX}", "Connection: close")
            assert [entry["digest"] for entry in json.loads(response.body)["manifests"]] == [referrer]
        subject = referrer


@pytest.mark.oci(133)
def test_referrers_need_the_right_to_pull(tenants: Tenants, image: Pushed, wire: Connect) -> None:
    path = f"{image.base}/referrers/{image.manifest}"
    anonymous = wire(None).request("GET", path)
    assert anonymous.status == 401
    assert anonymous.headers["WWW-Authenticate"].endswith(f'scope="repository:{image.name}:pull"')
    assert tenants.owner.call("GET", path, scope=f"repository:{image.name}:pull").status_code == 200
    assert tenants.stranger.call("GET", path, scope=f"repository:{image.name}:pull").status_code == 401
    response = wire().request("GET", path)
    assert (response.status, response.headers["Cache-Control"]) == (200, "private, no-cache")
