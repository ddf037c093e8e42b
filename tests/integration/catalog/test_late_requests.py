"""Requests to an upload that another request has ended, or that an earlier attempt has ended partly."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.test import override_settings

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobLease, Image, UploadSession
from registry_control.catalog.services import blobs, images, uploads
from registry_control.common import request_context
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.identity import services as identity
from registry_control.identity.models import ApiKey
from registry_control.namespaces.models import Namespace
from registry_data.config import Config
from registry_data.http.app import App
from registry_data.http.app_context import AppContext
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Repository, Tag
from registry_data.registry import manifests
from registry_data.registry.authorization import Credentials, require_push
from registry_data.registry.blobs import renew_lease
from registry_data.registry.upload_sessions import Upload, already_stored
from registry_data.registry.uploads import (
    append_small,
    finish,
    finish_small,
    open_upload,
    rehash,
    rollback,
)
from registry_data.scoped_cache import ChangeTracker
from registry_data.storage.base import BlobStore, Key, NotStored, StorageError, Unavailable, UploadId
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from registry_data.storage.s3.address import Address
from registry_data.storage.s3.store import S3Store
from tests.factories import TestKey, make_key, make_namespace, push_image
from tests.integration.growth.watched import NoFeed, WatchedBridge

pytestmark = pytest.mark.django_db(transaction=True)

CONTENT = b"the content of a layer"
DIGEST = Digest("sha256", sha256(CONTENT).hexdigest())


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.clients)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    made: BlobStore = FilesystemStore(tmp_path / "blobs")
    if request.param == "s3":
        made = S3Store(Address.parse(request.getfixturevalue("minio").url()))
    made.check()
    return made


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


@pytest.fixture
def start(owner: TestKey, image_id: UUID, store: BlobStore) -> Callable[[], Upload]:
    """Start an upload; return it as a request loads it."""

    def begun() -> Upload:
        session_id = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
        store.create_upload(UploadId(session_id.hex))
        return again(Upload(image_id, uploads.get(session_id=session_id, image_id=image_id)))

    return begun


def again(upload: Upload) -> Upload:
    """The upload as the next request loads it."""
    return Upload(upload.image_id, uploads.get(session_id=upload.session.id, image_id=upload.image_id))


@pytest.fixture
def upload(start: Callable[[], Upload], store: BlobStore) -> Upload:
    """An upload with the content."""
    found = start()
    append_small(CONTENT, found, at=0, store=store)
    return found


def key_of(upload: Upload) -> Key:
    return blob_key(DIGEST.algorithm, DIGEST.encoded, upload.id)


def content_of(store: BlobStore) -> bytes:
    """The bytes to which the row of the one blob refers."""
    return b"".join(store.read(Key(Blob.objects.get(state="live").storage_key)))


def append_more(upload: Upload, store: BlobStore) -> None:
    append_small(b"more", upload, at=None, store=store)


def finish_with_more(upload: Upload, store: BlobStore) -> None:
    claimed = Digest("sha256", sha256(CONTENT + b"more").hexdigest())
    finish_small(b"more", claimed, upload, at=None, store=store)


def finish_with_less_than_claimed(upload: Upload, store: BlobStore) -> None:
    finish_small(b"more", Digest("sha256", sha256(b"other").hexdigest()), upload, at=None, store=store)


def finish_under_another_algorithm(upload: Upload, store: BlobStore) -> None:
    finish_small(b"", Digest("sha512", sha512(CONTENT).hexdigest()), upload, at=None, store=store)


@pytest.mark.oci(166, 167)
@pytest.mark.parametrize(
    "late", [append_more, finish_with_more, finish_with_less_than_claimed, finish_under_another_algorithm]
)
def test_invariant_4_a_blob_is_not_changed_by_a_request_that_loaded_its_upload_before(
    upload: Upload, store: BlobStore, late: Callable[[Upload, BlobStore], None]
) -> None:
    # given an upload that was recorded by a process that died before it could discard it
    key = key_of(upload)
    store.publish(upload.id, key)
    new = blobs.NewBlob(str(DIGEST), len(CONTENT), key)
    assert blobs.record_upload(session_id=upload.session.id, image_id=upload.image_id, new=new)

    # when a request that has loaded it as open continues, then the upload is unknown
    with pytest.raises(ProtocolError) as refused:
        late(upload, store)
    assert refused.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN

    # and the blob is unchanged, also after the worker has run
    assert content_of(store) == CONTENT
    uploads.expire(store=store, limit=10)
    assert content_of(store) == CONTENT
    assert not UploadSession.objects.exists()
    with pytest.raises(NotStored):
        store.upload_size(upload.id)


@pytest.mark.oci(72)
@pytest.mark.parametrize("published", [True, False])
def test_a_closing_request_that_failed_after_its_body_was_stored_may_be_repeated_with_the_body(
    upload: Upload, store: BlobStore, *, published: bool
) -> None:
    if published:
        store.publish(upload.id, key_of(upload))
    finish_small(CONTENT, DIGEST, upload, at=None, store=store)
    assert Blob.objects.get().digest == str(DIGEST)
    assert content_of(store) == CONTENT


@pytest.mark.oci(57)
def test_a_wrong_digest_after_a_chunk_changes_nothing(upload: Upload, store: BlobStore) -> None:
    with pytest.raises(ProtocolError) as refused:
        finish_with_less_than_claimed(upload, store)
    assert refused.value.code is ErrorCode.DIGEST_INVALID
    finish_with_more(upload, store)
    assert content_of(store) == CONTENT + b"more"


def test_an_upload_that_is_cancelled_during_a_write_leaves_no_bytes(upload: Upload, store: BlobStore) -> None:
    # given a request that writes to an upload that is cancelled
    writer = store.open_upload(upload.id, at=None)
    writer.write(b"more")
    uploads.cancel(session_id=upload.session.id, image_id=upload.image_id, store=store)

    # when the write has ended, and the worker has run
    writer.close()
    uploads.expire(store=store, limit=10)

    # then no bytes of it are left
    assert not UploadSession.objects.exists()
    with pytest.raises(NotStored):
        store.upload_size(upload.id)
    if isinstance(store, S3Store):
        left = store._bucket.client.list_objects(store._bucket.name, recursive=True)  # noqa: SLF001
        assert [found.object_name for found in left if upload.id in (found.object_name or "")] == []


def test_invariant_1_an_upload_that_is_created_again_after_it_became_a_blob_goes_without_the_blob(
    upload: Upload, store: BlobStore
) -> None:
    # given a blob, whose first request to create the upload was repeated, and reaches the storage only now
    finish_small(b"", DIGEST, upload, at=None, store=store)
    store.create_upload(upload.id)

    # when the worker removes what is left of the closed session, then the blob stays
    uploads.expire(store=store, limit=10)
    assert not UploadSession.objects.exists()
    assert content_of(store) == CONTENT
    with pytest.raises(NotStored):
        store.upload_size(upload.id)


@pytest.mark.parametrize("size", [5, 9 * 1024 * 1024])
def test_invariant_4_a_late_request_to_an_upload_that_is_created_again_does_not_change_the_blob(
    upload: Upload, store: BlobStore, size: int
) -> None:
    # given a blob, and a request to create its upload that was repeated, and reaches the storage only now
    finish_small(b"", DIGEST, upload, at=None, store=store)
    store.create_upload(upload.id)

    # when a request that has loaded the session before it was closed sends other content
    late = os.urandom(size)
    with pytest.raises(ProtocolError) as refused:
        finish_small(late, Digest.of(late), upload, at=0, store=store)
    assert refused.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN

    # then the blob is unchanged, also after the worker has run
    assert content_of(store) == CONTENT
    uploads.expire(store=store, limit=10)
    assert content_of(store) == CONTENT
    assert [blob.digest for blob in Blob.objects.all()] == [str(DIGEST)]


def test_an_upload_that_a_killed_process_published_and_did_not_record_is_removed(
    upload: Upload, store: BlobStore
) -> None:
    store.publish(upload.id, key_of(upload))
    UploadSession.objects.update(expires_at=now())
    uploads.expire(store=store, limit=10)
    assert ended(upload, store)


def test_invariant_1_a_truncated_upload_is_not_closed_with_its_former_digest(
    start: Callable[[], Upload], store: BlobStore
) -> None:
    # given a whole body with a wrong digest, of an algorithm that was not computed during the upload
    upload, content = start(), os.urandom(9 * 1024 * 1024)
    append = open_upload(upload, at=0, store=store)
    append.hash(content)
    append.store(content)
    with pytest.raises(ProtocolError):
        finish(append, Digest.of(b"other", "sha512"), store=store)

    # when it is closed with the correct digest and no body
    for algorithm in ("sha512", "sha256"):
        with pytest.raises(ProtocolError) as refused:
            finish_small(b"", Digest.of(content, algorithm), upload, at=None, store=store)
        assert refused.value.code is ErrorCode.DIGEST_INVALID
    assert not Blob.objects.exists()

    # then the whole body has to be sent again
    finish_small(content, Digest.of(content), upload, at=0, store=store)
    assert content_of(store) == content


def test_content_that_is_pushed_again_repairs_a_blob_whose_bytes_are_missing(
    start: Callable[[], Upload], upload: Upload, store: BlobStore
) -> None:
    # given a blob that no manifest lists, and that the storage has lost
    finish_small(b"", DIGEST, upload, at=None, store=store)
    store.delete(Key(Blob.objects.get().storage_key))

    # when its content is pushed again
    again = start()
    finish_small(CONTENT, DIGEST, again, at=0, store=store)

    # then the worker, which would delete the copy, lets the blob have its bytes
    uploads.expire(store=store, limit=10)
    assert Blob.objects.get(state="live").storage_key == key_of(again)
    assert content_of(store) == CONTENT
    assert not UploadSession.objects.exists()
    with pytest.raises(NotStored):
        store.upload_size(again.id)


def test_bytes_that_repair_a_blob_survive_a_worker_that_runs_when_the_upload_is_recorded(
    start: Callable[[], Upload], upload: Upload, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_small(b"", DIGEST, upload, at=None, store=store)
    store.delete(Key(Blob.objects.get().storage_key))
    record = blobs.record_upload

    def record_beside_a_worker(**arguments: Any) -> bool:
        is_used = record(**arguments)
        with suppress(StorageError):  # on S3, a session whose writer still has it open is left
            uploads.expire(store=store, limit=10)
        return is_used

    monkeypatch.setattr(blobs, "record_upload", record_beside_a_worker)
    finish_small(CONTENT, DIGEST, start(), at=0, store=store)
    assert content_of(store) == CONTENT


def test_content_that_is_pushed_again_is_discarded_if_the_blob_is_intact_or_cannot_be_checked(
    start: Callable[[], Upload], upload: Upload, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_small(b"", DIGEST, upload, at=None, store=store)
    key = Blob.objects.get().storage_key

    def is_away(key: Key) -> int:
        raise Unavailable(f"{key} cannot be looked at")

    for sizes in (store.size, is_away):
        other = start()
        with monkeypatch.context() as patched:
            patched.setattr(store, "size", sizes)
            finish_small(CONTENT, DIGEST, other, at=0, store=store)
        assert Blob.objects.get().storage_key == key
        uploads.expire(store=store, limit=10)  # the worker deletes the copy
        with pytest.raises(NotStored):
            store.size(key_of(other))


def close_at_once(upload: Upload, store: BlobStore) -> None:
    finish_small(CONTENT, DIGEST, upload, at=0, store=store)


def close_after_a_chunk(upload: Upload, store: BlobStore) -> None:
    append_small(CONTENT, upload, at=0, store=store)
    finish_small(b"", DIGEST, again(upload), at=None, store=store)


def close_a_stream(upload: Upload, store: BlobStore) -> None:
    append = open_upload(upload, at=0, store=store)
    append.hash(CONTENT)
    append.store(CONTENT)
    finish(append, DIGEST, store=store)


@pytest.fixture(params=[close_at_once, close_after_a_chunk, close_a_stream])
def close(request: pytest.FixtureRequest) -> Callable[[Upload, BlobStore], None]:
    """A way to send the content again."""
    way: Callable[[Upload, BlobStore], None] = request.param
    return way


@pytest.fixture
def published(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> list[UploadId]:
    """The keys that are published in the storage from now on."""
    noted: list[UploadId] = []
    publish = store.publish

    def note(upload: UploadId, key: Key) -> None:
        noted.append(upload)
        publish(upload, key)

    monkeypatch.setattr(store, "publish", note)
    return noted


def ended(upload: Upload, store: BlobStore) -> bool:
    """Whether an upload is closed, and nothing of it is left but a row for the worker."""
    for ask in (partial(store.size, key_of(upload)), partial(store.upload_size, upload.id)):
        with pytest.raises(NotStored):
            ask()
    return not UploadSession.objects.filter(is_open=True).exists()


@pytest.mark.oci(165)
def test_content_of_another_image_of_the_organization_is_shared_and_not_stored_again(
    owner: TestKey,
    namespace: Namespace,
    start: Callable[[], Upload],
    store: BlobStore,
    published: list[UploadId],
    close: Callable[[Upload, BlobStore], None],
) -> None:
    # given an image with a layer
    push_image(owner, namespace, "base", layers=[CONTENT], store=store)
    published.clear()

    # when the same layer is pushed to another image
    upload = start()
    close(upload, store)

    # then that image references it too, and nothing was stored
    assert BlobLease.objects.filter(image=upload.image_id, blob__digest=str(DIGEST)).exists()
    assert ended(upload, store)
    assert not published
    assert b"".join(store.read(Key(Blob.objects.get(digest=str(DIGEST)).storage_key))) == CONTENT


def test_invariant_9_content_of_another_tenant_is_stored_like_new_content(
    start: Callable[[], Upload],
    store: BlobStore,
    published: list[UploadId],
    close: Callable[[Upload, BlobStore], None],
) -> None:
    stranger = make_key()
    push_image(stranger, make_namespace(stranger), layers=[CONTENT], store=store)
    published.clear()
    upload = start()
    close(upload, store)
    assert published == [upload.id]
    uploads.expire(store=store, limit=10)  # the worker deletes the copy
    assert ended(upload, store)


def test_invariant_2_content_that_a_sweep_deletes_before_it_is_shared_is_stored_again(
    owner: TestKey,
    namespace: Namespace,
    start: Callable[[], Upload],
    store: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    close: Callable[[Upload, BlobStore], None],
) -> None:
    # given a layer that garbage collection deletes while the same content is pushed
    push_image(owner, namespace, "base", layers=[CONTENT], store=store)
    size, swept = store.size, Blob.objects.filter(digest=str(DIGEST), state=Blob.State.LIVE)

    def sweep(key: Key) -> int:
        swept.update(state=Blob.State.DELETING)
        return size(key)

    upload = start()
    with monkeypatch.context() as patched:
        patched.setattr(store, "size", sweep)
        close(upload, store)

    # then the blob has the new bytes
    blob = Blob.objects.get(digest=str(DIGEST), state=Blob.State.LIVE)
    assert blob.storage_key == key_of(upload)
    assert b"".join(store.read(Key(blob.storage_key))) == CONTENT
    assert BlobLease.objects.filter(image=upload.image_id, blob=blob).exists()


def test_content_is_shared_only_if_its_bytes_were_sent(
    owner: TestKey, namespace: Namespace, start: Callable[[], Upload], store: BlobStore
) -> None:
    push_image(owner, namespace, "base", layers=[CONTENT], store=store)
    upload = start()
    for sent in (b"", CONTENT[:-1], CONTENT + b"more"):
        with pytest.raises(ProtocolError) as refused:
            finish_small(sent, DIGEST, upload, at=0, store=store)
        assert refused.value.code is ErrorCode.DIGEST_INVALID
    assert not BlobLease.objects.filter(image=upload.image_id).exists()
    close_at_once(upload, store)


@pytest.mark.parametrize("size", [None, 5])
def test_missing_or_truncated_bytes_of_an_image_are_repaired_by_a_push_to_another_one(
    owner: TestKey,
    namespace: Namespace,
    start: Callable[[], Upload],
    store: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    size: int | None,
) -> None:
    push_image(owner, namespace, "base", layers=[CONTENT], store=store)
    blob = Blob.objects.get(digest=str(DIGEST))
    if size is None:
        store.delete(Key(blob.storage_key))
    with monkeypatch.context() as patched:
        if size is not None:
            patched.setattr(store, "size", lambda _: size)
        close_at_once(start(), store)
    blob.refresh_from_db()
    assert b"".join(store.read(Key(blob.storage_key))) == CONTENT


def test_bytes_that_were_published_for_a_closed_session_are_deleted(upload: Upload, store: BlobStore) -> None:
    uploads.close(session_id=upload.session.id)
    with pytest.raises(ProtocolError) as refused:
        finish_small(b"", DIGEST, upload, at=None, store=store)
    assert refused.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN
    with pytest.raises(NotStored):
        store.size(key_of(upload))


def test_a_large_upload_is_hashed_again_once_and_the_digest_is_cached(
    start: Callable[[], Upload], store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a large upload hashed with one algorithm and closed with another one, with a wrong digest
    upload, content = start(), os.urandom(9 * 1024 * 1024)
    append_small(content, upload, at=0, store=store)
    reads: list[object] = []
    read = store.read_upload

    def counted(upload: UploadId) -> Iterator[bytes]:
        reads.append(upload)
        return read(upload)

    monkeypatch.setattr(store, "read_upload", counted)
    claims = [Digest.of(b"other", "sha512"), Digest.of(b"other"), Digest.of(content, "sha512")]
    held = finish_small(b"", claims[0], again(upload), at=None, store=store)

    # then the upload is returned, to be hashed in another process
    assert held is not None
    assert not reads
    rehash(held, claims[0], store=store)
    with pytest.raises(ProtocolError):
        finish(held, claims[0], store=store)

    # and no later attempt hashes it again
    with pytest.raises(ProtocolError):
        finish_small(b"", claims[1], again(upload), at=None, store=store)
    assert finish_small(b"", claims[2], again(upload), at=None, store=store) is None
    assert len(reads) == 1
    assert content_of(store) == content


def test_an_upload_that_cannot_be_hashed_again_remains_for_the_next_attempt(
    upload: Upload, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a storage that has lost the last bytes that it acknowledged
    claimed = Digest.of(CONTENT, "sha512")
    append = open_upload(upload, at=None, store=store)
    with monkeypatch.context() as patched:
        patched.setattr(store, "read_upload", lambda _: iter([CONTENT[:5]]))
        with pytest.raises(ProtocolError) as refused:
            rehash(append, claimed, store=store)
        rollback(append)
    assert refused.value.code is ErrorCode.UNAVAILABLE

    # when the storage has them again
    finish_small(b"", claimed, again(upload), at=None, store=store)
    assert content_of(store) == CONTENT


class TakenSlots(asyncio.Semaphore):
    """Slots that are all taken. `requested` is set when a request waits for one."""

    def __init__(self) -> None:
        super().__init__(0)
        self.requested = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.requested.set()
        return await super().acquire()


LIFE = timedelta(seconds=2)
SLOW = [os.urandom(1024 * 1024) for _ in range(7)]  # each is a piece, written by itself


@asynccontextmanager
async def plane(store: BlobStore, owner: TestKey, **parts: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The owner's client of a data plane that is made of `parts`."""
    bridge = WatchedBridge()
    config = Config(public_host="registry.test", service="registry", blob_lease=settings.BLOB_LEASE)
    context = AppContext(
        config,
        bridge,
        store,
        NoFeed(),
        ChangeTracker(),
        new_request=request_context.new,
        use_request=request_context.use,
        **parts,
    )
    transport = httpx.ASGITransport(App(context))
    async with httpx.AsyncClient(
        transport=transport, auth=("key", owner.secret), base_url="http://registry.test"
    ) as client:
        yield client
    bridge.close()


