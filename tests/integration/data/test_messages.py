"""Error messages name the invalid value and what to do (OCI 112, 141)."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.oci_client import OCI_INDEX, OCI_MANIFEST, digest_of, image_manifest
from tests.tenants import LAYER, Tenants

pytestmark = pytest.mark.oci(112, 141, 142)

ABSENT = f"sha256:{'0' * 64}"
NO_UPLOAD = str(UUID(int=1))


@dataclass(frozen=True)
class Case:
    """A request for a repository (`{r}`) with an image, and the expected error."""

    method: str
    path: str
    status: int
    code: str
    message_parts: tuple[str, ...]
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.code}"


def manifest(body: bytes, media_type: str = OCI_MANIFEST) -> dict[str, Any]:
    return {"content": body, "headers": {"Content-Type": media_type}}


CASES = [
    # names
    Case("GET", "/v2/{r}/manifests/none", 404, "MANIFEST_UNKNOWN", ("no tag none", "deleted")),
    Case("GET", f"/v2/{{r}}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN", (f"no manifest {ABSENT}",)),
    Case("GET", "/v2/{r}/manifests/.x", 404, "MANIFEST_UNKNOWN", ("'.x' is not a tag", "letters, digits")),
    Case("DELETE", "/v2/{r}/manifests/none", 404, "MANIFEST_UNKNOWN", ("no tag none",)),
    Case("PUT", "/v2/{r}/manifests/.x", 400, "TAG_INVALID", ("'.x' is not a tag", "letters, digits")),
    Case("GET", "/v2/{r}/manifests/sha256:x", 400, "DIGEST_INVALID", ("'sha256:x'", "64 lower-case hex")),
    Case("GET", "/v2/{r}/blobs/md5:x", 400, "DIGEST_INVALID", ("'md5' is not supported", "sha256 or sha512")),
    Case("GET", "/v2/{r}/blobs/x", 400, "DIGEST_INVALID", ("'x' is not a digest", "sha256:<64")),
    Case("GET", f"/v2/{{r}}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN", (ABSENT, "never pushed here")),
    Case("DELETE", f"/v2/{{r}}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN", (ABSENT,)),
    Case("GET", "/v2/{r}-none/manifests/1", 404, "NAME_UNKNOWN", ("{r}-none", "ever pushed")),
    Case("GET", "/v2/{r}-none/tags/list", 404, "NAME_UNKNOWN", ("{r}-none",)),
    Case("GET", "/v2/{r}UP/tags/list", 400, "NAME_INVALID", ("{r}UP", "lower-case letters and digits")),
    Case("POST", "/v2/one/blobs/uploads/", 404, "NAME_UNKNOWN", ("'one'", "<namespace>/<image>")),
    # uploads
    Case("PATCH", f"/v2/{{r}}/blobs/uploads/{NO_UPLOAD}", 404, "BLOB_UPLOAD_UNKNOWN", ("start a new one",)),
    Case("GET", "/v2/{r}/blobs/uploads/x", 404, "BLOB_UPLOAD_UNKNOWN", ("expired", "start a new one")),
    Case("PUT", f"/v2/{{r}}/blobs/uploads/{NO_UPLOAD}", 400, "DIGEST_INVALID", ("?digest=sha256:<hex>",)),
    Case("POST", "/v2/{r}/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID", ("sha256 or sha512",)),
    Case(
        "POST",
        f"/v2/{{r}}/blobs/uploads/?digest={ABSENT}",
        400,
        "DIGEST_INVALID",
        (digest_of(b"other"), ABSENT, "nothing was stored"),
        {"content": b"other"},
    ),
    # manifests
    Case(
        "PUT", "/v2/{r}/manifests/x", 400, "MANIFEST_INVALID", ("not JSON", "line 1"), manifest(b"nonsense")
    ),
    Case(
        "PUT",
        "/v2/{r}/manifests/x",
        400,
        "MANIFEST_INVALID",
        ("layers[0].size must be an integer",),
        manifest(
            b'{"schemaVersion":2,"config":{"mediaType":"a","digest":"' + ABSENT.encode() + b'","size":1},'
            b'"layers":[{"mediaType":"a","digest":"' + ABSENT.encode() + b'","size":-1}]}'
        ),
    ),
    Case(
        "PUT",
        "/v2/{r}/manifests/x",
        400,
        "MANIFEST_INVALID",
        ("schema version 1", "Docker 1.10"),
        manifest(b'{"schemaVersion":1}'),
    ),
    Case(
        "PUT",
        "/v2/{r}/manifests/x",
        400,
        "MANIFEST_INVALID",
        ("'text/plain'", "not a manifest type"),
        manifest(b'{"schemaVersion":2}', "text/plain"),
    ),
    Case(
        "PUT",
        "/v2/{r}/manifests/x?tag=y",
        400,
        "UNSUPPORTED",
        ("?tag= requires a digest",),
        manifest(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX),
    ),
    Case("PUT", f"/v2/{{r}}/manifests/{ABSENT}", 400, "DIGEST_INVALID", (ABSENT, "nothing was stored")),
    # lists and routes
    Case("GET", "/v2/{r}/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID", ("'x'", "an integer")),
    Case("GET", "/v2/{r}/referrers/x", 400, "DIGEST_INVALID", ("'x' is not a digest",)),
    Case("GET", "/v2/{r}/nothing", 404, "UNSUPPORTED", ("unknown path", "/nothing'")),
    Case(
        "POST",
        "/v2/{r}/tags/list",
        405,
        "UNSUPPORTED",
        ("POST is not allowed on this path", "allowed: GET, HEAD"),
    ),
]


@pytest.fixture(scope="module")
def repository(tenants: Tenants) -> str:
    name = tenants.repository()
    tenants.owner.push_image(name, "1", LAYER)
    return name


def error(response: httpx.Response) -> dict[str, Any]:
    """The only error of a response, after a check of its format."""
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any]
    (found,) = response.json()["errors"]
    assert {"code", "message"} <= set(found) <= {"code", "message", "detail"}
    assert re.fullmatch("[A-Z_]+", found["code"])
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_error_message_names_the_invalid_value(tenants: Tenants, repository: str, case: Case) -> None:
    path = case.path.format(r=repository)
    name = re.sub(r"^/v2/(.+?)/(manifests|blobs|tags|referrers|nothing)/?.*", r"\1", path)
    response = tenants.owner.call(case.method, path, scope=f"repository:{name}:pull,push,delete", **case.more)
    assert (response.status_code, error(response)["code"]) == (case.status, case.code)
    for words in case.message_parts:
        assert words.format(r=repository) in error(response)["message"]


def test_the_error_for_a_blob_in_use_tells_what_to_delete_first(tenants: Tenants, repository: str) -> None:
    response = tenants.owner.on(repository, "DELETE", f"blobs/{tenants.layer_digest}")
    assert (response.status_code, error(response)["code"]) == (405, "UNSUPPORTED")
    assert "delete the manifest first" in error(response)["message"]


def test_the_errors_for_missing_content_contain_its_digest(tenants: Tenants, repository: str) -> None:
    response = tenants.owner.put_manifest(repository, "x", image_manifest(b"absent", []))
    assert error(response)["message"].endswith(
        f"{digest_of(b'absent')}, which this repository does not have: push it first"
    )


def test_the_error_for_a_wrong_offset_contains_the_correct_one(tenants: Tenants, repository: str) -> None:
    upload = tenants.owner.start_upload(repository)
    response = tenants.owner.on(repository, "PATCH", upload, content=b"x", headers={"Content-Range": "7-7"})
    assert response.status_code == 416
    assert "ends at byte 0, go on from there" in error(response)["message"]


@pytest.mark.oci(148, 149, 160)
@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "manifests/1", "pull from"),
        ("PUT", "manifests/1", "push to"),
        ("DELETE", "manifests/1", "delete from"),
    ],
)
def test_the_error_for_an_unauthorized_caller_names_action_and_repository(
    tenants: Tenants, repository: str, method: str, path: str, words: str
) -> None:
    # given a stranger with a token, a stranger with a secret key, and an anonymous caller
    url = f"/v2/{repository}/{path}"
    by_token = tenants.stranger.on(repository, method, path)
    by_key = tenants.stranger.http.request(method, url, auth=("x", tenants.stranger.secret or ""))
    anonymous = tenants.anonymous.http.request(method, url)

    # then each error names the missing right and the repository
    assert [response.status_code for response in (by_token, by_key, anonymous)] == [401, 403, 401]
    # and the challenge contains the message too, because docker shows it instead of the body
    assert f'error_description="{error(by_token)["message"]}"' in by_token.headers["www-authenticate"]
    for response in (by_token, by_key):
        assert error(response)["code"] == "DENIED"
        message = error(response)["message"]
        assert message.startswith("requested access to the resource is denied: ")
        assert f"you may not {words} {repository}" in message
    assert error(anonymous)["code"] == "UNAUTHORIZED"
    assert f"{words} {repository}: log in" in error(anonymous)["message"]


@pytest.mark.oci(148)
def test_the_error_for_invalid_credentials_has_the_reason_but_not_the_secret(tenants: Tenants) -> None:
    wrong = "00000000-0000-4000-8000-000000000000"
    for headers, auth, words in (
        ({"Authorization": "Bearer nonsense"}, None, "the token is not valid: log in again"),
        ({}, ("x", wrong), "the secret key is unknown or revoked: log in again"),
        ({}, ("x", "nonsense"), "the secret key is not valid: log in again"),
    ):
        response = tenants.anonymous.http.get("/v2/", headers=headers, auth=auth or httpx.USE_CLIENT_DEFAULT)
        assert (response.status_code, error(response)["message"]) == (401, words)
        assert wrong not in response.text
