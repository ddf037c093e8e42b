"""Two organizations: no route of either plane shows or changes anything of the other (invariant 9).

The cases come from the maps of URLs, so a route that is added is tried without anybody remembering it.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from registry_data.http.app import ENDPOINTS
from registry_data.http.routes import Kind
from tests.oci_client import OciClient, digest_of
from tests.tenants import LAYER, Tenants

IGNORED = {"date", "x-request-id", "connection"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Victim:
    """The objects of one organization, or ids and names of the same form that do not exist."""

    repository: str
    upload: str
    digest: str
    manifest: str
    ids: dict[str, str]


@pytest.fixture(scope="module")
def victim(tenants: Tenants) -> Victim:
    repository = tenants.repository()
    manifest = tenants.owner.push_image(repository, "latest", LAYER)
    image_id = tenants.image_id(repository)
    tag_id = tenants.api("GET", f"/images/{image_id}/tags")["tags"][0]["id"]
    upload = tenants.owner.start_upload(repository).rpartition("/")[2]
    manifests = tenants.control.get(
        f"/registry/v1beta1/regions/fr-par/manifests?image_id={image_id}",
        headers={"X-Auth-Token": tenants.owner.secret or ""},
    )
    run = tenants.control.post("/registry/v1beta1/regions/fr-par/gc/runs", json={"dry_run": True})
    ids = {
        **_replication(tenants, tenants.namespace_id(repository)),
        "namespace_id": tenants.namespace_id(repository),
        "image_id": image_id,
        "tag_id": tag_id,
        "manifest_id": manifests.json()["manifests"][0]["id"],
        "run_id": run.json()["id"],
        # This product has no recycle bin: tests/integration/gc/test_recycle_bin.py has an entry of others.
        "entry_id": str(uuid4()),
    }
    return Victim(repository, upload, digest_of(LAYER), manifest, ids)


def _replication(tenants: Tenants, namespace_id: str) -> dict[str, str]:
    """The ids of a target, a rule that is disabled, and an execution of it."""

    def create(path: str, **body: object) -> str:
        response = tenants.control.post(
            f"/replication/v1beta1/regions/fr-par/{path}",
            json=body,
            headers={"X-Auth-Token": tenants.owner.secret or ""},
        )
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    target_id = create("targets", name="elsewhere", url="https://registry.invalid")
    rule_id = create(
        "rules",
        name="everything",
        direction="push",
        target_id=target_id,
        namespace_id=namespace_id,
        repositories=["*"],
        enabled=False,
    )
    execution_id = create(f"rules/{rule_id}/run")
    return {"target_id": target_id, "rule_id": rule_id, "execution_id": execution_id}


@pytest.fixture(scope="module")
def nothing(victim: Victim) -> Victim:
    """Names and ids of the same form that do not exist."""
    name = f"none-{uuid4().hex[:12]}/app"
    ids = {key: str(uuid4()) for key in victim.ids}
    return Victim(name, str(uuid4()), digest_of(os.urandom(9)), digest_of(os.urandom(9)), ids)


def paths_of(kind: Kind, of: Victim) -> list[str]:
    base = f"/v2/{of.repository}"
    return {
        Kind.MANIFEST: [f"{base}/manifests/latest", f"{base}/manifests/{of.manifest}"],
        Kind.BLOB: [f"{base}/blobs/{of.digest}"],
        Kind.UPLOADS: [
            f"{base}/blobs/uploads/",
            f"{base}/blobs/uploads/?digest={of.digest}",
            f"{base}/blobs/uploads/?mount={of.digest}&from={of.repository}",
        ],
        Kind.UPLOAD: [
            f"{base}/blobs/uploads/{of.upload}",
            f"{base}/blobs/uploads/{of.upload}?digest={of.digest}",
        ],
        Kind.TAGS: [f"{base}/tags/list"],
        Kind.REFERRERS: [f"{base}/referrers/{of.manifest}"],
        Kind.REPOSITORY_EXTENSIONS: [f"{base}/_oci/ext/discover"],
    }.get(kind, [])


WITHOUT_REPOSITORY = {
    *(Kind.ROOT, Kind.PING, Kind.CATALOG, Kind.EXTENSIONS),
    *(Kind.TOKEN, Kind.KEYS, Kind.HEALTH),
}
DATA_CASES = [
    (kind, number, method)
    for kind in Kind
    if kind not in WITHOUT_REPOSITORY
    for number in range(len(paths_of(kind, Victim("a/b", "", "", "", {}))))
    for method in METHODS
]


def test_every_kind_of_route_with_a_repository_has_cases() -> None:
    assert {kind for kind, _, _ in DATA_CASES} == set(ENDPOINTS) - WITHOUT_REPOSITORY


@pytest.mark.oci(144)
@pytest.mark.parametrize("who", ["stranger", "anonymous"])
@pytest.mark.parametrize("way", ["token", "direct"])
@pytest.mark.parametrize(("kind", "number", "method"), DATA_CASES)
def test_the_data_plane_does_not_reveal_another_tenants_objects(
    tenants: Tenants,
    victim: Victim,
    nothing: Victim,
    kind: Kind,
    number: int,
    method: str,
    way: str,
    who: str,
) -> None:
    client: OciClient = getattr(tenants, who)
    responses = []
    for target in (victim, nothing):
        path = paths_of(kind, target)[number]
        if way == "token":
            response = client.call(method, path, scope=f"repository:{target.repository}:pull,push,delete")
        else:
            auth = ("x", client.secret) if client.secret else None
            response = client.http.request(method, path, auth=auth or httpx.USE_CLIENT_DEFAULT)
        responses.append(seen(response, target))
    assert responses[0] == responses[1]
    assert responses[0][0] in (400, 401, 403, 405)


def seen(response: httpx.Response, target: Victim) -> tuple[object, ...]:
    """Everything that a caller can observe, except the values from its own request."""
    headers = {name: value for name, value in response.headers.items() if name not in IGNORED}
    namespace, _, _ = target.repository.partition("/")
    words = [
        target.repository,
        target.upload,
        target.digest,
        target.manifest,
        *target.ids.values(),
        namespace,
    ]
    text = repr((sorted(headers.items()), response.text))
    for word in words:
        text = text.replace(word, "X")
    return (response.status_code, re.sub(r"'content-length', '\d+'", "", text))


def api_routes() -> Iterator[str]:
    """Every route of the management API with an id."""
    for route in _routes(get_resolver().url_patterns, ""):
        if "_id" in route and route.startswith(("registry/v1", "replication/v1")):
            yield route


def _routes(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, route)
        else:
            yield route


ROUTES = sorted(set(api_routes()))


def test_the_routes_with_an_id_are_found() -> None:
    # a namespace, its retention and the preview, an image, its tags (in another region too), a tag, its
    # history, a manifest; a run of garbage collection; an entry of the recycle bin and its restore;
    # of replication a target and its check, a rule and running it, an execution and cancelling it
    assert len(ROUTES) == 18


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [None, {}, {"is_public": True}, {"visibility": "public"}])
def test_the_management_api_does_not_reveal_another_tenants_objects(
    tenants: Tenants, victim: Victim, nothing: Victim, route: str, method: str, body: dict[str, object] | None
) -> None:
    headers = {"X-Auth-Token": tenants.stranger.secret or ""}
    responses = []
    for target in (victim, nothing):
        path = "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: target.ids.get(found[1], "fr-par"), route)  # noqa: B023
        response = httpx.request(
            method, str(tenants.control.base_url).rstrip("/") + path, headers=headers, json=body
        )
        responses.append(seen(response, target))
    assert responses[0] == responses[1]
    assert responses[0][0] in ((403, 405) if "/gc/" in route else (404, 405))


def test_lists_of_one_organization_contain_nothing_of_another(tenants: Tenants, victim: Victim) -> None:
    headers = {"X-Auth-Token": tenants.stranger.secret or ""}
    for query in (
        "",
        f"?organization_id={tenants.organization_id}",
        f"?namespace_id={victim.ids['namespace_id']}",
    ):
        for what in ("namespaces", "images"):
            response = tenants.control.get(f"/registry/v1/regions/fr-par/{what}{query}", headers=headers)
            assert response.status_code == 200
            assert victim.repository.split("/")[0] not in response.text
            assert victim.ids["image_id"] not in response.text


def test_the_victims_objects_are_unchanged(tenants: Tenants, victim: Victim) -> None:
    namespace = tenants.api("GET", f"/namespaces/{victim.ids['namespace_id']}")
    assert (namespace["is_public"], namespace["status"]) == (False, "ready")
    image = tenants.api("GET", f"/images/{victim.ids['image_id']}")
    assert (image["visibility"], image["tags"]) == ("inherit", ["latest"])
    assert tenants.owner.on(victim.repository, "GET", f"blobs/{victim.digest}").content == LAYER
    upload = f"blobs/uploads/{victim.upload}"
    assert tenants.owner.on(victim.repository, "GET", upload).headers["range"] == "0-0"
