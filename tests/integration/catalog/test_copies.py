"""Uploads of content that only another tenant has: they do not reveal it, and none of it is lost."""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from registry_control.catalog.models import Blob, BlobLease, UploadSession
from registry_control.catalog.services import copies, images, uploads
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.registry.upload_sessions import Upload
from registry_data.registry.uploads import append_small, finish, finish_small, open_upload
from registry_data.storage.base import BlobStore, Key, NotStored, StorageError, Unavailable, UploadId
from registry_data.storage.factory import open_store
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, make_key, make_namespace, push_image
from tests.integration.catalog.races import Other, needs_postgresql, open_transaction
from tests.services.hanging import Proxy
from tests.services.minio import S3Server
from tests.services.scripted import running_script

pytestmark = pytest.mark.django_db(transaction=True)

CONTENT = b"a layer of two tenants"
DIGEST = Digest.of(CONTENT)
_ID = re.compile(r"([0-9a-f]{2}(/|%2F))?[0-9a-f]{32}|(?<=uploadId=)[^&]+")


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.clients)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "disk":
        made: BlobStore = FilesystemStore(tmp_path / "blobs")
    else:
        made = open_store(request.getfixturevalue("minio").url())
    made.check()
    return made


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


def push_of_another_tenant(*contents: bytes, store: BlobStore) -> None:
    stranger = make_key()
    push_image(stranger, make_namespace(stranger), layers=contents, store=store)


def start(owner: TestKey, image_id: UUID, store: BlobStore) -> Upload:
    session_id = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    store.create_upload(UploadId(session_id.hex))
    return Upload(image_id, uploads.get(session_id=session_id, image_id=image_id))


def at_once(content: bytes, upload: Upload, store: BlobStore) -> None:
    finish_small(content, Digest.of(content), upload, at=0, store=store)


def after_a_chunk(content: bytes, upload: Upload, store: BlobStore) -> None:
    append_small(content, upload, at=0, store=store)
    again = Upload(upload.image_id, uploads.get(session_id=upload.session.id, image_id=upload.image_id))
    assert finish_small(b"", Digest.of(content), again, at=None, store=store) is None


def as_a_stream(content: bytes, upload: Upload, store: BlobStore) -> None:
    append = open_upload(upload, at=0, store=store)
    for start_of_piece in range(0, len(content), 1024 * 1024):
        piece = content[start_of_piece : start_of_piece + 1024 * 1024]
        append.hash(piece)
        append.store(piece)
    finish(append, Digest.of(content), store=store)


@pytest.fixture
def proxy(minio: S3Server) -> Iterator[Proxy]:
    with running_script() as script:
        yield Proxy(script, minio.endpoint)


def requests_of(call: Callable[[], None], proxy: Proxy) -> list[str]:
    """The requests to S3, without the ids in them."""
    proxy.requests.clear()
    call()
    return [_ID.sub("<id>", each) for each in proxy.requests]


def statements_of(call: Callable[[], None]) -> list[str]:
    """The SQL statements."""
    found: list[str] = []

    def note(execute: Any, sql: str, *others: Any) -> Any:
        found.append(sql)
        return execute(sql, *others)

    with connection.execute_wrapper(note):
        call()
    return found


@pytest.mark.clients
@pytest.mark.parametrize(
    ("send", "size"),
    [(at_once, 20), (after_a_chunk, 20), (as_a_stream, 20_000_000), (after_a_chunk, 20_000_000)],
)
def test_invariant_9_content_of_another_tenant_takes_the_requests_and_statements_of_new_content(
    owner: TestKey,
    image_id: UUID,
    minio: S3Server,
    proxy: Proxy,
    send: Callable[[bytes, Upload, BlobStore], None],
    size: int,
) -> None:
    # given content that only another tenant has, and content that is new
    store = proxy.store(minio.url())
    store.check()
    known, new = os.urandom(size), os.urandom(size)
    push_of_another_tenant(known, store=store)

    # when both are uploaded
    stated: list[list[str]] = []

    def push(content: bytes) -> None:
        stated.append(statements_of(lambda: send(content, start(owner, image_id, store), store)))

    sent = [requests_of(partial(push, content), proxy) for content in (known, new)]

    # then each takes the same requests to S3, and the same statements in the database
    assert sent[0] == sent[1]
    assert stated[0] == stated[1]

    # and the worker deletes the copy only
    uploads.expire(store=store, limit=10)
    assert not UploadSession.objects.exists()
    for content in (known, new):
        blob = Blob.objects.get(digest=str(Digest.of(content)))
        assert b"".join(store.read(Key(blob.storage_key))) == content
        assert BlobLease.objects.filter(blob=blob, image=image_id).exists()
    found = store.list_objects("", limit=1000)
    assert len(found.objects) == Blob.objects.count()


@pytest.mark.parametrize("found_as", ["live", "missing"])
def test_invariant_4_a_copy_heals_a_blob_whose_bytes_are_lost(
    owner: TestKey, image_id: UUID, store: BlobStore, found_as: str
) -> None:
    # given a blob of another tenant, whose bytes are lost
    push_of_another_tenant(CONTENT, store=store)
    lost = Blob.objects.get(digest=str(DIGEST))
    store.delete(Key(lost.storage_key))

    # when the content is uploaded, before or after that was noticed, and the worker has run, twice
    upload = start(owner, image_id, store)
    at_once(CONTENT, upload, store)
    Blob.objects.filter(pk=lost.pk).update(state=found_as)
    for _ in range(2):
        uploads.expire(store=store, limit=10)

    # then the blob, with all its links, has the uploaded bytes
    healed = Blob.objects.get(digest=str(DIGEST), state=Blob.State.LIVE)
    assert healed.pk == lost.pk
    assert healed.storage_key.endswith(upload.id)
    assert b"".join(store.read(Key(healed.storage_key))) == CONTENT
    assert not UploadSession.objects.exists()


