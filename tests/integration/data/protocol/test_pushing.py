"""Pushes of manifests (OCI 87-115)."""

import json
from collections.abc import Callable

import pytest

from tests.integration.data.protocol.conftest import CONFIG
from tests.integration.data.protocol.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY_TYPE,
    codes,
    index_of,
)
from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, image_manifest
from tests.tenants import Tenants

Connect = Callable[..., Wire]


@pytest.mark.oci(87)
@pytest.mark.parametrize("by", ["tag", "sha256", "sha512"])
def test_a_pushed_manifest_is_at_the_location_of_its_201(repository: str, wire: Connect, by: str) -> None:
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    digest = digest_of(body, "sha256" if by == "tag" else by)
    path = f"/v2/{repository}/manifests/{'latest' if by == 'tag' else digest}"
    response = wire().request("PUT", path, f"Content-Type: {OCI_MANIFEST}", body=body)
    assert (response.status, response.body) == (201, b"")
    assert response.headers["Docker-Content-Digest"] == digest
    assert response.headers["Location"] == f"/v2/{repository}/manifests/{digest}"
    assert response.headers["OCI-Subject"] is None
    for _ in range(8):  # each time over a connection of its own, as another process may respond
        found = wire().request("GET", response.headers["Location"], "Connection: close")
        assert (found.status, found.body) == (200, body)


@pytest.mark.oci(88, 102)
@pytest.mark.parametrize(
    "body",
    [
        b'{ "schemaVersion" :2,"config":%s,  "layers":[ ] }\n\n',
        b'\t{"layers":[],"config":%s,"schemaVersion":2,"unknown":{"z":1,"a":[1.50,1e3,true,null,"\\u00fc"]}}',
        b'{"schemaVersion":2,"config":%s,"layers":[],"annotations":{"b":"\xc3\xbc","a":""},"artifactType":"x/y"}',
    ],
)
def test_no_byte_of_a_manifest_is_changed(tenants: Tenants, repository: str, body: bytes) -> None:
    config = {**descriptor(b"{}", EMPTY_TYPE), "data": "e30=", "platform": {"os": "x"}}
    exact = body % json.dumps(config).encode()
    response = tenants.owner.put_manifest(repository, "odd", exact)
    assert (response.status_code, response.headers["docker-content-digest"]) == (201, digest_of(exact))
    assert tenants.owner.on(repository, "GET", "manifests/odd").content == exact


@pytest.mark.oci(102)
def test_data_is_never_added_to_a_descriptor(tenants: Tenants, repository: str) -> None:
    manifest = image_manifest(b"{}", [b"{}"])
    tenants.owner.put_manifest(repository, "plain", manifest)
    assert tenants.owner.on(repository, "GET", "manifests/plain").json() == manifest


@pytest.mark.oci(89)
def test_a_manifest_with_a_wrong_digest_is_not_stored(tenants: Tenants, repository: str) -> None:
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    for algorithm in ("sha256", "sha512"):
        wrong = digest_of(body + b" ", algorithm)
        response = tenants.owner.put_manifest(repository, wrong, body, params={"tag": "t"})
        assert (response.status_code, codes(response)) == (400, ["DIGEST_INVALID"])
        assert tenants.owner.on(repository, "HEAD", f"manifests/{wrong}").status_code == 404
    for reference in (digest_of(body), "t"):
        assert tenants.owner.on(repository, "HEAD", f"manifests/{reference}").status_code == 404


@pytest.mark.oci(90, 91)
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST])
@pytest.mark.parametrize("place", ["both", "header", "body", "upper case"])
def test_a_manifest_has_the_type_it_was_pushed_with(
    repository: str, wire: Connect, media_type: str, place: str
) -> None:
    document = index_of() if "index" in media_type or "list" in media_type else image_manifest(CONFIG, [])
    document["mediaType"] = media_type
    if place == "header":
        del document["mediaType"]
    sent = media_type.upper() + "; charset=utf-8" if place == "upper case" else media_type
    headers = [] if place == "body" else [f"Content-Type: {sent}"]
    connection, path = wire(), f"/v2/{repository}/manifests/typed"
    assert connection.request("PUT", path, *headers, body=json.dumps(document).encode()).status == 201
    assert connection.request("HEAD", path).headers["Content-Type"] == media_type


