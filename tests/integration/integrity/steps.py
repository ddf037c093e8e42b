"""Short names for what the tests of scrubbing and reconciling do."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

from registry_control.catalog.models import Blob
from registry_control.common.clock import now
from registry_control.integrity.models import BlobCheck, BlobFault
from registry_control.integrity.services import checks, scrub
from registry_data.storage.base import BlobStore, Key, UploadId
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from tests.factories import digest_of

PERIOD = timedelta(days=30)


def orphan(store: BlobStore, content: bytes) -> Key:
    """Content whose blob and session no row knows any more."""
    upload = UploadId(uuid4().hex)
    store.create_upload(upload)
    writer = store.open_upload(upload, at=0)
    writer.write(content)
    writer.close()
    key = blob_key("sha256", digest_of(content).removeprefix("sha256:"), upload)
    store.publish(upload, key)
    store.discard(upload, published=key)
    return key


def current(digest: str) -> Blob:
    """The row of a digest that its links belong to."""
    return Blob.objects.exclude(state=Blob.State.DELETING).get(digest=digest)


def change(store: FilesystemStore, digest: str) -> None:
    """Flip a bit of the stored content."""
    path = store.path_of(Key(current(digest).storage_key))
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def truncate(store: FilesystemStore, digest: str) -> None:
    """Cut the last byte off the stored content."""
    path = store.path_of(Key(current(digest).storage_key))
    path.write_bytes(path.read_bytes()[:-1])


def remove(store: FilesystemStore, digest: str) -> None:
    """Delete the stored content."""
    store.path_of(Key(current(digest).storage_key)).unlink()


DAMAGES: dict[str, Callable[[FilesystemStore, str], None]] = {
    "changed": change,
    "truncated": truncate,
    "removed": remove,
}


def age(**gap: float) -> None:
    """Let the content of all blobs be verified last before so long."""
    Blob.objects.update(verified_at=now() - timedelta(**gap))


def scrub_all(store: BlobStore) -> None:
    """Read everything once, and take the second looks."""
    age(days=29)
    scrub.work(store, period=PERIOD)
    second_looks(store)


def report_lost(number: int, *, kind: str = "damaged", healed_at: datetime | None = None) -> list[BlobFault]:
    """Findings for blobs that have no rows; the newest is the last."""
    moment, first = now(), BlobFault.objects.count() + 1_000_000
    return BlobFault.objects.bulk_create(
        BlobFault(
            blob_id=first + each,
            digest=digest_of(b"%d" % (first + each)),
            kind=kind,
            size=1,
            storage_key="key",
            detail="other bytes",
            found_at=moment + timedelta(seconds=each),
            healed_at=healed_at,
        )
        for each in range(number)
    )


def second_looks(store: BlobStore) -> None:
    """Take all second looks now."""
    BlobCheck.objects.update(due_at=now())
    checks.work(store)
