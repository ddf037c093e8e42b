"""Requests that come to an upload after it has ended elsewhere, or after another try has half ended it."""

from collections.abc import Callable
from hashlib import sha256, sha512
from pathlib import Path
from uuid import UUID

import pytest

from registry_control.catalog.models import Blob, UploadSession
from registry_control.catalog.services import blobs, images, uploads
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.registry.uploads import Upload, append_small, finish_small
from registry_data.storage.base import BlobStore, Key, NotStored, UploadId
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from registry_data.storage.s3.address import Address
from registry_data.storage.s3.store import S3Store
from tests.factories import TestKey

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
    return images.ensure(principal=owner.principal, namespace_id=namespace.pk, name="app")


@pytest.fixture
def upload(owner: TestKey, image_id: UUID, store: BlobStore) -> Upload:
    """An upload that has the content, as a request finds it."""
    session_id = uploads.start(principal=owner.principal, image_id=image_id, algorithm="sha256")
    store.create_upload(UploadId(session_id.hex))
    found = Upload(image_id, uploads.get(session_id=session_id, image_id=image_id))
    append_small([CONTENT], found, at=0, store=store)
    return found


def key_of(upload: Upload) -> Key:
    return blob_key(DIGEST.algorithm, DIGEST.encoded, upload.id)


def content_of(store: BlobStore) -> bytes:
    """What the one blob's row leads to."""
    return b"".join(store.read(Key(Blob.objects.get().storage_key)))


def append_more(upload: Upload, store: BlobStore) -> None:
    append_small([b"more"], upload, at=None, store=store)


def finish_with_more(upload: Upload, store: BlobStore) -> None:
    claimed = Digest("sha256", sha256(CONTENT + b"more").hexdigest())
    finish_small([b"more"], claimed, upload, at=None, store=store)


def finish_with_less_than_claimed(upload: Upload, store: BlobStore) -> None:
    finish_small([b"more"], Digest("sha256", sha256(b"other").hexdigest()), upload, at=None, store=store)


def finish_under_another_algorithm(upload: Upload, store: BlobStore) -> None:
    finish_small([], Digest("sha512", sha512(CONTENT).hexdigest()), upload, at=None, store=store)


@pytest.mark.oci(166, 167)
@pytest.mark.parametrize(
    "late", [append_more, finish_with_more, finish_with_less_than_claimed, finish_under_another_algorithm]
)
def test_invariant_4_a_blob_stays_what_it_is_whoever_found_its_upload_before(
    upload: Upload, store: BlobStore, late: Callable[[Upload, BlobStore], None]
) -> None:
    # given an upload that was recorded by a process that died before it could discard it
    key = key_of(upload)
    store.publish(upload.id, key)
    new = blobs.NewBlob(str(DIGEST), len(CONTENT), key)
    assert blobs.record_upload(session_id=upload.session.id, image_id=upload.image_id, new=new)

    # when a request that found it open goes on with it, then it is told that there is none
    with pytest.raises(ProtocolError) as refused:
        late(upload, store)
    assert refused.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN

    # and the blob is what it was, also once the worker has tidied up
    assert content_of(store) == CONTENT
    uploads.expire(store=store, limit=10)
    assert content_of(store) == CONTENT
    assert not UploadSession.objects.exists()
    with pytest.raises(NotStored):
        store.upload_size(upload.id)


@pytest.mark.oci(72)
@pytest.mark.parametrize("published", [True, False])
def test_a_closing_request_whose_body_was_taken_before_it_failed_may_be_repeated_with_it(
    upload: Upload, store: BlobStore, *, published: bool
) -> None:
    if published:
        store.publish(upload.id, key_of(upload))
    finish_small([CONTENT], DIGEST, upload, at=None, store=store)
    assert Blob.objects.get().digest == str(DIGEST)
    assert content_of(store) == CONTENT


@pytest.mark.oci(57)
def test_a_wrong_digest_after_a_chunk_changes_nothing(upload: Upload, store: BlobStore) -> None:
    with pytest.raises(ProtocolError) as refused:
        finish_with_less_than_claimed(upload, store)
    assert refused.value.code is ErrorCode.DIGEST_INVALID
    finish_with_more(upload, store)
    assert content_of(store) == CONTENT + b"more"


def test_an_upload_that_ends_while_somebody_writes_leaves_nothing_in_the_end(
    upload: Upload, store: BlobStore
) -> None:
    # given a request that writes to an upload, which is cancelled
    writer = store.open_upload(upload.id, at=None)
    writer.write(b"more")
    uploads.cancel(session_id=upload.session.id, image_id=upload.image_id, store=store)

    # when it has ended, and the worker has come by
    writer.close()
    uploads.expire(store=store, limit=10)

    # then nothing is left of it
    assert not UploadSession.objects.exists()
    with pytest.raises(NotStored):
        store.upload_size(upload.id)
    if isinstance(store, S3Store):
        left = store._bucket.client.list_objects(store._bucket.name, recursive=True)  # noqa: SLF001
        assert [found.object_name for found in left if upload.id in (found.object_name or "")] == []