@pytest.mark.oci(90, 92)
@pytest.mark.parametrize("by", ["tag", "digest"])
@pytest.mark.parametrize(("first", "second"), [(OCI_MANIFEST, DOCKER_MANIFEST), (DOCKER_LIST, OCI_INDEX)])
def test_the_same_bytes_are_not_accepted_with_another_type(
    repository: str, wire: Connect, first: str, second: str, by: str
) -> None:
    # given a manifest without mediaType
    document = index_of() if first == DOCKER_LIST else image_manifest(CONFIG, [])
    del document["mediaType"]
    body, connection = json.dumps(document).encode(), wire()
    path = f"/v2/{repository}/manifests"
    assert connection.request("PUT", f"{path}/t", f"Content-Type: {first}", body=body).status == 201

    # when it is pushed again with another type, then that is rejected, and nothing has changed
    reference = "new" if by == "tag" else digest_of(body)
    rejected = connection.request("PUT", f"{path}/{reference}", f"Content-Type: {second}", body=body)
    assert (rejected.status, rejected.codes) == (400, ["MANIFEST_INVALID"])
    assert f"stored with the media type {first}" in rejected.body.decode()
    assert connection.request("HEAD", f"{path}/{digest_of(body)}").headers["Content-Type"] == first
    assert connection.request("HEAD", f"{path}/new").status == 404

    # and with its own type it may be pushed again
    assert connection.request("PUT", f"{path}/new", f"Content-Type: {first}", body=body).status == 201


@pytest.mark.oci(91)
def test_without_a_media_type_the_fields_determine_the_type(repository: str, wire: Connect) -> None:
    connection = wire()
    for document, media_type in ((index_of(), OCI_INDEX), (image_manifest(CONFIG, []), OCI_MANIFEST)):
        del document["mediaType"]
        path = f"/v2/{repository}/manifests/untyped"
        assert connection.request("PUT", path, body=json.dumps(document).encode()).status == 201
        assert connection.request("HEAD", path).headers["Content-Type"] == media_type


@pytest.mark.oci(92, 93)
@pytest.mark.parametrize(
    "content_type",
    [
        DOCKER_MANIFEST,
        OCI_INDEX,
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
    ],
)
def test_a_contradicting_type_is_rejected_with_a_reason(
    tenants: Tenants, repository: str, content_type: str
) -> None:
    manifest, headers = image_manifest(CONFIG, []), {"Content-Type": content_type}
    rejected = tenants.owner.put_manifest(repository, "x", manifest, headers=headers)
    assert (rejected.status_code, codes(rejected)) == (400, ["MANIFEST_INVALID"])
    assert rejected.json()["errors"][0]["message"]
    assert tenants.owner.on(repository, "HEAD", "manifests/x").status_code == 404


@pytest.mark.oci(108)
def test_a_push_by_digest_sets_many_tags_and_moves_them(tenants: Tenants, repository: str) -> None:
    tags = [f"v{number}" for number in range(100)]
    for number in range(2):
        body = json.dumps(image_manifest(CONFIG, [], annotations={"n": str(number)})).encode()
        params = {"tag": [*tags, tags[0]][:100]}
        response = tenants.owner.put_manifest(repository, digest_of(body), body, params=params)
        assert response.status_code == 201
        assert response.headers["oci-tag"].split(", ") == tags
    head = tenants.owner.on(repository, "HEAD", "manifests/v99")
    assert head.headers["docker-content-digest"] == digest_of(body)


@pytest.mark.oci(108)
@pytest.mark.parametrize(
    ("by", "tags", "status", "code"),
    [
        ("digest", [f"v{number}" for number in range(101)], 414, "TAG_INVALID"),
        ("digest", ["good", "-bad"], 400, "TAG_INVALID"),
        ("digest", [""], 400, "TAG_INVALID"),
        ("tag", ["other"], 400, "UNSUPPORTED"),
    ],
)
def test_invalid_tags_are_rejected_and_none_is_set(
    tenants: Tenants, repository: str, by: str, tags: list[str], status: int, code: str
) -> None:
    body = json.dumps(image_manifest(CONFIG, [])).encode()
    reference = digest_of(body) if by == "digest" else "t"
    response = tenants.owner.put_manifest(repository, reference, body, params={"tag": tags})
    assert (response.status_code, codes(response)) == (status, [code])
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == []


@pytest.mark.oci(109, 167)
def test_a_push_is_idempotent(tenants: Tenants, repository: str) -> None:
    responses = [
        tenants.owner.put_manifest(repository, "again", image_manifest(CONFIG, [])) for _ in range(3)
    ]
    assert {response.status_code for response in responses} == {201}
    assert len({response.headers["docker-content-digest"] for response in responses}) == 1
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == ["again"]