async def slowly(store: BlobStore) -> AsyncIterator[bytes]:
    """A body for which a client takes longer than an idle upload lives, beside a worker."""
    for piece in SLOW:
        await asyncio.sleep(LIFE.total_seconds() / 5)
        await asyncio.to_thread(in_thread, partial(uploads.expire, store=store, limit=10))
        yield piece


def in_thread(call: Callable[[], object]) -> None:
    try:
        call()
    finally:
        connection.close()


def test_an_upload_whose_bytes_arrive_does_not_expire(
    owner: TestKey, namespace: Namespace, start: Callable[[], Upload], store: BlobStore
) -> None:
    # given an upload that was idle for nearly as long as it may
    upload, content = start(), b"".join(SLOW * 2)
    UploadSession.objects.update(expires_at=now() + LIFE / 10)
    url = f"/v2/{namespace.name}/app/blobs/uploads/{upload.session.id}"

    # when it is continued and closed with bodies that arrive for longer than that
    async def scenario() -> list[int]:
        async with plane(store, owner) as client:
            chunk = await client.patch(url, content=slowly(store))
            claimed = {"digest": str(Digest.of(content))}
            return [
                chunk.status_code,
                (await client.put(url, params=claimed, content=slowly(store))).status_code,
            ]

    with override_settings(UPLOAD_LIFE=LIFE):
        statuses = asyncio.run(scenario())

    # then it becomes a blob
    assert statuses == [202, 201]
    assert content_of(store) == content


