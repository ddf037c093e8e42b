"""Bodies stream: a transfer of any size costs the data process little memory."""

import hashlib
import os
from collections.abc import Callable, Iterator

import pytest

from tests.oci_client import OciClient
from tests.services.memory import Growth
from tests.services.minio import S3Server
from tests.services.stack import Stack
from tests.tenants import Tenants, pushing

pytestmark = [pytest.mark.slow, pytest.mark.serial]

MIB = 1024 * 1024
SIZE = 1024  # MiB
ALLOWED = 64  # MiB of growth


@pytest.mark.oci(48)
@pytest.mark.timeout(300)
def test_a_layer_of_1_gib_goes_in_and_out_with_less_than_64_mib_of_growth(
    stack: Stack, tenants: Tenants
) -> None:
    push_and_pull(stack, tenants.owner, tenants.repository())


@pytest.mark.clients
@pytest.mark.timeout(300)
def test_so_it_does_to_and_from_s3(make_stack: Callable[..., Stack], minio: S3Server) -> None:
    stack = make_stack(REGISTRY_STORAGE_URL=minio.url()).start()
    with pushing(stack) as (client, name):
        push_and_pull(stack, client, name)


def push_and_pull(stack: Stack, client: OciClient, repository: str) -> None:
    # given data processes that are warm
    client.push_image(repository, "warm", os.urandom(3 * MIB))
    block, hasher = os.urandom(MIB), hashlib.sha256()
    for _ in range(SIZE):
        hasher.update(block)
    digest = f"sha256:{hasher.hexdigest()}"
    with Growth(stack, "data") as growth:
        # when 1 GiB is pushed as docker does it, and pulled, whole and as two parts of one answer
        def body() -> Iterator[bytes]:
            for _ in range(SIZE):
                yield block

        upload = client.start_upload(repository)
        assert client.on(repository, "PATCH", upload, content=body()).status_code == 202
        assert client.on(repository, "PUT", upload, params={"digest": digest}).status_code == 201
        pulled = hashlib.sha256()
        with client.stream(repository, f"blobs/{digest}") as answer:
            for piece in answer.iter_raw():
                pulled.update(piece)
        halves = f"bytes=0-{SIZE // 2 * MIB - 1},{SIZE // 2 * MIB}-"
        received = 0
        with client.stream(repository, f"blobs/{digest}", Range=halves) as answer:
            for piece in answer.iter_raw():
                received += len(piece)
    # then it is the same, and the processes grew by little
    assert received == int(answer.headers["content-length"]) >= SIZE * MIB
    assert f"sha256:{pulled.hexdigest()}" == digest
    assert growth.mib < ALLOWED
    client.on(repository, "DELETE", f"blobs/{digest}")
