"""Two real clients at the same time: one clear outcome each, no 500, nothing orphaned for ever."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.oci_client import OciClient, digest_of, image_manifest
from tests.services.waiting import wait_until
from tests.tenants import REGION, Tenants


def at_once(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], httpx.Response]) -> None:
        barrier.wait()
        answers.append(call())

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == len(calls)
    return answers


def test_two_creations_of_the_same_name_have_one_winner(tenants: Tenants) -> None:
    name = f"race-{uuid4().hex[:8]}"
    secrets = [tenants.owner.secret, tenants.stranger.secret] * 3
    url = f"{tenants.control.base_url}{REGION}/namespaces"
    answers = at_once(
        *(
            lambda secret=secret: httpx.post(
                url, json={"name": name}, headers={"X-Auth-Token": secret}, timeout=60
            )
            for secret in secrets
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    losers = [answer.json() for answer in answers if answer.status_code == 409]
    assert {loser["type"] for loser in losers} == {"already_exists"}


@pytest.mark.oci(171)
def test_pushes_of_one_tag_leave_the_tag_on_one_of_them(tenants: Tenants) -> None:
    repository = tenants.repository()
    tenants.owner.push_blob(repository, b"{}")
    tenants.owner.token(f"repository:{repository}:pull,push,delete")
    manifests = [image_manifest(b"{}", [], annotations={"number": str(number)}) for number in range(8)]
    answers = at_once(
        *(
            lambda manifest=manifest: tenants.owner.put_manifest(repository, "race", manifest)
            for manifest in manifests
        )
    )
    assert [answer.status_code for answer in answers] == [201] * 8
    digests = {answer.headers["docker-content-digest"] for answer in answers}
    assert tenants.owner.on(repository, "HEAD", "manifests/race").headers["docker-content-digest"] in digests
    for digest in digests:
        assert tenants.owner.on(repository, "HEAD", f"manifests/{digest}").status_code == 200
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == ["race"]


def test_a_push_while_its_namespace_is_deleted_ends_clearly(tenants: Tenants) -> None:
    # given somebody who pushes image after image to a namespace
    repository = tenants.repository()
    namespace_id = tenants.namespace_id(repository)
    pushers: list[list[int]] = [[] for _ in range(3)]  # the statuses that each of them has seen
    stop = threading.Event()

    def push(statuses: list[int]) -> None:
        with OciClient(tenants.owner.host, tenants.owner.secret) as client:
            while not stop.is_set():
                started = client.on(repository, "POST", "blobs/uploads/")
                statuses.append(started.status_code)
                if started.status_code != 202:
                    continue
                upload = started.headers["location"].removeprefix(f"/v2/{repository}/")
                data = os.urandom(20)
                done = client.on(repository, "PUT", upload, params={"digest": digest_of(data)}, content=data)
                statuses.append(done.status_code)
                manifest = client.put_manifest(repository, "t", image_manifest(data, []))
                statuses.append(manifest.status_code)

    threads = [threading.Thread(target=push, args=(statuses,)) for statuses in pushers]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(201 in statuses for statuses in pushers))

    # when the namespace is deleted
    assert tenants.api("DELETE", f"/namespaces/{namespace_id}")["status"] == "deleting"
    wait_until(lambda: all(401 in statuses for statuses in pushers))
    stop.set()
    for thread in threads:
        thread.join(60)

    # then pushes succeed before, are refused from then on, and never end otherwise
    for statuses in pushers:
        assert set(statuses) <= {201, 202, 400, 401, 404}
        assert statuses[-1] == 401
    # and the namespace is removed, with everything that was pushed meanwhile
    path = f"{REGION}/namespaces/{namespace_id}"
    wait_until(lambda: tenants.control.get(path).status_code == 404, timeout=60)
    # and its name can be used again at once
    name = repository.split("/")[0]
    assert tenants.api("POST", "/namespaces", name=name)["id"] != namespace_id
    assert tenants.owner.on(repository, "GET", "tags/list").status_code == 404


@pytest.mark.oci(158)
def test_a_key_revoked_in_the_middle_of_a_push_ends_it_with_the_next_request(tenants: Tenants) -> None:
    # given a push whose layer is on its way
    repository, key = tenants.repository(), tenants.new_key("ContainerRegistryPush")
    layer, half, revoked = os.urandom(2_000_000), threading.Event(), threading.Event()
    answers: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        yield layer[:1_500_000]
        half.set()
        assert revoked.wait(60)
        yield layer[1_500_000:]

    with OciClient(tenants.owner.host, key["secret_key"]) as client:
        upload = client.start_upload(repository)
        pushing = threading.Thread(
            target=lambda: answers.append(client.on(repository, "PATCH", upload, content=body()))
        )
        pushing.start()
        assert half.wait(20)

        # when its key is revoked
        tenants.revoke(key["access_key"])
        revoked.set()
        pushing.join(60)

        # then the chunk, which makes no blob yet, is stored, and every later one is refused
        assert answers[0].status_code == 202
        closing = client.on(repository, "PUT", upload, params={"digest": digest_of(layer)})
    assert closing.status_code == 401
    assert closing.json()["errors"][0]["code"] == "UNAUTHORIZED"
    # and nothing of it can be pulled, but whoever may push can go on with it
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 404
    assert tenants.owner.on(repository, "PUT", upload, params={"digest": digest_of(layer)}).status_code == 201


@pytest.mark.slow
def test_a_key_revoked_while_a_closing_request_sends_its_body_makes_no_blob(tenants: Tenants) -> None:
    # given a layer that comes with the request that closes its upload
    repository, key = tenants.repository(), tenants.new_key("ContainerRegistryPush")
    layer, half, revoked = os.urandom(2_000_000), threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield layer[:1_500_000]
        half.set()
        assert revoked.wait(60)
        yield layer[1_500_000:]

    with OciClient(tenants.owner.host, key["secret_key"]) as client, ThreadPoolExecutor() as threads:
        upload = client.start_upload(repository)
        query = {"digest": digest_of(layer)}
        pushing = threads.submit(client.on, repository, "PUT", upload, params=query, content=body())
        assert half.wait(20)

        # when its key is revoked before the end
        tenants.revoke(key["access_key"])
        revoked.set()

        # then it is refused, and there is no blob
        assert pushing.result(60).status_code == 401
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 404
