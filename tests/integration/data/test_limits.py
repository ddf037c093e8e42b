"""Limits that protect the registry and its callers from each other."""

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


@pytest.mark.oci(16)
def test_wrong_keys_count_for_their_address_on_both_planes_together(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_RATE_LIMIT_ANONYMOUS="20").start()
    credentials = stack.credentials
    namespaces = f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces"
    wrong = {"X-Auth-Token": str(uuid4())}

    # when an address uses up its minute with wrong keys at the management API
    answers = [httpx.get(namespaces, headers=wrong) for _ in range(20)]
    while answers[-1].status_code == 401 and len(answers) < 200:
        answers.append(httpx.get(namespaces, headers=wrong))

    # then it must wait, on the other plane too, and a valid key is not concerned
    assert answers[-1].status_code == 429
    assert answers[-1].json()["type"] == "too_many_requests"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert httpx.get(f"http://{credentials.registry_host}/v2/").status_code == 429
    assert httpx.get(namespaces, headers={"X-Auth-Token": credentials.secret_key}).status_code == 200


@pytest.mark.oci(16)
def test_who_asks_too_often_is_told_when_to_come_again(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_RATE_LIMIT="60", REGISTRY_RATE_LIMIT_ANONYMOUS="20").start()
    key = json.loads(stack.manage("create_key", "default", "robot").stdout)["secret_key"]
    host, owner = f"http://{stack.credentials.registry_host}", stack.credentials.secret_key

    # when a caller has used up its minute, over many connections and so in every process
    def ask(**arguments: object) -> httpx.Response:
        return httpx.get(f"{host}/v2/", **arguments)  # type: ignore[arg-type]

    answers = [ask(auth=("x", owner)) for _ in range(60)]
    while answers[-1].status_code == 200 and len(answers) < 600:
        answers.append(ask(auth=("x", owner)))

    # then it is told in the protocol's words, and others are not concerned
    refused = answers[-1]
    assert {answer.status_code for answer in answers[:60]} == {200}
    assert refused.status_code == 429
    (error,) = refused.json()["errors"]
    assert error["code"] == "TOOMANYREQUESTS"
    assert "60 requests a minute" in error["message"]
    assert ask(auth=("x", key)).status_code == 200

    # and an address without a key has its own count, which wrong keys share
    anonymous = [ask(auth=("x", str(uuid4()))).status_code for _ in range(10)]
    anonymous += [ask().status_code for _ in range(10)]
    assert set(anonymous) == {401}
    assert 429 in [ask().status_code for _ in range(10)]
    assert {httpx.get(f"{host}/healthz").status_code for _ in range(30)} == {200}

    # and who waits as told is answered
    time.sleep(int(refused.headers["retry-after"]))
    assert ask(auth=("x", owner)).status_code == 200


def test_nobody_has_more_uploads_under_way_than_allowed(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_MAX_UPLOADS="3").start()
    arguments = ("create_key", "default", "robot", "--permission-set", "ContainerRegistryFullAccess")
    robot = json.loads(stack.manage(*arguments).stdout)["secret_key"]
    with pushing(stack) as (owner, name), OciClient(owner.host, robot) as other:
        # given as many as one may have
        first = owner.start_upload(name)
        for _ in range(2):
            owner.start_upload(name)

        # when there is to be one more
        refused = owner.on(name, "POST", "blobs/uploads/")

        # then that is refused, and nobody else's is
        assert refused.status_code == 429
        assert refused.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert int(refused.headers["retry-after"]) > 0
        other.start_upload(name)

        # and ending one makes room for one
        assert owner.on(name, "DELETE", first).status_code == 204
        owner.push_blob(name, b"one after the other")
        owner.push_blob(name, b"and another")


