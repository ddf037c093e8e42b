"""Bodies are streamed: the memory of the data processes does not depend on the size of a transfer."""

import hashlib
import os
from collections.abc import Callable, Iterator

import pytest

from tests.oci_client import OciClient
from tests.services.memory import Growth
from tests.services.minio import S3Server
from tests.services.stack import Stack
from tests.tenants import Tenants, pushing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 1024 * 1024
SIZE = 512  # MiB
ALLOWED = 64  # MiB of growth


@pytest.mark.oci(48)
@pytest.mark.only_on("sqlite")
def test_pushing_and_pulling_512_mib_costs_less_than_64_mib(stack: Stack, tenants: Tenants) -> None:
    push_and_pull(stack, tenants.owner, tenants.repository())


@pytest.mark.clients
def test_pushing_and_pulling_512_mib_on_s3_costs_less_than_64_mib(
    make_stack: Callable[..., Stack], minio: S3Server
) -> None:
    stack = make_stack(REGISTRY_STORAGE_URL=minio.url()).start()
    with pushing(stack) as (client, name):
        push_and_pull(stack, client, name)


def push_and_pull(stack: Stack, client: OciClient, repository: str) -> None:
    # given data processes that have served requests
    client.push_image(repository, "warm", os.urandom(3 * MIB))
    block, hasher = os.urandom(MIB), hashlib.sha256()
    for _ in range(SIZE):
        hasher.update(block)
    digest = f"sha256:{hasher.hexdigest()}"
    with Growth(stack, "data") as growth:
        # when it is pushed as docker does it, and pulled, completely and as a multipart response
        def body() -> Iterator[bytes]:
            for _ in range(SIZE):
                yield block

        upload = client.start_upload(repository)
        assert client.on(repository, "PATCH", upload, content=body()).status_code == 202
        assert client.on(repository, "PUT", upload, params={"digest": digest}).status_code == 201
        pulled = hashlib.sha256()
        with client.stream(repository, f"blobs/{digest}") as response:
            for piece in response.iter_raw():
                pulled.update(piece)
        halves = f"bytes=0-{SIZE // 2 * MIB - 1},{SIZE // 2 * MIB}-"
        received = 0
        with client.stream(repository, f"blobs/{digest}", Range=halves) as response:
            for piece in response.iter_raw():
                received += len(piece)
    # then the content is equal, and the processes have grown by less than the limit
    assert received == int(response.headers["content-length"]) >= SIZE * MIB
    assert f"sha256:{pulled.hexdigest()}" == digest
    assert growth.mib < ALLOWED
    client.on(repository, "DELETE", f"blobs/{digest}")
