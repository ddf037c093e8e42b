"""Blobs and manifests are stored in the catalogue without an HTTP request."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.test import override_settings

from registry_control.catalog import ingest
from registry_control.catalog.errors import DigestMismatch, MissingContent, UploadNotFound
from registry_control.catalog.models import Blob, BlobLease, Manifest, UploadSession
from registry_control.catalog.services import images, uploads
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import ALGORITHMS, Digest
from registry_data.oci.manifest import parse_manifest
from registry_data.storage.base import Key, Unavailable, UploadId
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, make_key, make_namespace, push_image, receive_blob

pytestmark = pytest.mark.django_db(transaction=True)

PIECES = (b"the content ", b"of a layer")
CONTENT = b"".join(PIECES)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    made = FilesystemStore(tmp_path / "blobs")
    made.check()
    return made


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stream_becomes_a_blob_of_the_image(
    algorithm: str, owner: TestKey, image_id: UUID, store: FilesystemStore
) -> None:
    digest = Digest.of(CONTENT, algorithm)

    receive_blob(PIECES, actor=owner.actor, image_id=image_id, claimed=digest, store=store)

    blob = Blob.objects.get(digest=str(digest))
    assert (blob.size, b"".join(store.read(Key(blob.storage_key)))) == (len(CONTENT), CONTENT)
    assert BlobLease.objects.filter(blob=blob, image=image_id).exists()
    assert not UploadSession.objects.filter(is_open=True).exists()


def test_a_stream_with_another_digest_stores_nothing(
    owner: TestKey, image_id: UUID, store: FilesystemStore, tmp_path: Path
) -> None:
    before = files(tmp_path)

    with pytest.raises(DigestMismatch, match=f"digest is {DIGEST}, not {Digest.of(b'')}"):
        receive_blob(PIECES, actor=owner.actor, image_id=image_id, claimed=Digest.of(b""), store=store)

    assert files(tmp_path) == before
    assert not Blob.objects.exists()
    assert not UploadSession.objects.exists()


def test_a_stream_that_fails_is_continued_where_it_ended(
    owner: TestKey, image_id: UUID, store: FilesystemStore
) -> None:
    def broken(_: int) -> Iterator[bytes]:
        yield PIECES[0]
        raise ConnectionResetError

    # given a stream that fails after its first piece
    session_id = ingest.start_blob(actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)
    with pytest.raises(ConnectionResetError):
        ingest.continue_blob(session_id, broken, image_id=image_id, claimed=DIGEST, store=store)
    assert not Blob.objects.exists()

    # when another one continues the session
    offsets = []

    def rest(offset: int) -> Iterator[bytes]:
        offsets.append(offset)
        yield CONTENT[offset:]

    ingest.continue_blob(session_id, rest, image_id=image_id, claimed=DIGEST, store=store)

    # then it begins behind the first piece, and the blob is whole
    assert offsets == [len(PIECES[0])]
    blob = Blob.objects.get(digest=str(DIGEST))
    assert b"".join(store.read(Key(blob.storage_key))) == CONTENT
    assert not UploadSession.objects.filter(is_open=True).exists()


@pytest.mark.parametrize("tenant", ["own", "other"])
def test_identical_content_is_stored_once(
    tenant: str, owner: TestKey, image_id: UUID, store: FilesystemStore, tmp_path: Path
) -> None:
    # given an image of this or another organization with this content
    key = owner if tenant == "own" else make_key()
    push_image(key, make_namespace(key), layers=[CONTENT], store=store)
    before = files(tmp_path)

    # when the content is received for another image
    receive_blob(PIECES, actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)

    # then both images reference the one blob, and the worker deletes the second copy
    blob = Blob.objects.get(digest=str(DIGEST))
    assert BlobLease.objects.filter(blob=blob, image=image_id).exists()
    uploads.expire(store=store, limit=10)
    assert files(tmp_path) == before
    assert b"".join(store.read(Key(blob.storage_key))) == CONTENT


class RecordingStore(FilesystemStore):
    """A store that records the methods that are called after the last byte was written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[str] = []

    def publish(self, upload: UploadId, key: Key) -> None:
        self.calls.append("publish")
        super().publish(upload, key)

    def size(self, key: Key) -> int:
        self.calls.append("size")
        return super().size(key)

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        self.calls.append("discard")
        super().discard(upload, published=published, held=held)

    def delete(self, key: Key) -> None:
        self.calls.append("delete")
        super().delete(key)


def test_invariant_9_content_of_another_tenant_needs_as_many_storage_calls_as_new_content(
    owner: TestKey, image_id: UUID, tmp_path: Path
) -> None:
    # given content that another tenant has, and content that no tenant has
    store = RecordingStore(tmp_path / "blobs")
    store.check()
    stranger = make_key()
    push_image(stranger, make_namespace(stranger), layers=[CONTENT], store=store)

    # when both are received for an image
    calls = []
    for content in (CONTENT, b"new content"):
        store.calls.clear()
        receive_blob([content], actor=owner.actor, image_id=image_id, claimed=Digest.of(content), store=store)
        calls.append(list(store.calls))

    # then both need the same storage calls
    assert calls == [["publish", "discard"]] * 2