def test_invariant_7_a_copy_stays_while_the_storage_does_not_tell_whether_the_blob_has_its_bytes(
    owner: TestKey, image_id: UUID, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_of_another_tenant(CONTENT, store=store)
    upload = start(owner, image_id, store)
    at_once(CONTENT, upload, store)
    copy = Key(UploadSession.objects.get(pk=upload.session.id).stored_as)

    def is_away(key: Key) -> int:
        raise Unavailable(f"{key} cannot be looked at")

    with monkeypatch.context() as patched:
        patched.setattr(store, "size", is_away)
        patched.setattr(uploads, "MAX_STORAGE_ERRORS", 100)
        uploads.expire(store=store, limit=10)
    assert store.size(copy) == len(CONTENT)
    uploads.expire(store=store, limit=10)
    with pytest.raises(NotStored):
        store.size(copy)


def test_invariant_4_a_worker_with_a_wrong_storage_heals_nothing(
    owner: TestKey, image_id: UUID, tmp_path: Path
) -> None:
    # given copies of content of another tenant, in a storage that lacks most other content
    right, wrong = FilesystemStore(tmp_path / "right"), FilesystemStore(tmp_path / "wrong")
    right.check()
    wrong.check()
    push_of_another_tenant(CONTENT, *(b"layer %d" % number for number in range(25)), store=right)
    before = Blob.objects.get(digest=str(DIGEST))
    upload = start(owner, image_id, wrong)
    at_once(CONTENT, upload, wrong)

    # when a worker with that storage runs
    with pytest.raises(StorageError, match="check that the storage is the right one"):
        copies.resolve(upload.session.id, store=wrong)

    # then the blob keeps its bytes
    assert Blob.objects.get(digest=str(DIGEST)).storage_key == before.storage_key
    assert b"".join(right.read(Key(before.storage_key))) == CONTENT


class _Between(FilesystemStore):
    """Calls a function when the size of a key was found out, which precedes the decision about a copy."""

    def __init__(self, root: Path, key: Key, then: Callable[[], object]) -> None:
        super().__init__(root)
        self._key, self._then = key, then

    def size(self, key: Key) -> int:
        found = super().size(key)
        if key == self._key:
            self._then()
        return found


@pytest.fixture
def lost_with_copy(owner: TestKey, image_id: UUID, tmp_path: Path) -> tuple[FilesystemStore, UUID, Key]:
    """A storage that has lost a blob, and the session and the key of a copy of it."""
    store = FilesystemStore(tmp_path / "blobs")
    store.check()
    push_of_another_tenant(CONTENT, store=store)
    upload = start(owner, image_id, store)
    at_once(CONTENT, upload, store)
    store.delete(Key(Blob.objects.get(digest=str(DIGEST)).storage_key))
    session = UploadSession.objects.get(pk=upload.session.id)
    return store, session.pk, Key(session.stored_as)


def test_invariant_1_a_copy_that_another_worker_gave_up_heals_nothing(
    lost_with_copy: tuple[FilesystemStore, UUID, Key], tmp_path: Path
) -> None:
    # given a worker that gives a copy up while another one is about to heal a blob with it
    _, session_id, copy = lost_with_copy
    before = Blob.objects.get(digest=str(DIGEST)).storage_key
    between = _Between(tmp_path / "blobs", copy, lambda: copies.give_up(session_id))

    # then the blob does not get bytes that are being deleted
    assert copies.resolve(session_id, store=between) == copies.Outcome(copy, is_used=False)
    assert Blob.objects.get(digest=str(DIGEST)).storage_key == before


def test_invariant_1_a_copy_that_has_healed_a_blob_is_not_given_up(
    lost_with_copy: tuple[FilesystemStore, UUID, Key], tmp_path: Path
) -> None:
    store, session_id, copy = lost_with_copy
    between = _Between(tmp_path / "blobs", copy, lambda: copies.resolve(session_id, store=store))
    assert copies.resolve(session_id, store=between) == copies.Outcome(copy, is_used=True)
    assert copies.give_up(session_id) == copy
    uploads.expire(store=store, limit=10)
    assert (
        b"".join(store.read(Key(Blob.objects.get(digest=str(DIGEST), state="live").storage_key))) == CONTENT
    )


@needs_postgresql
def test_invariant_1_a_worker_that_heals_waits_for_one_that_gives_the_copy_up(
    lost_with_copy: tuple[FilesystemStore, UUID, Key],
) -> None:
    store, session_id, copy = lost_with_copy
    with open_transaction():
        assert copies.give_up(session_id) is None
        other = Other(lambda: copies.resolve(session_id, store=store))
        assert other.waits
    assert other.end() == copies.Outcome(copy, is_used=False)
    assert Blob.objects.get(digest=str(DIGEST)).storage_key != copy


@needs_postgresql
def test_invariant_1_a_worker_that_gives_a_copy_up_waits_for_one_that_heals(
    lost_with_copy: tuple[FilesystemStore, UUID, Key],
) -> None:
    store, session_id, copy = lost_with_copy
    with transaction.atomic():
        assert copies.resolve(session_id, store=store).is_used
        other = Other(lambda: copies.give_up(session_id))
        assert other.waits
    assert other.end() == copy