def test_a_transfer_goes_on_while_the_database_does_not_respond(
    owner: TestKey,
    namespace: Namespace,
    start: Callable[[], Upload],
    store: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload, content = start(), b"".join(SLOW)
    UploadSession.objects.update(expires_at=now() + LIFE)
    url = f"/v2/{namespace.name}/app/blobs/uploads/{upload.session.id}"
    calls: list[object] = []

    def is_away(session: object, **_: object) -> None:
        calls.append(session)
        raise OperationalError("the server closed the connection")

    async def pieces() -> AsyncIterator[bytes]:
        for piece in SLOW:
            yield piece

    async def scenario() -> int:
        async with plane(store, owner) as client:
            claimed = {"digest": str(Digest.of(content))}
            return (await client.put(url, params=claimed, content=pieces())).status_code

    monkeypatch.setattr(uploads, "save_progress", is_away)
    assert asyncio.run(scenario()) == 201
    assert content_of(store) == content
    assert len(calls) == 1  # the next attempt is due later


@pytest.mark.parametrize("rest", [b"", bytes(2 * 1024 * 1024)], ids=["at-once", "transferred"])
def test_invariant_5_a_key_revoked_while_an_upload_is_hashed_again_creates_no_blob(
    owner: TestKey, namespace: Namespace, start: Callable[[], Upload], store: BlobStore, rest: bytes
) -> None:
    # given a large upload that must be hashed again
    upload, content = start(), os.urandom(9 * 1024 * 1024)
    append_small(content, upload, at=0, store=store)
    url = f"/v2/{namespace.name}/app/blobs/uploads/{upload.session.id}"
    claimed = {"digest": str(Digest.of(content + rest, "sha512"))}

    def revoke() -> None:
        identity.delete_api_key(actor=SYSTEM, api_key=ApiKey.objects.get(pk=owner.access_key))

    async def scenario() -> httpx.Response:
        slots = TakenSlots()
        async with plane(store, owner, rehash_slots=slots) as client:
            closing = asyncio.create_task(client.put(url, params=claimed, content=rest))
            # when the key of the closing request is revoked while it waits for its turn
            await asyncio.wait_for(slots.requested.wait(), 30)
            await asyncio.to_thread(in_thread, revoke)
            slots.release()
            return await closing

    # then the request is rejected, and there is no blob
    assert asyncio.run(scenario()).status_code == 401
    assert not Blob.objects.exists()
    # and the upload is as before the request, and need not be hashed a third time
    assert finish_small(b"", Digest.of(content, "sha512"), again(upload), at=None, store=store) is None
    assert content_of(store) == content


@pytest.mark.oci(171)
def test_a_tag_whose_manifest_was_deleted_between_two_queries_raises_a_retryable_error(
    owner: TestKey, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other content than in any other test: payloads are cached by their digest.
    pushed = push_image(owner, namespace, layers=[os.urandom(8)])
    find = partial(
        manifests.get,
        Credentials(secret=owner.secret),
        Repository(namespace.name, pushed.image.name),
        Tag("latest"),
        with_payload=True,
    )
    with monkeypatch.context() as deleted:
        deleted.setattr(f"{manifests.__name__}.content.payload", lambda _: None)
        with pytest.raises(manifests.DeletedMeanwhile):
            find()
    assert find().payload


@pytest.mark.oci(166)
def test_invariant_2_a_repeated_closing_request_renews_the_lease(
    owner: TestKey, namespace: Namespace, upload: Upload, store: BlobStore
) -> None:
    # given a blob whose lease expires soon
    finish_small(b"", DIGEST, upload, at=None, store=store)
    BlobLease.objects.update(expires_at=now() + timedelta(seconds=20))
    credentials, repository = Credentials(secret=owner.secret), Repository(namespace.name, "app")

    # when its upload is confirmed again, then its lease is as long as any other
    assert already_stored(credentials, repository, DIGEST)
    assert BlobLease.objects.get().expires_at > now() + settings.BLOB_LEASE / 2

    # and when that has expired, the blob is unknown
    BlobLease.objects.update(expires_at=now() - timedelta(seconds=1))
    assert not already_stored(credentials, repository, DIGEST)


def test_an_image_locked_during_an_upload_is_refused_like_one_locked_before(
    owner: TestKey, namespace: Namespace, upload: Upload, store: BlobStore
) -> None:
    # given an upload to an image that an administrator has locked since
    Image.objects.update(status=Status.LOCKED)
    repository = Repository(namespace.name, "app")
    with pytest.raises(ProtocolError) as before:
        require_push(Credentials(secret=owner.secret), repository)

    # when it is closed, then the error is the same
    with pytest.raises(ProtocolError) as late:
        finish_small(b"", DIGEST, upload, at=None, store=store)
    assert (late.value.status, late.value.errors) == (before.value.status, before.value.errors)
    assert late.value.errors[0].code is ErrorCode.DENIED
    assert not Blob.objects.exists()


def test_a_head_of_a_locked_image_succeeds(
    owner: TestKey, namespace: Namespace, upload: Upload, store: BlobStore
) -> None:
    finish_small(b"", DIGEST, upload, at=None, store=store)
    Image.objects.update(status=Status.LOCKED)
    renew_lease(Credentials(secret=owner.secret), Repository(namespace.name, "app"), DIGEST)
