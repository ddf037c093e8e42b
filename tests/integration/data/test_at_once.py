"""Concurrent requests of real clients: each gets a defined response, and no content is orphaned."""

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
    responses: list[httpx.Response] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], httpx.Response]) -> None:
        barrier.wait()
        responses.append(call())

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(responses) == len(calls)
    return responses


def test_of_two_concurrent_creations_of_a_name_one_succeeds(tenants: Tenants) -> None:
    name = f"race-{uuid4().hex[:8]}"
    secrets = [tenants.owner.secret, tenants.stranger.secret] * 3
    url = f"{tenants.control.base_url}{REGION}/namespaces"
    responses = at_once(
        *(
            lambda secret=secret: httpx.post(
                url, json={"name": name}, headers={"X-Auth-Token": secret}, timeout=60
            )
            for secret in secrets
        )
    )
    assert sorted(response.status_code for response in responses) == [200, 409, 409, 409, 409, 409]
    losers = [response.json() for response in responses if response.status_code == 409]
    assert {loser["type"] for loser in losers} == {"already_exists"}


@pytest.mark.oci(171)
def test_after_concurrent_pushes_a_tag_refers_to_one_of_the_manifests(tenants: Tenants) -> None:
    repository = tenants.repository()
    tenants.owner.push_blob(repository, b"{}")
    tenants.owner.token(f"repository:{repository}:pull,push,delete")
    manifests = [image_manifest(b"{}", [], annotations={"number": str(number)}) for number in range(8)]
    responses = at_once(
        *(
            lambda manifest=manifest: tenants.owner.put_manifest(repository, "race", manifest)
            for manifest in manifests
        )
    )
    assert [response.status_code for response in responses] == [201] * 8
    digests = {response.headers["docker-content-digest"] for response in responses}
    assert tenants.owner.on(repository, "HEAD", "manifests/race").headers["docker-content-digest"] in digests
    for digest in digests:
        assert tenants.owner.on(repository, "HEAD", f"manifests/{digest}").status_code == 200
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == ["race"]


def test_a_push_to_a_namespace_that_is_being_deleted_is_rejected(tenants: Tenants) -> None:
    # given clients that push images to a namespace in a loop
    repository = tenants.repository()
    namespace_id = tenants.namespace_id(repository)
    pushers: list[list[int]] = [[] for _ in range(3)]  # the response statuses of each client
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

    # then pushes succeed before the deletion, are rejected after it, and no response has another status
    for statuses in pushers:
        assert set(statuses) <= {201, 202, 400, 401, 404}
        assert statuses[-1] == 401
    # and the namespace is deleted with everything that was pushed during the deletion
    path = f"{REGION}/namespaces/{namespace_id}"
    wait_until(lambda: tenants.control.get(path).status_code == 404, timeout=60)
    # and its name can be reused at once
    name = repository.split("/")[0]
    assert tenants.api("POST", "/namespaces", name=name)["id"] != namespace_id
    assert tenants.owner.on(repository, "GET", "tags/list").status_code == 404


@pytest.mark.oci(158)
def test_a_key_revoked_during_a_push_is_rejected_from_the_next_request_on(tenants: Tenants) -> None:
    # given a client in the middle of the PATCH of a layer
    repository, key = tenants.repository(), tenants.new_key("ContainerRegistryPush")
    layer, half, revoked = os.urandom(2_000_000), threading.Event(), threading.Event()
    responses: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        yield layer[:1_500_000]
        half.set()
        assert revoked.wait(60)
        yield layer[1_500_000:]

    with OciClient(tenants.owner.host, key["secret_key"]) as client:
        upload = client.start_upload(repository)
        pushing = threading.Thread(
            target=lambda: responses.append(client.on(repository, "PATCH", upload, content=body()))
        )
        pushing.start()
        assert half.wait(20)

        # when its key is revoked
        tenants.revoke(key["access_key"])
        revoked.set()
        pushing.join(60)

        # then the chunk, which does not create a blob yet, is stored, and later requests are rejected
        assert responses[0].status_code == 202
        closing = client.on(repository, "PUT", upload, params={"digest": digest_of(layer)})
    assert closing.status_code == 401
    assert closing.json()["errors"][0]["code"] == "UNAUTHORIZED"
    # and the layer cannot be pulled, but another key with the right to push can close the upload
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 404
    assert tenants.owner.on(repository, "PUT", upload, params={"digest": digest_of(layer)}).status_code == 201


@pytest.mark.slow
def test_a_key_revoked_during_the_body_of_a_closing_put_creates_no_blob(tenants: Tenants) -> None:
    # given a layer in the body of the PUT that closes its upload
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

        # when its key is revoked before the end of the body
        tenants.revoke(key["access_key"])
        revoked.set()

        # then the request is rejected, and there is no blob
        assert pushing.result(60).status_code == 401
    assert tenants.owner.on(repository, "HEAD", f"blobs/{digest_of(layer)}").status_code == 404
