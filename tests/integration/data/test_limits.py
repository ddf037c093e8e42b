"""Rate limits, limits of uploads, timeouts of bodies, the disk reserve and the size of headers."""

import json
import os
import shutil
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.integration.data.protocol.wire import Wire
from tests.oci_client import OciClient, digest_of
from tests.services.disks import small_disk
from tests.services.stack import Stack
from tests.tenants import Tenants, pushing

MIB = 1024 * 1024
MakeStack = Callable[..., Stack]


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(16)
def test_invalid_keys_count_against_one_limit_per_address_on_both_planes(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_RATE_LIMIT_ANONYMOUS="20").start()
    credentials = stack.credentials
    namespaces = f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces"
    wrong = {"X-Auth-Token": str(uuid4())}

    # when an address reaches its limit with invalid keys at the management API
    responses = [httpx.get(namespaces, headers=wrong) for _ in range(20)]
    while responses[-1].status_code == 401 and len(responses) < 200:
        responses.append(httpx.get(namespaces, headers=wrong))

    # then it is limited on both planes, and requests with a valid key are not
    assert responses[-1].status_code == 429
    assert responses[-1].json()["type"] == "too_many_requests"
    assert 1 <= int(responses[-1].headers["Retry-After"]) <= 60
    assert httpx.get(f"http://{credentials.registry_host}/v2/").status_code == 429
    assert httpx.get(namespaces, headers={"X-Auth-Token": credentials.secret_key}).status_code == 200


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(16)
def test_a_rate_limited_caller_gets_429_with_retry_after(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_RATE_LIMIT="60", REGISTRY_RATE_LIMIT_ANONYMOUS="20").start()
    key = json.loads(stack.manage("create_key", "default", "robot").stdout)["secret_key"]
    host, owner = f"http://{stack.credentials.registry_host}", stack.credentials.secret_key

    # when a caller reaches its limit over many connections, and so in every process
    def ping(**arguments: object) -> httpx.Response:
        return httpx.get(f"{host}/v2/", **arguments)  # type: ignore[arg-type]

    responses = [ping(auth=("x", owner)) for _ in range(60)]
    while responses[-1].status_code == 200 and len(responses) < 600:
        responses.append(ping(auth=("x", owner)))

    # then the response is TOOMANYREQUESTS, and other callers are not limited
    rejected = responses[-1]
    assert {response.status_code for response in responses[:60]} == {200}
    assert rejected.status_code == 429
    (error,) = rejected.json()["errors"]
    assert error["code"] == "TOOMANYREQUESTS"
    assert "60 requests a minute" in error["message"]
    assert ping(auth=("x", key)).status_code == 200

    # and anonymous requests of an address have a separate limit, which includes invalid keys
    anonymous = [ping(auth=("x", str(uuid4()))).status_code for _ in range(10)]
    anonymous += [ping().status_code for _ in range(10)]
    assert set(anonymous) == {401}
    assert 429 in [ping().status_code for _ in range(10)]
    assert {httpx.get(f"{host}/healthz").status_code for _ in range(30)} == {200}

    # and a caller that waits for Retry-After gets a response
    time.sleep(int(rejected.headers["retry-after"]))
    assert ping(auth=("x", owner)).status_code == 200


def test_the_number_of_open_uploads_of_a_caller_is_limited(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_MAX_UPLOADS="3").start()
    arguments = ("create_key", "default", "robot", "--permission-set", "ContainerRegistryFullAccess")
    robot = json.loads(stack.manage(*arguments).stdout)["secret_key"]
    with pushing(stack) as (owner, name), OciClient(owner.host, robot) as other:
        # given a caller with the maximum of open uploads
        first = owner.start_upload(name)
        for _ in range(2):
            owner.start_upload(name)

        # when it starts another one
        rejected = owner.on(name, "POST", "blobs/uploads/")

        # then that is 429, and other callers can start uploads
        assert rejected.status_code == 429
        assert rejected.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert int(rejected.headers["retry-after"]) > 0
        other.start_upload(name)

        # and cancelling or closing an upload allows another one
        assert owner.on(name, "DELETE", first).status_code == 204
        owner.push_blob(name, b"one after the other")
        owner.push_blob(name, b"and another")


