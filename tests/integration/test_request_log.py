"""Request ids and the access log of both planes, read from the responses and the log of a running product."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.services.stack import Stack
from tests.services.waiting import wait_until
from tests.tenants import LAYER, REGION, Tenants

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "=]+)(?: |$)')


def lines_of(stack: Stack, request_id: str) -> list[dict[str, str]]:
    """The fields of the access log lines of one request, as soon as they are written."""

    def found() -> list[dict[str, str]]:
        lines = [line for line in stack.log.splitlines() if line.startswith("access ")]
        parsed = [{name: _value(value) for name, value in FIELD.findall(line)} for line in lines]
        return [fields for fields in parsed if fields["request_id"] == request_id]

    wait_until(lambda: bool(found()))
    return found()


def _value(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def new_id() -> dict[str, str]:
    return {"X-Request-Id": f"test.{uuid4()}"}


def test_cached_and_uncached_pulls_are_logged_alike(stack: Stack, tenants: Tenants) -> None:
    # given a small image that is pulled until every process has its manifest in the cache
    repository = tenants.repository()
    tenants.owner.push_image(repository, "latest", LAYER)
    ids = [new_id() for _ in range(20)]
    sizes = set()
    for headers in ids:
        response = tenants.owner.on(
            repository, "GET", "manifests/latest", headers={**headers, "User-Agent": "docker/28 (a b)"}
        )
        assert response.headers["X-Request-Id"] == headers["X-Request-Id"]
        sizes.add(str(len(response.content)))

    # then each pull has one line, which says whether the response came from the cache
    logged = [lines_of(stack, headers["X-Request-Id"]) for headers in ids]
    assert {len(lines) for lines in logged} == {1}
    fields = [lines[0] for lines in logged]
    assert {line["cache"] for line in fields} == {"hit", "miss"}
    assert {line["bytes"] for line in fields} == sizes
    assert {line["path"] for line in fields} == {f"/v2/{repository}/manifests/latest"}
    assert {(line["method"], line["status"], line["client"]) for line in fields} == {
        ("GET", "200", "127.0.0.1")
    }
    assert {line["user_agent"] for line in fields} == {"docker/28 (a b)"}
    assert all(0 <= float(line["ms"]) < 60_000 for line in fields)
    # and the same principal is in all of them
    (principal,) = {line["principal"] for line in fields}
    assert re.fullmatch(r"(user|application):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", principal)


def test_the_management_api_is_logged_with_its_principal(stack: Stack, tenants: Tenants) -> None:
    headers = new_id()
    response = tenants.control.get(f"{REGION}/namespaces?name=secret-of-a-query", headers=headers)
    assert response.headers.get_list("X-Request-Id") == [headers["X-Request-Id"]]
    (fields,) = lines_of(stack, headers["X-Request-Id"])
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", f"{REGION}/namespaces", "200")
    assert fields["bytes"] == str(len(response.content))
    assert re.fullmatch(r"(user|application):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", fields["principal"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/here", 404),
        ("GET", "/v2/", 401),
        ("PATCH", "/v2/a/b/manifests/latest", 405),
        ("GET", "/v2/a/b/manifests/!", 404),
        ("GET", "/healthz", 200),
        ("GET", "/token?scope=x", 200),
    ],
)
def test_every_response_of_the_data_plane_has_an_id(
    stack: Stack, tenants: Tenants, method: str, path: str, status: int
) -> None:
    headers = new_id()
    response = tenants.anonymous.http.request(method, path, headers=headers)
    assert (response.status_code, response.headers["X-Request-Id"]) == (status, headers["X-Request-Id"])
    (fields,) = lines_of(stack, headers["X-Request-Id"])
    assert (fields["status"], fields["path"]) == (str(status), path.split("?")[0])
    assert fields["principal"] == "-"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing/here", b"", 404),
        ("GET", f"{REGION}/namespaces", b"", 401),
        ("PUT", f"{REGION}/namespaces", b"", 405),
        ("POST", f"{REGION}/namespaces", b"x" * 3_000_000, 413),  # rejected before Django sees it
        ("GET", "/healthz", b"", 200),
        ("GET", "/admin/login/", b"", 200),
    ],
)
def test_every_response_of_the_control_plane_has_an_id(
    stack: Stack, method: str, path: str, body: bytes, status: int
) -> None:
    headers = new_id()
    response = httpx.request(method, stack.credentials.control_url + path, headers=headers, content=body)
    assert response.headers.get_list("X-Request-Id") == [headers["X-Request-Id"]]
    if status not in (405, 413):
        assert response.status_code == status
    assert lines_of(stack, headers["X-Request-Id"])[0]["status"] == str(response.status_code)


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "evil\x1b", 'a"b', "a;b"])
def test_a_malformed_id_is_replaced(stack: Stack, tenants: Tenants, sent: str) -> None:
    for url in (f"http://{tenants.owner.host}/v2/", f"{stack.credentials.control_url}/healthz"):
        response = httpx.get(url, headers=[(b"X-Request-Id", sent.encode())])
        if response.status_code != 400:  # the server itself rejects control characters
            assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])


def test_no_secret_is_logged(stack: Stack, tenants: Tenants) -> None:
    # given requests with a secret key and a token in every place where a client may send them
    secret, token = tenants.owner.secret or "", tenants.owner.token("registry:catalog:*")
    headers = new_id()
    tenants.anonymous.http.get(f"/token?password={secret}", auth=("x", secret))
    tenants.anonymous.http.post("/token", data={"grant_type": "password", "password": secret})
    tenants.anonymous.http.get(f"/v2/_catalog?token={token}", headers={"Authorization": f"Bearer {token}"})
    tenants.control.get(f"{REGION}/namespaces?secret={secret}", headers=headers)
    # when all of them are logged
    lines_of(stack, headers["X-Request-Id"])
    # then the log has neither
    assert secret not in stack.log
    assert token not in stack.log


def test_audit_rows_have_the_id_of_their_request(stack: Stack, tenants: Tenants) -> None:
    by_api, by_push = new_id(), new_id()
    name = f"ns-{uuid4().hex[:12]}"
    response = tenants.control.post(f"{REGION}/namespaces", json={"name": name}, headers=by_api)
    assert response.status_code == 200
    tenants.owner.push_image(f"{name}/app", "latest", LAYER)
    manifest = tenants.owner.on(f"{name}/app", "GET", "manifests/latest").content
    assert tenants.owner.put_manifest(f"{name}/app", "other", manifest, headers=by_push).status_code == 201

    code = (
        "from registry_control.audit.models import AuditEvent;"
        "print('verbs', *AuditEvent.objects.filter(request_id__in=["
        f"{by_api['X-Request-Id']!r}, {by_push['X-Request-Id']!r}])"
        ".order_by('id').values_list('verb', flat=True))"
    )
    assert "verbs namespace.create tag.set" in tenants.manage("shell", "-c", code)


def test_concurrent_requests_have_separate_ids(stack: Stack, tenants: Tenants) -> None:
    """Each of many concurrent requests writes its id to its own audit row."""
    repository = tenants.repository()
    tenants.owner.push_image(repository, "latest", LAYER)
    manifest = tenants.owner.on(repository, "GET", "manifests/latest").content
    prefix = uuid4().hex

    def tag(number: int) -> int:
        headers = {"X-Request-Id": f"{prefix}-{number}"}
        return tenants.owner.put_manifest(repository, f"t{number}", manifest, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(tag, range(24))) == {201}
    code = (
        "from registry_control.audit.models import AuditEvent;"
        f"found = AuditEvent.objects.filter(request_id__startswith={prefix!r});"
        "print('pairs', *(row.request_id.split('-')[1] + '=' + row.detail['tag'] for row in found))"
    )
    printed = next(
        line for line in tenants.manage("shell", "-c", code).splitlines() if line.startswith("pairs ")
    )
    assert sorted(printed.split()[1:]) == sorted(f"{number}=t{number}" for number in range(24))


@pytest.mark.only_on("sqlite")
def test_json_lines_and_no_lines(make_stack: Callable[..., Stack]) -> None:
    with make_stack(REGISTRY_ACCESS_LOG="json") as stack:
        host = stack.credentials.registry_host
        httpx.get(f"http://{host}/v2/", headers={"X-Request-Id": "as-json"})

        def found() -> list[dict[str, object]]:
            lines = [line for line in stack.log.splitlines() if line.startswith("{")]
            return [fields for fields in map(json.loads, lines) if fields["request_id"] == "as-json"]

        wait_until(lambda: bool(found()))
        assert (found()[0]["log"], found()[0]["status"], found()[0]["path"]) == ("access", 401, "/v2/")
    with make_stack(REGISTRY_ACCESS_LOG="off") as stack:
        httpx.get(f"http://{stack.credentials.registry_host}/v2/")
        stack.stop()
        assert "access " not in stack.log
