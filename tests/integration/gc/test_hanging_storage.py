"""A storage that accepts requests and never answers, from each request of an operation on.

The operation ends with the time-outs of the client, tells what failed and loses nothing; it holds no
transaction meanwhile, so that other requests go on. Once the storage answers again, it succeeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import pytest
from django.db import transaction
from urllib3 import Retry, Timeout

from registry_control.catalog.models import Blob
from registry_control.catalog.services import deletion, uploads
from registry_control.integrity.models import BlobCheck, Job, UnknownObject
from registry_control.integrity.services import checks, reconcile, scrub
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry import blobs, upload_sessions
from registry_data.registry import uploads as upload_use_cases
from registry_data.registry.authorization import Credentials, require_push
from registry_data.storage.base import BlobStore, StorageError, UploadId
from registry_data.storage.factory import open_store
from registry_data.storage.s3 import bucket, lease
from tests.factories import TestKey, make_namespace, push_image
from tests.integration.gc.steps import GRACE, collect, delete_image, expire_leases, is_stored
from tests.services.hanging import Proxy, run_beside_others
from tests.services.minio import S3Server
from tests.services.scripted import running_script

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.only_on("sqlite"),  # which has one writer: a transaction that is open would stop all others
    pytest.mark.clients,
]

_READ_TIMEOUT: Final = 0.4  # seconds, instead of 12
_LIVE: Final = (b"shared", b"live")


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


def _delete_namespace(registry: Registry, store: BlobStore) -> None:
    name = f"{registry.namespace.name}-gone"
    if not Namespace.objects.filter(name=name).exists():
        made = make_namespace(registry.owner, name=name)
        pushed = push_image(registry.owner, made, layers=[_LIVE[0]], config=_LIVE[1], store=registry.direct)
        upload = uploads.start(actor=registry.owner.actor, image_id=pushed.image_id, algorithm="sha256")
        registry.direct.create_upload(UploadId(upload.hex))
        with transaction.atomic():
            namespaces.mark_deleting(made)
    while deletion.run_batch(store=store, limit=10):
        pass
    if Namespace.objects.filter(name=name).exists():
        raise StorageError("the namespace is still there")


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
    "deletion of a namespace and its image": _delete_namespace,
}

_LOGGED: Final = ("expired uploads", "deletion of a namespace and its image")
"""Their failures are logged, and tried again."""


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
            proxy = Proxy(script, minio.endpoint, hangs_from=number)
            outcome = run_beside_others(partial(operation, registry, proxy.store(registry.url)), proxy)

        # then the operation has failed with a clear error, and everything live is there
        has_failed = proxy.hangs.is_set()
        if not has_failed:
            assert outcome is None
        elif name not in _LOGGED:
            assert isinstance(outcome, ProtocolError | StorageError), outcome
            text = outcome.message if isinstance(outcome, ProtocolError) else str(outcome)
            assert "did not respond" in text or "request to S3 failed" in text, text
        assert registry.live() == kept
        assert len(kept) == len(_LIVE)
        assert all(is_stored(registry.direct, key) for key in kept.values())
        assert not UnknownObject.objects.filter(name__in=kept.values()).exists()
        # and when the storage answers again, then it succeeds
        monkeypatch.setattr(lease, "LEASE", timedelta(0))  # that of an interrupted call on an upload is over
        operation(registry, registry.direct)
        number += 1 + number // 3  # later requests are more of the same
    assert number > 1