@pytest.mark.only_on("sqlite")
def test_a_stalled_body_times_out_and_its_received_bytes_are_stored(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_IDLE_TIMEOUT="2").start()
    with pushing(stack) as (owner, name), ExitStack() as cleanup:
        content = os.urandom(3 * MIB)
        upload = owner.start_upload(name)
        pair = b64encode(f"x:{owner.secret}".encode()).decode()

        # when clients stall in the middle of a chunk, of a manifest, and of an anonymous form
        begun = {
            f"PATCH /v2/{name}/{upload}": content[: 2 * MIB],
            f"PUT /v2/{name}/manifests/1": b"{",
            f"PUT /v2/{name}/manifests/2": b"x" * 70_000,
            "POST /token": b"grant_type=",
        }
        wires = []
        for line, body in begun.items():
            wire = cleanup.enter_context(Wire(owner.host, None))
            method, _, path = line.partition(" ")
            wire.begin(method, path, f"Authorization: Basic {pair}", f"Content-Length: {len(content)}")
            wire.send(body)
            wires.append((wire, method))

        # then the response is 408, and the connection is closed
        for wire, method in wires:
            reply = wire.reply(method)
            assert (reply.status, reply.headers["connection"]) == (408, "close")
            assert wire.is_over()

        # and the upload can be continued from the received bytes
        status = owner.on(name, "GET", upload)
        assert status.headers["range"] == f"0-{2 * MIB - 1}"
        rest = owner.on(
            name, "PUT", upload, params={"digest": digest_of(content)}, content=content[2 * MIB :]
        )
        assert rest.status_code == 201, rest.text


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(4)
def test_a_response_that_needs_no_body_does_not_wait_for_a_stalled_one(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_IDLE_TIMEOUT="1").start()
    with pushing(stack) as (owner, name), ExitStack() as cleanup:
        owner.push_image(name, "victim", b"a layer")

        # when clients stall in the middle of bodies that the responses do not depend on
        requests = (
            (None, "POST", "blobs/uploads/", 401),
            (owner.secret, "POST", "blobs/uploads/", 202),
            (owner.secret, "POST", "manifests/x", 405),
            (owner.secret, "DELETE", "manifests/victim", 202),
            *[(owner.secret, "DELETE", f"manifests/not-there-{number}", 404) for number in range(10)],
        )
        wires = []
        for secret, method, path, status in requests:
            wire = cleanup.enter_context(Wire(owner.host, secret))
            wire.begin(method, f"/v2/{name}/{path}", "Content-Length: 5000")
            wire.send(b"hello")
            wires.append((wire, method, status))

        # then they get the responses, and the connections are closed
        for wire, method, status in wires:
            reply = wire.reply(method)
            assert (reply.status, reply.headers["connection"]) == (status, "close")
            assert wire.is_over()
        assert owner.pull_status(name, "victim") == 404


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", mib=40) as folder:
        yield folder


@pytest.mark.only_on("sqlite")
@pytest.mark.oci(175)
def test_pushes_are_rejected_before_the_disk_is_full_and_succeed_with_free_space(
    make_stack: MakeStack, disk: Path
) -> None:
    filler = disk / "another file"
    filler.write_bytes(b"x" * 20 * MIB)
    stack = make_stack(REGISTRY_STORAGE_URL=f"file://{disk}/blobs").start()
    with pushing(stack) as (owner, name):
        owner.push_image(name, "1", b"a layer")
        content = os.urandom(30 * MIB)

        # when a blob that does not fit is pushed, with a Content-Length or chunked
        announced, streamed = owner.start_upload(name), owner.start_upload(name)
        digest = {"digest": digest_of(content)}
        pieces = (content[start : start + MIB] for start in range(0, len(content), MIB))
        responses = [
            owner.on(name, "PUT", announced, params=digest, content=content),
            owner.on(name, "PATCH", streamed, content=pieces),
        ]

        # then the error tells that the disk is full, and some space is still free
        for response in responses:
            assert response.status_code == 507
            (error,) = response.json()["errors"]
            assert error["code"] == "UNAVAILABLE"
            assert "full" in error["message"]
            assert response.headers["retry-after"]
        assert shutil.disk_usage(disk).free > MIB

        # and blobs can be read and deleted, and the upload can be continued when there is free space
        assert owner.pull_status(name, "1") == 200
        filler.unlink()
        status = owner.on(name, "GET", streamed)
        assert (status.status_code, status.headers["range"]) == (204, "0-0")
        assert owner.on(name, "PUT", streamed, params=digest, content=content).status_code == 201
        filler.write_bytes(b"x" * 8 * MIB)

        # and every push is rejected when only the reserve is free
        for response in (owner.on(name, "POST", "blobs/uploads/"), owner.put_manifest(name, "2", b"{}")):
            assert response.status_code == 507
        assert owner.on(name, "DELETE", "manifests/1").status_code == 202


@pytest.mark.only_on("sqlite")
def test_too_many_or_endless_headers_are_rejected(tenants: Tenants) -> None:
    # when there are too many headers, or one without an end
    with Wire(tenants.owner.host, None) as wire:
        wire.begin("GET", "/v2/", *(f"X-{number}: a" for number in range(5000)))
        reply = wire.reply()
        assert (reply.status, reply.headers["connection"]) == (431, "close")
    with Wire(tenants.owner.host, None) as wire, suppress(ConnectionError):
        wire.begin("GET", "/v2/", "X-Long: " + "a" * 8 * MIB)
        # A client that continues to send may get a reset before it reads the response.
        assert wire.reply().status == 431

    # then other clients still get responses
    assert tenants.owner.http.get("/healthz").status_code == 200
