"""Error responses and tokens (OCI 141-163)."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.data.protocol.conftest import Pushed
from tests.oci_client import OCI_MANIFEST, OciClient, image_manifest
from tests.services.plugin import Backing
from tests.services.postgres import running_postgres
from tests.services.stack import Stack
from tests.tenants import Tenants

UNKNOWN = f"sha256:{'0' * 64}"
ERRORS = [
    ("GET", "manifests/none", 404),
    ("GET", f"manifests/{UNKNOWN}", 404),
    ("GET", f"blobs/{UNKNOWN}", 404),
    ("GET", "blobs/sha256:short", 400),
    ("GET", "nothing/there", 404),
    ("PUT", "manifests/x", 400),
    ("PUT", "tags/list", 405),
    ("DELETE", "manifests/none", 404),
    ("PATCH", "blobs/uploads/00000000-0000-4000-8000-000000000000", 404),
]


@pytest.mark.oci(141)
@pytest.mark.parametrize(("method", "path", "status"), ERRORS)
def test_every_error_response_is_a_json_list_of_errors(
    tenants: Tenants, image: Pushed, method: str, path: str, status: int
) -> None:
    response = tenants.owner.on(image.name, method, path, content=b"")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json()["errors"]
    assert error["code"].replace("_", "").isupper()
    assert error["message"]


@pytest.mark.oci(141)
@pytest.mark.parametrize(("method", "path", "status"), [case for case in ERRORS if case[0] == "GET"])
def test_an_error_response_to_head_has_no_body(
    tenants: Tenants, image: Pushed, method: str, path: str, status: int
) -> None:
    response = tenants.owner.on(image.name, "HEAD", path)
    assert (response.status_code, response.content) == (status, b"")


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, without verification."""
    header, claims, _ = token.split(".")
    return json.loads(urlsafe_b64decode(header + "==")), json.loads(urlsafe_b64decode(claims + "=="))


@pytest.mark.oci(159)
def test_a_token_for_many_repositories_fits_into_a_header(tenants: Tenants) -> None:
    # given the scopes of a copy between many repositories
    namespace = tenants.repository().partition("/")[0]
    names = [f"{namespace}/team/service-{number}" for number in range(40)]

    # when it is granted
    token = tenants.owner.token(*(f"repository:{name}:pull,push" for name in names))

    # then it is small, signed with the one algorithm, and has issuer, audience and expiry
    assert len(token) < 8 * 1024
    header, claims = parts(token)
    assert header["alg"] == "EdDSA"
    assert {item["name"] for item in claims["access"]} == set(names)
    assert {"iss", "aud", "sub", "exp", "nbf", "iat", "jti"} <= claims.keys()
    assert claims["aud"] == "registry"


@pytest.mark.oci(161)
def test_a_secret_key_is_enough_without_any_token(tenants: Tenants) -> None:
    # given a script that supports only Basic authentication
    name, auth = tenants.repository(), ("anything", tenants.owner.secret or "")
    http = tenants.owner.http

    # when it pushes, lists, pulls and deletes
    config = b"{}"
    digest = image_manifest(config, [])["config"]["digest"]
    started = http.post(f"/v2/{name}/blobs/uploads/", params={"digest": digest}, content=config, auth=auth)
    manifest, types = json.dumps(image_manifest(config, [])), {"Content-Type": OCI_MANIFEST}
    put = http.put(f"/v2/{name}/manifests/1", content=manifest, headers=types, auth=auth)
    tags = http.get(f"/v2/{name}/tags/list", auth=auth)
    pulled = http.get(f"/v2/{name}/manifests/1", auth=auth)
    deleted = http.delete(f"/v2/{name}/manifests/1", auth=auth)

    # then all of it works
    responses = (started, put, tags, pulled, deleted)
    assert [response.status_code for response in responses] == [201, 201, 200, 200, 202]


@pytest.mark.oci(153, 176)
def test_times_are_in_utc(tenants: Tenants) -> None:
    auth = ("x", tenants.owner.secret or "")
    response = tenants.owner.http.get("/token", params={"service": "registry"}, auth=auth)
    body = response.json()
    issued = datetime.fromisoformat(body["issued_at"])
    date = parsedate_to_datetime(response.headers["date"])
    assert issued.utcoffset() == timedelta(0)
    assert abs(issued - date) <= timedelta(seconds=2)
    _, claims = parts(body["token"])
    assert datetime.fromtimestamp(claims["iat"], UTC) == issued
    assert claims["exp"] - claims["iat"] == body["expires_in"] >= 60


@pytest.mark.oci(187)
@pytest.mark.parametrize(
    ("config_type", "artifact_type"),
    [
        ("application/vnd.cncf.helm.config.v1+json", ""),
        ("application/vnd.dev.cosign.simplesigning.v1+json", ""),
        ("application/vnd.oci.empty.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json"),
        ("application/vnd.cncf.notary.signature", ""),
        ("application/vnd.oci.empty.v1+json", "application/vnd.in-toto+json"),
        ("application/vnd.wasm.config.v0+json", ""),
        ("application/vnd.docker.plugin.v1+json", ""),
        ("application/vnd.buildkit.cacheconfig.v0", ""),
    ],
)
def test_artifacts_are_listed_under_their_type(
    tenants: Tenants, config_type: str, artifact_type: str
) -> None:
    # given an artifact that refers to an image
    name = tenants.repository()
    subject = tenants.owner.push_image(name, "app")
    tenants.owner.push_blob(name, b"{}")
    document = image_manifest(b"{}", [])
    document["config"]["mediaType"] = config_type
    media_type = document["mediaType"]
    document |= {"subject": {"mediaType": media_type, "digest": subject, "size": 1}}
    document |= {"artifactType": artifact_type} if artifact_type else {}
    assert tenants.owner.put_manifest(name, "artifact", document).status_code == 201

    # then its type is in the list
    referrers = tenants.owner.on(name, "GET", f"referrers/{subject}").json()["manifests"]
    assert [item["artifactType"] for item in referrers] == [artifact_type or config_type]


@pytest.mark.oci(17)
def test_without_its_database_the_registry_responds_503_and_recovers(
    backing: Backing, make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_postgres(tmp_path_factory.mktemp("away") / "postgres") as server:
        # given an image, and a database that is stopped
        stack = make_stack(REGISTRY_DATABASE_URL=server.create_database("kept")).start()
        host, secret = stack.credentials.registry_host, stack.credentials.secret_key
        with (
            OciClient(host, secret) as client,
            psycopg.connect(server.url("postgres"), autocommit=True) as db,
        ):
            client.http.headers["Authorization"] = f"Bearer {client.token('repository:any/app:pull,push')}"
            path = "/v2/any/app/manifests/1"
            assert client.http.get(path).status_code == 401
            db.execute(sql.SQL("ALTER DATABASE kept ALLOW_CONNECTIONS false"))
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'kept'")

            # when it is pulled and pushed, then the response is 503
            for method in ("GET", "PUT"):
                response = client.http.request(method, path, content=b"" if method == "GET" else b"{}")
                assert (response.status_code, response.json()["errors"][0]["code"]) == (503, "UNAVAILABLE")
                assert "retry-after" in response.headers
                assert "database" in response.json()["errors"][0]["message"]

            # when it runs again, then everything works
            db.execute(sql.SQL("ALTER DATABASE kept ALLOW_CONNECTIONS true"))
            assert client.http.get(path).status_code == 401
        stack.stop()