def test_invariant_4_a_blob_whose_bytes_are_missing_is_replaced_by_the_stream(
    owner: TestKey, namespace: Namespace, image_id: UUID, store: FilesystemStore
) -> None:
    push_image(owner, namespace, "base", layers=[CONTENT], store=store)
    store.delete(Key(Blob.objects.get(digest=str(DIGEST)).storage_key))

    receive_blob(PIECES, actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)

    blob = Blob.objects.get(digest=str(DIGEST), state=Blob.State.LIVE)
    assert b"".join(store.read(Key(blob.storage_key))) == CONTENT


@pytest.mark.parametrize("state", ["live", "missing"])
def test_a_wrong_storage_gets_no_content_that_replaces_the_right_one(
    owner: TestKey, namespace: Namespace, image_id: UUID, store: FilesystemStore, tmp_path: Path, state: str
) -> None:
    # given a registry with content, and a node with another bucket, or whose disk was not mounted
    layers = [CONTENT, *(b"layer %d" % number for number in range(25))]
    push_image(owner, namespace, "base", layers=layers, store=store)
    before = Blob.objects.get(digest=str(DIGEST))
    wrong = FilesystemStore(tmp_path / "elsewhere")
    wrong.check()

    # when content that the registry has, or has found missing, is pushed to that node
    Blob.objects.filter(pk=before.pk).update(state=state)
    with pytest.raises(Unavailable, match="check that the storage is the right one"):
        receive_blob(PIECES, actor=owner.actor, image_id=image_id, claimed=DIGEST, store=wrong)

    # then its bytes in the right storage stay those of all images
    after = Blob.objects.get(digest=str(DIGEST))
    assert (after.state, after.storage_key) == (state, before.storage_key)
    assert not Blob.objects.filter(state="deleting").exists()

    # and a storage that has lost some content of many is not taken for a wrong one
    for blob in Blob.objects.order_by("pk")[:5]:
        store.delete(Key(blob.storage_key))
    receive_blob(PIECES, actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)
    healed = Blob.objects.get(digest=str(DIGEST), state="live")
    assert b"".join(store.read(Key(healed.storage_key))) == CONTENT
    assert healed.storage_key != before.storage_key


def test_a_manifest_with_another_digest_is_rejected() -> None:
    with pytest.raises(DigestMismatch, match="the manifest's digest is"):
        ingest.verify_payload(b"{}", DIGEST)


def test_invariant_3_a_manifest_with_a_missing_blob_is_not_recorded(
    owner: TestKey, namespace: Namespace, image_id: UUID
) -> None:
    # given the manifest of another image
    pushed = push_image(owner, namespace, "base", layers=[CONTENT])
    payload = bytes(Manifest.objects.get(image=pushed.image_id).payload)
    verified = ingest.verify_payload(payload, Digest.parse(pushed.digest))

    # when it is stored in an image that has none of its blobs
    with pytest.raises(MissingContent) as raised:
        ingest.store_manifest(
            verified,
            parse_manifest(payload, None),
            actor=owner.actor,
            image_id=image_id,
            tag_names=["latest"],
        )

    # then nothing is recorded, and the error names the blobs
    assert set(raised.value.platforms) == set(pushed.blobs)
    assert not Manifest.objects.filter(image=image_id).exists()


def test_a_stream_that_was_interrupted_continues_where_it_ended(
    owner: TestKey, image_id: UUID, store: FilesystemStore
) -> None:
    # given an upload that broke after the first piece
    session = ingest.start_blob(actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)

    def broken(at: int) -> Iterator[bytes]:
        assert at == 0
        yield PIECES[0]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        ingest.continue_blob(session, broken, image_id=image_id, claimed=DIGEST, store=store)

    # when it is continued, then only the rest is read
    ingest.continue_blob(session, lambda at: [CONTENT[at:]], image_id=image_id, claimed=DIGEST, store=store)
    blob = Blob.objects.get(digest=str(DIGEST))
    assert b"".join(store.read(Key(blob.storage_key))) == CONTENT
    assert BlobLease.objects.filter(blob=blob, image=image_id).exists()
    with pytest.raises(UploadNotFound):
        ingest.continue_blob(session, lambda _: [], image_id=image_id, claimed=DIGEST, store=store)


def test_an_upload_does_not_expire_while_its_bytes_arrive(
    owner: TestKey, image_id: UUID, store: FilesystemStore
) -> None:
    # given a transfer that takes longer than an idle upload lives
    def pieces() -> Iterator[bytes]:
        for byte in CONTENT:
            time.sleep(2 / len(CONTENT))
            uploads.expire(store=store, limit=10)
            yield bytes([byte])

    with override_settings(UPLOAD_LIFE=timedelta(seconds=1)):
        receive_blob(pieces(), actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)
    assert Blob.objects.filter(digest=str(DIGEST)).exists()


def test_a_continued_stream_with_another_digest_stores_nothing(
    owner: TestKey, image_id: UUID, store: FilesystemStore, tmp_path: Path
) -> None:
    before = files(tmp_path)
    session = ingest.start_blob(actor=owner.actor, image_id=image_id, claimed=DIGEST, store=store)
    with pytest.raises(DigestMismatch):
        ingest.continue_blob(session, lambda _: [b"other"], image_id=image_id, claimed=DIGEST, store=store)
    assert files(tmp_path) == before
    assert not Blob.objects.exists()
    assert not UploadSession.objects.exists()
