"""A storage that fails, lies or does not answer: live content stays, and the queue drains afterwards."""

import re
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from registry_control.catalog.models import Blob, BlobReview
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import BlobStore, Key
from registry_data.storage.factory import open_store
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, push_image
from tests.integration.gc.steps import collect, delete_image, expire_leases, is_stored, keys
from tests.services.disks import small_disk
from tests.services.minio import S3Server
from tests.services.scripted import Answer, Exchange, Script, running_script

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.only_on("sqlite"),  # the faults are the storage's
]

_LAYERS = [b"layer %d" % number for number in range(3)]
_CONFIRMATION = re.compile(rb"<Deleted>.*?</Deleted>", re.DOTALL)
_OF_CONNECTION = ("Connection", "Content-Length", "Transfer-Encoding", "Date", "Server")
_XML = {"Content-Type": "application/xml"}
_REFUSAL = '<?xml version="1.0" encoding="UTF-8"?><DeleteResult>{}</DeleteResult>'


class _Proxy:
    """Forwards requests to MinIO, except where a test makes it fail."""

    def __init__(self, script: Script, server: S3Server) -> None:
        self._script, self._server = script, server
        script.on(".", self.forward)

    def url(self, url: str) -> str:
        """The storage URL of a bucket, through this proxy."""
        return url.replace(self._server.endpoint, self._script.host)

    def fail(self, answer: "Callable[[_Proxy, Exchange], None]") -> None:
        """Answer deletions like this."""
        self._script.on(r"POST /[^?]*\?delete", lambda exchange: answer(self, exchange))

    def heal(self) -> None:
        """Forward everything again."""
        self._script.on(".", self.forward)

    def send(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        """Let MinIO do what a request asks for. The signature covers the name of the proxy's host."""
        request = exchange.received
        connection = HTTPConnection(self._server.endpoint, timeout=20)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            response = connection.getresponse()
            headers = {name: value for name, value in response.getheaders() if name not in _OF_CONNECTION}
            return response.status, headers, response.read()
        finally:
            connection.close()

    @property
    def forward(self) -> Answer:
        """Answer what MinIO answers."""

        def answer(exchange: Exchange) -> None:
            status, headers, body = self.send(exchange)
            exchange.reply(status, body, **headers)

        return answer


def _error(proxy: _Proxy, exchange: Exchange) -> None:
    exchange.reply(500, b"<Error><Code>InternalError</Code></Error>", **_XML)


def _no_answer(proxy: _Proxy, exchange: Exchange) -> None:
    exchange.cut()


def _answer_lost(proxy: _Proxy, exchange: Exchange) -> None:
    proxy.send(exchange)
    exchange.cut()


def _half_confirmed(proxy: _Proxy, exchange: Exchange) -> None:
    status, _, body = proxy.send(exchange)
    confirmed = _CONFIRMATION.findall(body)
    for each in confirmed[: len(confirmed) // 2]:
        body = body.replace(each, b"")
    exchange.reply(status, body, **_XML)


def _refused(proxy: _Proxy, exchange: Exchange, code: str = "AccessDenied") -> None:
    names = re.findall(r"<Key>(.*?)</Key>", exchange.received.body.decode())
    errors = (f"<Error><Key>{name}</Key><Code>{code}</Code><Message>no</Message></Error>" for name in names)
    exchange.reply(200, _REFUSAL.format("".join(errors)).encode(), **_XML)


def _not_found(proxy: _Proxy, exchange: Exchange) -> None:
    _refused(proxy, exchange, "NoSuchKey")


def _disk_full(proxy: _Proxy, exchange: Exchange) -> None:
    exchange.reply(507, b"<Error><Code>XMinioStorageFull</Code><Message>full</Message></Error>", **_XML)


def _no_xml(proxy: _Proxy, exchange: Exchange) -> None:
    exchange.reply(200, b"<html>Please sign in to the network")


FAULTS: dict[str, Callable[[_Proxy, Exchange], None]] = {
    "an error": _error,
    "no answer": _no_answer,
    "the answer is lost": _answer_lost,
    "half of the answer is missing": _half_confirmed,
    "access denied": _refused,
    "not found": _not_found,
    "no space": _disk_full,
    "another server answers": _no_xml,
}


@pytest.fixture
def proxy(minio: S3Server) -> Iterator[_Proxy]:
    with running_script() as script:
        yield _Proxy(script, minio)


def _two_images(owner: TestKey, namespace: Namespace, store: BlobStore) -> tuple[Pushed, dict[str, str]]:
    """A live image, and the storage keys of a deleted one that shares a layer with it."""
    live = push_image(owner, namespace, "live", layers=[b"shared", b"live"], config=b"live", store=store)
    dead = push_image(owner, namespace, layers=[b"shared", *_LAYERS], config=b"dead", store=store)
    expire_leases()
    delete_image(dead, store)
    return live, {digest: key for digest, key in keys().items() if digest not in live.blobs}


def _check_live(live: Pushed, store: BlobStore) -> None:
    """Every blob of the live image has its row and its bytes."""
    found = {blob.digest: blob for blob in Blob.objects.filter(digest__in=live.blobs, state="live")}
    assert set(found) == set(live.blobs)
    for blob in found.values():
        assert len(b"".join(store.read(Key(blob.storage_key)))) == blob.size


def _drain(store: BlobStore) -> None:
    for _ in range(10):
        collect(store)
        if not BlobReview.objects.exists():
            return
    raise AssertionError(list(BlobReview.objects.values()))


@pytest.mark.clients
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_object_store_removes_no_live_content(
    owner: TestKey, namespace: Namespace, minio: S3Server, proxy: _Proxy, fault: str
) -> None:
    # given a live and a dead image in MinIO, behind a proxy that fails when objects are deleted
    url = minio.url()
    direct, store = open_store(url), open_store(proxy.url(url))
    direct.check()
    live, dead = _two_images(owner, namespace, direct)
    proxy.fail(FAULTS[fault])

    # when the collector runs, again and again
    failed = [len(collect(store).errors) for _ in range(2)]

    # then the live image is complete, and what is not known to be gone has kept its row
    _check_live(live, direct)
    left = set(Blob.objects.filter(state="deleting").values_list("digest", flat=True))
    assert failed[0] == {"half of the answer is missing": 2, "not found": 0}.get(fault, len(dead))
    assert (
        left == set()
        if fault == "not found"
        else left >= {digest for digest, key in dead.items() if is_stored(direct, key)}
    )

    # and when the store works again, then the queue drains
    proxy.heal()
    _drain(store)
    _check_live(live, direct)
    assert set(keys()) == set(live.blobs)
    assert fault == "not found" or not any(is_stored(direct, key) for key in dead.values())


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_disk_that_fails_loses_no_live_content(
    owner: TestKey, namespace: Namespace, tmp_path: Path, fault: str
) -> None:
    with small_disk(tmp_path / "disk", mib=4) as disk:
        # given a live and a dead image on a disk that is full, or that the kernel has made read-only
        store = FilesystemStore(disk / "storage", reserve=0)
        store.check()
        live, dead = _two_images(owner, namespace, store)
        if fault == "full":
            _fill(disk / "filler")
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

        # when the collector runs
        batch = collect(store)

        # then a full disk gets space, and on a read-only one everything stays
        assert len(batch.errors) == (len(dead) if fault == "read-only" else 0)
        assert all(is_stored(store, key) for key in dead.values()) is (fault == "read-only")
        _check_live(live, store)
        if fault == "read-only":
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        _drain(store)
        assert not any(is_stored(store, key) for key in dead.values())
        _check_live(live, store)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return
