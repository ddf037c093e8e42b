"""Hundreds of slow clients do not slow down others, and cost the registry a limited amount of memory."""

import asyncio
import os
from base64 import b64encode
from contextlib import suppress

import pytest

from tests.oci_client import digest_of
from tests.services.memory import Growth
from tests.services.stack import Stack
from tests.tenants import Tenants

pytestmark = [pytest.mark.slow, pytest.mark.serial]

KIB, MIB = 1024, 1024 * 1024
EACH = 150
UPLOADS = 200
ALLOWED = 300  # MiB of growth
READERS = 300
READ = 10


class Slow:
    """A connection whose bytes are sent and read one call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(
        cls, host: str, secret: str | None, line: str, *headers: str, limit: int = 64, end: bytes = b"\r\n"
    ) -> "Slow":
        """Connect and send a request's head up to its `end`; `limit` is how many KiB are read ahead."""
        name, port = host.rsplit(":", 1)
        made = cls(*await asyncio.open_connection(name, int(port), limit=limit * KIB))
        pair = b64encode(f"x:{secret}".encode()).decode()
        head = [f"{line} HTTP/1.1", f"Host: {host}", f"Authorization: Basic {pair}", *headers, ""]
        await made.send("\r\n".join(head).encode() + end)
        return made

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 60)

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(size), 60)

    def close(self) -> None:
        self._writer.close()


def test_slow_clients_do_not_block_others(tenants: Tenants) -> None:
    # given a layer that is larger than the socket buffers
    owner, name = tenants.owner, tenants.repository()
    layer = os.urandom(16 * MIB)
    owner.push_image(name, "1", layer)
    uploads = [owner.start_upload(name) for _ in range(EACH)]

    def work() -> None:
        for number in range(20):
            owner.push_image(name, f"other-{number}", os.urandom(100 * KIB))
            assert owner.pull_status(name, f"other-{number}") == 200
        assert owner.on(name, "GET", f"blobs/{digest_of(layer)}").content == layer

    async def slowly() -> None:
        # when many clients send a head or a body byte by byte, and many do not read their responses
        host, secret = owner.host, owner.secret
        lines = [f"PATCH /v2/{name}/{upload}" for upload in uploads]
        bodies = [await Slow.begin(host, secret, line, "Transfer-Encoding: chunked") for line in lines]
        line = f"GET /v2/{name}/blobs/{digest_of(layer)}"
        readers = [await Slow.begin(host, secret, line, limit=1) for _ in range(EACH)]
        heads = [await Slow.begin(host, secret, "GET /v2/", end=b"") for _ in range(EACH)]
        for body in [*bodies, *bodies]:
            await body.send(b"1\r\nx\r\n")

        # then other clients push and pull
        await asyncio.to_thread(work)

        # and the slow clients get their responses too
        for body in bodies:
            await body.send(b"0\r\n\r\n")
        responses = [await body.head() for body in bodies]
        assert all(b" 202 " in response and b"range: 0-1\r\n" in response for response in responses)
        for reader in readers:
            assert b" 200 " in await reader.head()
            assert await reader.read(len(layer)) == layer
        for slow in [*heads, *bodies, *readers]:
            slow.close()

    asyncio.run(slowly())


@pytest.mark.only_on("sqlite")
def test_300_downloads_that_are_not_read_cost_less_than_300_mib(stack: Stack, tenants: Tenants) -> None:
    # given a layer that is requested by range, so that the server does not send it by file path
    owner, name = tenants.owner, tenants.repository()
    layer = os.urandom(24 * MIB)
    owner.push_image(name, "1", layer)

    async def slowly() -> None:
        # when hundreds of clients request it and read nothing
        line = f"GET /v2/{name}/blobs/{digest_of(layer)}"
        part = f"Range: bytes=1-{len(layer) - 1}"
        clients = [await Slow.begin(owner.host, owner.secret, line, part, limit=1) for _ in range(READERS)]
        heads = [await client.head() for client in clients]

        # then others get responses, memory stays below the limit, and clients that read get all bytes
        assert await asyncio.to_thread(owner.pull_status, name, "1") == 200
        assert all(b" 206 " in head for head in heads)
        await asyncio.sleep(2)
        assert growth.mib < ALLOWED
        for client in clients[:READ]:  # before the idle timeout of a client that reads nothing
            assert await client.read(len(layer) - 1) == layer[1:]
        for client in clients:
            client.close()

    with Growth(stack, "data") as growth:
        asyncio.run(slowly())


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(("part", "parts"), [(64 * KIB, 24), (1, 3000)])
def test_200_slow_uploads_cost_less_than_300_mib(
    stack: Stack, tenants: Tenants, part: int, parts: int
) -> None:
    """Parts of one byte too, because each buffered part costs about 50 bytes of memory."""
    owner, name = tenants.owner, tenants.repository()
    uploads = [owner.start_upload(name) for _ in range(UPLOADS)]
    chunk = b"%x\r\n%s\r\n" % (part, b"x" * part)

    async def slowly() -> None:
        # when 200 clients send their bodies concurrently
        lines = [f"PATCH /v2/{name}/{upload}" for upload in uploads]
        headers = ("Transfer-Encoding: chunked",)
        clients = [await Slow.begin(owner.host, owner.secret, line, *headers) for line in lines]
        at_once = max(1, 64 * KIB // len(chunk) // 64)
        for _ in range(parts // at_once):
            for client in clients:
                await client.send(chunk * at_once)

        # then memory stays below the limit, and every upload is complete
        assert growth.mib < ALLOWED
        for client in clients:
            await client.send(b"0\r\n\r\n")
            assert f"range: 0-{parts // at_once * at_once * part - 1}\r\n".encode() in await client.head()
            client.close()

    with Growth(stack, "data") as growth:
        asyncio.run(slowly())
    for upload in uploads:
        owner.on(name, "DELETE", upload)


BODY = b"Content-Length: %d\r\n\r\n"
CONTROL = b"POST /registry/v1/regions/fr-par/namespaces HTTP/1.1\r\nHost: 127.0.0.1\r\n"
DATA = b"PUT /v2/%s/manifests/x HTTP/1.1\r\nHost: h\r\n"
WRONG_KEY = b"X-Auth-Token: 00000000-0000-4000-8000-000000000000\r\n"
WRONG_PASSWORD = b"Authorization: Basic eDp5\r\n"


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(
    ("plane", "head", "size"),
    [
        ("control", CONTROL, 2_400_000),
        ("control", CONTROL + WRONG_KEY, 2_400_000),
        ("data", DATA, 4_000_000),
        ("data", DATA + WRONG_PASSWORD, 4_000_000),
    ],
)
def test_300_clients_that_send_almost_all_of_a_body_cost_less_than_300_mib(
    stack: Stack, tenants: Tenants, plane: str, head: bytes, size: int
) -> None:
    host, _, port = stack.environment[f"REGISTRY_{plane.upper()}_ADDR"].rpartition(":")
    request = head.replace(b"%s", tenants.repository().encode()) + BODY % size + b"x" * (size - 1)

    async def send() -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        with suppress(OSError, TimeoutError):  # rejected before the whole body was sent
            await asyncio.wait_for(writer.drain(), 20)
        return writer

    async def all_clients() -> None:
        writers = await asyncio.gather(*(send() for _ in range(300)))
        await asyncio.sleep(1)
        for writer in writers:
            writer.close()

    with Growth(stack, plane) as growth:
        asyncio.run(all_clients())
    assert growth.mib < ALLOWED