def test_a_body_that_stops_coming_is_given_up_and_what_came_is_kept(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_IDLE_TIMEOUT="2").start()
    with pushing(stack) as (owner, name), ExitStack() as cleanup:
        content = os.urandom(3 * MIB)
        upload = owner.start_upload(name)
        pair = b64encode(f"x:{owner.secret}".encode()).decode()

        # when clients stop in the middle of a chunk, of a manifest, and of a form that anybody may send
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

        # then they are told so, and the connection ends
        for wire, method in wires:
            reply = wire.reply(method)
            assert (reply.status, reply.headers["connection"]) == (408, "close")
            assert wire.is_over()

        # and the upload goes on from what came
        status = owner.on(name, "GET", upload)
        assert status.headers["range"] == f"0-{2 * MIB - 1}"
        rest = owner.on(
            name, "PUT", upload, params={"digest": digest_of(content)}, content=content[2 * MIB :]
        )
        assert rest.status_code == 201, rest.text


@pytest.mark.oci(4)
def test_an_answer_that_is_clear_does_not_wait_for_a_body_that_stops_coming(make_stack: MakeStack) -> None:
    stack = make_stack(REGISTRY_IDLE_TIMEOUT="1").start()
    with pushing(stack) as (owner, name), ExitStack() as cleanup:
        owner.push_image(name, "victim", b"a layer")

        # when clients stop in the middle of bodies that nobody wants
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

        # then they hear what became of their requests, and the connections end
        for wire, method, status in wires:
            reply = wire.reply(method)
            assert (reply.status, reply.headers["connection"]) == (status, "close")
            assert wire.is_over()
        assert owner.pull_status(name, "victim") == 404


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", mib=40) as folder:
        yield folder


@pytest.mark.oci(175)
def test_pushes_end_before_the_disk_is_full_and_go_on_when_there_is_room(
    make_stack: MakeStack, disk: Path
) -> None:
    filler = disk / "somebody elses"
    filler.write_bytes(b"x" * 20 * MIB)
    stack = make_stack(REGISTRY_STORAGE_URL=f"file://{disk}/blobs").start()
    with pushing(stack) as (owner, name):
        owner.push_image(name, "1", b"a layer")
        content = os.urandom(30 * MIB)

        # when more is pushed than fits: said beforehand, or only by its coming
        announced, streamed = owner.start_upload(name), owner.start_upload(name)
        digest = {"digest": digest_of(content)}
        pieces = (content[start : start + MIB] for start in range(0, len(content), MIB))
        answers = [
            owner.on(name, "PUT", announced, params=digest, content=content),
            owner.on(name, "PATCH", streamed, content=pieces),
        ]

        # then the refusal is clear, and some of the disk is left
        for answer in answers:
            assert answer.status_code == 507
            (error,) = answer.json()["errors"]
            assert error["code"] == "UNAVAILABLE"
            assert "full" in error["message"]
            assert answer.headers["retry-after"]
        assert shutil.disk_usage(disk).free > MIB

        # and what is there can be read, and deleted, and the upload goes on once there is room
        assert owner.pull_status(name, "1") == 200
        filler.unlink()
        status = owner.on(name, "GET", streamed)
        assert (status.status_code, status.headers["range"]) == (204, "0-0")
        assert owner.on(name, "PUT", streamed, params=digest, content=content).status_code == 201
        filler.write_bytes(b"x" * 8 * MIB)

        # and nothing at all is taken where only the reserve is left
        for answer in (owner.on(name, "POST", "blobs/uploads/"), owner.put_manifest(name, "2", b"{}")):
            assert answer.status_code == 507
        assert owner.on(name, "DELETE", "manifests/1").status_code == 202


def test_heads_without_end_are_refused(tenants: Tenants) -> None:
    # when there are too many headers, and when one does not end
    with Wire(tenants.owner.host, None) as wire:
        wire.begin("GET", "/v2/", *(f"X-{number}: a" for number in range(5000)))
        reply = wire.reply()
        assert (reply.status, reply.headers["connection"]) == (431, "close")
    with Wire(tenants.owner.host, None) as wire, suppress(ConnectionError):
        wire.begin("GET", "/v2/", "X-Long: " + "a" * 8 * MIB)
        # Whoever goes on sending may find the connection reset before it reads this.
        assert wire.reply().status == 431

    # then nobody else is concerned
    assert tenants.owner.http.get("/healthz").status_code == 200
