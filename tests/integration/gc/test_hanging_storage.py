"""A storage that accepts requests and never answers, from each request of an operation on.

The operation ends with the time-outs of the client, tells what failed and loses nothing; it holds no
transaction meanwhile, so that other requests go on. Once the storage answers again, it succeeds.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from http.client import HTTPConnection
from typing import Final

import pytest
from django.db import connection
from urllib3 import Retry, Timeout

from registry_control.catalog.models import Blob
from registry_control.catalog.services import uploads
from registry_control.integrity.models import BlobCheck, Job, UnknownObject
from registry_control.integrity.services import checks, reconcile, scrub
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry import blobs, upload_sessions
from registry_data.registry import uploads as upload_use_cases
from registry_data.registry.authorization import Credentials, require_push
from registry_data.storage.base import BlobStore, StorageError
from registry_data.storage.factory import open_store
from registry_data.storage.s3 import bucket
from tests.factories import TestKey, push_image
from tests.integration.gc.steps import GRACE, collect, delete_image, expire_leases, is_stored
from tests.services.minio import S3Server
from tests.services.scripted import Exchange, Script, running_script

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.only_on("sqlite"),  # which has one writer: a transaction that is open would stop all others
    pytest.mark.clients,
]

_READ_TIMEOUT: Final = 0.4  # seconds, instead of 12
_LONGEST: Final = 10.0  # seconds until an operation ends
_LIVE: Final = (b"shared", b"live")
_OF_CONNECTION: Final = ("Connection", "Content-Length", "Transfer-Encoding", "Date", "Server")


@dataclass
class Proxy:
    """Forwards requests to MinIO, and answers none from one of them on."""

    script: Script
    server: S3Server
    hangs_from: int | None = None  # the number of the first request without an answer
    received: int = 0
    hangs: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.script.on(".", self._answer)

    def store(self, url: str) -> BlobStore:
        """The store in a bucket, reached through this proxy."""
        return open_store(url.replace(self.server.endpoint, self.script.host))

    def _answer(self, exchange: Exchange) -> None:
        with self._lock:
            number, self.received = self.received, self.received + 1
        if self.hangs_from is None or number < self.hangs_from:
            self._forward(exchange)
            return
        self.hangs.set()
        self.is_over.wait(2 * _LONGEST)
        exchange.cut()

    def _forward(self, exchange: Exchange) -> None:
        request = exchange.received
        upstream = HTTPConnection(self.server.endpoint, timeout=20)
        try:
            upstream.request(request.method, request.path, request.body, request.headers)
            response = upstream.getresponse()
            headers = {name: value for name, value in response.getheaders() if name not in _OF_CONNECTION}
            body = response.read()
            if request.method == "HEAD":
                headers["Content-Length"] = response.headers["Content-Length"] or "0"
            exchange.reply(response.status, body, **headers)
        finally:
            upstream.close()


@dataclass(frozen=True)
class Registry:
    """A live image, a deleted one that shares a layer with it, and an upload that has expired."""

    owner: TestKey
    namespace: Namespace
    repository: Repository
    direct: BlobStore
    url: str

    @property
    def credentials(self) -> Credentials:
        return Credentials(secret=self.owner.secret)

    def live(self) -> dict[str, str]:
        """The storage keys of the live image by digest."""
        digests = [str(Digest.of(content)) for content in _LIVE]
        return dict(
            Blob.objects.filter(digest__in=digests, state="live").values_list("digest", "storage_key")
        )


def _push(registry: Registry, store: BlobStore) -> None:
    content = b"pushed while the storage hangs"
    pusher = require_push(registry.credentials, registry.repository)
    session = upload_sessions.start(pusher, algorithm="sha256", store=store)
    upload = upload_sessions.find(
        registry.credentials, registry.repository, session, purpose=upload_sessions.TO_WRITE
    )
    upload_use_cases.finish_small(content, Digest.of(content), upload, at=0, store=store)


def _pull(registry: Registry, store: BlobStore) -> None:
    for digest in registry.live():
        found = blobs.find(
            registry.credentials, registry.repository, Digest.parse(digest), lease=timedelta(hours=1)
        )
        assert b"".join(blobs.read(store, found.key, start=0, stop=found.size)) in _LIVE


def _collect(_: Registry, store: BlobStore) -> None:
    errors = collect(store).errors
    if errors:
        raise next(iter(errors.values()))


def _reconcile(_: Registry, store: BlobStore) -> None:
    Job.objects.update(started_at=None, retry_at=None)
    reconcile.work(store, period=timedelta(days=1), grace=GRACE)
    _raise_error_of(Job.Name.RECONCILE)


def _scrub(_: Registry, store: BlobStore) -> None:
    Job.objects.update(retry_at=None)
    scrub.work(store, period=timedelta())
    _raise_error_of(Job.Name.SCRUB)


def _check(registry: Registry, store: BlobStore) -> None:
    for blob in Blob.objects.filter(digest__in=registry.live()):
        check = BlobCheck(
            blob_id=blob.pk, storage_key=blob.storage_key, found="missing", due_at=blob.created_at
        )
        BlobCheck.objects.bulk_create([check], ignore_conflicts=True)
    BlobCheck.objects.update(due_at=Blob.objects.values_list("created_at", flat=True)[0])
    checks.work(store)
    for check in BlobCheck.objects.exclude(failed_at=None)[:1]:
        raise StorageError(check.reason)


def _expire_uploads(_: Registry, store: BlobStore) -> None:
    uploads.expire(store=store, limit=10)


def _raise_error_of(name: Job.Name) -> None:
    error = Job.objects.get(pk=name).error
    if error:
        raise StorageError(error)


OPERATIONS: Final[dict[str, Callable[[Registry, BlobStore], None]]] = {
    "push": _push,
    "pull": _pull,
    "collector": _collect,
    "reconcile": _reconcile,
    "scrub": _scrub,
    "second look": _check,
    "expired uploads": _expire_uploads,
}


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_RETRIES", Retry(total=1, connect=1, read=0))


@pytest.fixture
def registry(owner: TestKey, namespace: Namespace, minio: S3Server) -> Registry:
    url = minio.url()
    direct = open_store(url)
    direct.check()
    made = Registry(owner, namespace, Repository(namespace.name, "live"), direct, url)
    push_image(owner, namespace, "live", layers=[_LIVE[0]], config=_LIVE[1], store=direct)
    return made


def _prepare(registry: Registry) -> None:
    """Give the collector an image to delete, and let an upload expire."""
    dead = push_image(
        registry.owner,
        registry.namespace,
        layers=[_LIVE[0], b"dead"],
        config=b"dead too",
        store=registry.direct,
    )
    pusher = require_push(registry.credentials, registry.repository)
    session = upload_sessions.start(pusher, algorithm="sha256", store=registry.direct)
    expire_leases()
    uploads.close(session_id=session)
    delete_image(dead, registry.direct)


def _run_beside_others(call: Callable[[], None], proxy: Proxy) -> Exception | None:
    """Run an operation in a thread; others can write to the database while the storage hangs.

    Returns the error of the operation.
    """
    outcome: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the outcome
            outcome.append(error)
        finally:
            connection.close()
            proxy.is_over.set()

    began = time.monotonic()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not proxy.hangs.wait(0.01) and thread.is_alive():
        pass
    with closing(sqlite3.connect(str(connection.settings_dict["NAME"]), timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")  # fails at once if the operation has a transaction open
        other.rollback()
    thread.join(_LONGEST)
    assert not thread.is_alive(), f"the operation has not ended after {time.monotonic() - began:.0f} s"
    return outcome[0] if outcome else None


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_storage_that_hangs_loses_nothing_and_holds_no_transaction(
    registry: Registry, minio: S3Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    operation, number, has_failed = OPERATIONS[name], 0, True
    while has_failed:
        # given a storage that never answers, from the next request of the operation on
        _prepare(registry)
        kept = registry.live()
        with monkeypatch.context() as patch, running_script() as script:
            patch.setattr(bucket, "_TIMEOUT", Timeout(connect=3, read=_READ_TIMEOUT))
            proxy = Proxy(script, minio, hangs_from=number)
            outcome = _run_beside_others(partial(operation, registry, proxy.store(registry.url)), proxy)

        # then the operation has failed with a clear error, and everything live is there
        has_failed = proxy.hangs.is_set()
        if has_failed and name != "expired uploads":
            assert isinstance(outcome, ProtocolError | StorageError), outcome
            text = outcome.message if isinstance(outcome, ProtocolError) else str(outcome)
            assert "did not respond" in text or "request to S3 failed" in text, text
        assert registry.live() == kept
        assert len(kept) == len(_LIVE)
        assert all(is_stored(registry.direct, key) for key in kept.values())
        assert not UnknownObject.objects.filter(name__in=kept.values()).exists()
        # and when the storage answers again, then it succeeds
        operation(registry, registry.direct)
        number += 1 + number // 4  # later requests are more of the same
    assert number > 1
