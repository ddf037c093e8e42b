"""The S3 driver on several nodes, and its failures. The servers are real: MinIO and Versity Gateway."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.datatypes import Part
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.versioningconfig import VersioningConfig

from registry_data.storage.base import (
    BlobStore,
    Busy,
    DeletesMany,
    Key,
    NotStored,
    SignsUrls,
    StorageError,
    Unavailable,
    UploadId,
    UploadWriter,
)
from registry_data.storage.factory import open_store
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import blob_key
from registry_data.storage.s3.address import Address
from registry_data.storage.s3.bucket import Bucket
from registry_data.storage.s3.check import prepare
from registry_data.storage.s3.lease import LEASE, Lease, Snapshot
from registry_data.storage.s3.process_identity import this_process
from registry_data.storage.s3.reading import MAX_OPEN, ResumableReader
from registry_data.storage.s3.state import PART, ObjectNames
from registry_data.storage.s3.upload import S3Writer
from tests.services.minio import S3Server, running_minio
from tests.services.processes import freeze
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.clients, pytest.mark.slow]

KILLED = -signal.SIGKILL
FEW = 10
FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["minio", "versitygw"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def url(server: S3Server) -> str:
    """URL of a new bucket."""
    made = server.url()
    open_store(made).check()
    return made


@pytest.fixture
def node(url: str) -> Callable[[], BlobStore]:
    """Creates another node: nodes share the bucket and nothing else."""
    return lambda: open_store(url)


def sdk(url: str) -> tuple[Minio, str]:
    address = Address.parse(url)
    return Bucket(address).client, address.bucket


def new_upload(store: BlobStore) -> UploadId:
    upload = UploadId(uuid4().hex)
    store.create_upload(upload)
    return upload


def append(store: BlobStore, upload: UploadId, content: bytes, *, at: int) -> None:
    writer = store.open_upload(upload, at=at)
    for start in range(0, len(content), 1_000_000):
        writer.write(content[start : start + 1_000_000])
    writer.close()


def publish(store: BlobStore, upload: UploadId, content: bytes) -> Key:
    key = blob_key("sha256", sha256(content).hexdigest(), upload)
    store.publish(upload, key)
    return key


@pytest.mark.parametrize("sizes", [(1, 2, 3), (PART, PART), (PART - 1, 1), (5, 3 * PART + 1, 0, 12_000_000)])
def test_requests_of_an_upload_may_reach_different_nodes(
    node: Callable[[], BlobStore], url: str, sizes: tuple[int, ...]
) -> None:
    upload, content = new_upload(node()), b""
    for size in sizes:
        chunk = os.urandom(size)
        append(node(), upload, chunk, at=len(content))
        content += chunk
        assert node().upload_size(upload) == len(content)
    key = publish(node(), upload, content)
    assert node().published_as(upload) == key
    node().discard(upload)
    assert b"".join(node().read(key)) == content
    assert b"".join(node().read(key, start=5, stop=PART + 5)) == content[5 : PART + 5]
    # and the bucket contains only the blob
    client, bucket = sdk(url)
    [left] = list(client.list_objects(bucket, recursive=True))
    assert left.object_name is not None
    tags = client.get_object_tags(bucket, left.object_name)
    assert tags == {"digest": f"sha256:{sha256(content).hexdigest()}"}


@pytest.mark.parametrize("saved", [0, 3, PART, 2 * PART + 7])
def test_an_upload_that_was_read_can_be_abandoned_and_continued(
    node: Callable[[], BlobStore], saved: int
) -> None:
    # given an upload whose second request reads it completely and abandons it, as after a wrong digest
    store, content = node(), os.urandom(4 * PART)
    upload = new_upload(store)
    append(store, upload, content[:saved], at=0)
    writer = store.open_upload(upload, at=saved)
    writer.write(os.urandom(PART + 9))
    assert len(b"".join(store.read_upload(upload))) == saved + PART + 9
    writer.abandon()

    # then it is as before that request, on every node and repeatedly
    other = node()
    for _ in range(2):
        assert other.upload_size(upload) == saved
        assert b"".join(other.read_upload(upload)) == content[:saved]

    # and can be continued and published
    append(other, upload, content[saved:], at=saved)
    key = publish(store, upload, content)
    assert b"".join(store.read(key)) == content


@pytest.mark.parametrize("saved", [0, 3, PART, 2 * PART + 7])
def test_an_upload_can_be_published_after_a_writer_was_abandoned(
    node: Callable[[], BlobStore], saved: int
) -> None:
    store, content = node(), os.urandom(saved)
    upload = new_upload(store)
    append(store, upload, content, at=0)
    writer = store.open_upload(upload, at=saved)
    writer.write(os.urandom(PART))
    assert len(b"".join(store.read_upload(upload))) == saved + PART
    writer.abandon()
    key = publish(store, upload, content)
    assert b"".join(node().read(key)) == content


def test_abandoned_parts_are_not_in_the_blob(node: Callable[[], BlobStore]) -> None:
    store, content = node(), os.urandom(PART + 100)
    upload = new_upload(store)
    append(store, upload, content[:50], at=0)
    writer = store.open_upload(upload, at=50)
    writer.write(os.urandom(3 * PART))
    writer.abandon()
    append(node(), upload, content[50:], at=50)
    assert b"".join(store.read(publish(store, upload, content))) == content


def _write_and_wait(
    url: str, upload: UploadId, content: bytes, ready: Event, go_on: Event, lost: Event
) -> None:
    writer = open_store(url).open_upload(upload, at=0)
    writer.write(content)
    ready.set()
    go_on.wait()
    with suppress(StorageError):
        writer.close()
        return
    lost.set()


def test_parts_sent_by_a_killed_process_are_durable(url: str) -> None:
    # given a process that has sent two parts, and written some bytes more
    store, content = open_store(url), os.urandom(3 * PART)
    upload, ready, never = new_upload(store), FORK.Event(), FORK.Event()
    process = FORK.Process(
        target=_write_and_wait, args=(url, upload, content[: 2 * PART + 5], ready, never, never)
    )
    process.start()
    assert ready.wait(30)
    wait_until(lambda: store.upload_size(upload) > 0)

    # when it is killed
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()

    # then another process continues at once after the last whole part
    size = store.upload_size(upload)
    assert size == 2 * PART
    append(store, upload, content[size:], at=size)
    assert b"".join(store.read(publish(store, upload, content))) == content


def test_a_stalled_writer_loses_its_lease_and_cannot_change_the_upload(url: str) -> None:
    # given a process that has an upload open and is stopped, as on a machine that hangs
    store, content = open_store(url), os.urandom(2 * PART)
    upload, ready, go_on, lost = new_upload(store), FORK.Event(), FORK.Event(), FORK.Event()
    process = FORK.Process(
        target=_write_and_wait, args=(url, upload, os.urandom(PART + 1), ready, go_on, lost)
    )
    process.start()
    assert ready.wait(30)
    freeze(process.pid or 0)
    with pytest.raises(Busy):
        store.open_upload(upload, at=None)

    # when its lease has expired
    writer = _open_when_free(store, upload)

    # then another process opens the upload, and the first gets an error when it continues
    at = writer.offset
    writer.write(content)
    os.kill(process.pid or 0, signal.SIGCONT)
    go_on.set()
    process.join(60)
    assert lost.is_set()
    writer.close()
    assert store.upload_size(upload) == at + len(content)
    assert b"".join(store.read_upload(upload))[at:] == content


def test_a_writer_that_waits_for_its_client_renews_its_lease(url: str) -> None:
    store = open_store(url)
    upload = new_upload(store)
    writer = store.open_upload(upload, at=0)
    time.sleep(LEASE.total_seconds() + 2)
    with pytest.raises(Busy):
        open_store(url).open_upload(upload, at=None)
    writer.write(b"x")
    writer.close()
    assert store.upload_size(upload) == 1


def _open_each(url: str, uploads: list[UploadId], together: Barrier, number: int, folder: Path) -> None:
    store, got = open_store(url), []
    for upload in uploads:
        together.wait(60)
        try:
            writer: UploadWriter | None = store.open_upload(upload, at=0)
        except Busy:
            writer = None
        together.wait(60)  # every process tries before one closes its upload
        if writer:
            writer.write(b"%d" % number)
            writer.close()
            got.append(upload)
    (folder / str(number)).write_text("\n".join(got))


def test_exactly_one_of_many_processes_opens_an_upload(url: str, tmp_path: Path) -> None:
    store = open_store(url)
    uploads = [new_upload(store) for _ in range(20)]
    together = FORK.Barrier(4)
    processes = [
        FORK.Process(target=_open_each, args=(url, uploads, together, n, tmp_path)) for n in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    winners = [upload for number in range(4) for upload in (tmp_path / str(number)).read_text().split()]
    assert sorted(winners) == sorted(uploads)
    assert all(store.upload_size(upload) == 1 for upload in uploads)


class PowerCut(BaseException):
    """Not an Exception, so that no handler catches it."""


class DiesBeforeCompletion(Bucket):
    def complete_multipart(self, *arguments: object, **options: object) -> None:
        raise PowerCut


class DiesAfterCompletion(Bucket):
    def tag(self, *arguments: object) -> None:
        raise PowerCut


@pytest.mark.parametrize("dying", [DiesBeforeCompletion, DiesAfterCompletion])
def test_an_interrupted_publication_is_recorded_and_can_be_repeated(
    url: str, dying: type[Bucket], tmp_path: Path
) -> None:
    # given an upload whose publication is interrupted
    store, content = open_store(url), os.urandom(PART + 77)
    upload = new_upload(store)
    append(store, upload, content[:70], at=0)
    bucket, names = dying(Address.parse(url)), ObjectNames(upload)
    lease = Lease(bucket, names.state, Snapshot.read(bucket, names.state))
    writer = S3Writer(bucket, names, lease, FreeSpace(tmp_path, 0), lambda: None, is_new=False)
    writer.write(content[70:])
    key = blob_key("sha256", sha256(content).hexdigest(), upload)
    with pytest.raises(PowerCut):
        writer.publish(key)
    writer.close()

    # then the key, which is recorded, may exist, and no byte was lost
    assert store.published_as(upload) == key
    assert store.upload_size(upload) == len(content)
    store.publish(upload, key)
    assert b"".join(store.read(key)) == content


def test_an_upload_whose_completion_failed_can_be_continued(url: str, tmp_path: Path) -> None:
    # given an upload that is read, whose multipart upload could not be completed
    store, content = open_store(url), os.urandom(2 * PART + 5)
    upload = new_upload(store)
    append(store, upload, content[: PART + 2], at=0)
    bucket, names = DiesBeforeCompletion(Address.parse(url)), ObjectNames(upload)
    lease = Lease(bucket, names.state, Snapshot.read(bucket, names.state))
    writer = S3Writer(bucket, names, lease, FreeSpace(tmp_path, 0), lambda: None, is_new=False)
    with pytest.raises(PowerCut):
        writer.contents()
    writer.close()

    # when more bytes are appended
    append(store, upload, content[PART + 2 :], at=PART + 2)

    # then no byte is lost
    assert b"".join(store.read(publish(store, upload, content))) == content


class LosesTheResponse(Bucket):
    def complete_multipart(self, name: str, multipart: str, parts: list[Part], **options: Any) -> None:
        super().complete_multipart(name, multipart, parts, **options)
        super().complete_multipart(name, multipart, parts, **options)

    def put(self, name: str, *arguments: Any, **options: Any) -> str:
        if name.startswith("blobs/"):
            super().put(name, *arguments, **options)
        return super().put(name, *arguments, **options)


@pytest.mark.parametrize("size", [5, PART + 5])
def test_a_publication_whose_responses_were_lost_succeeds(url: str, tmp_path: Path, size: int) -> None:
    store, content = open_store(url), os.urandom(size)
    upload = new_upload(store)
    bucket, names = LosesTheResponse(Address.parse(url)), ObjectNames(upload)
    lease = Lease(bucket, names.state, Snapshot.read(bucket, names.state))
    writer = S3Writer(bucket, names, lease, FreeSpace(tmp_path, 0), lambda: None, is_new=True)
    writer.write(content)
    key = blob_key("sha256", sha256(content).hexdigest(), upload)
    writer.publish(key)
    writer.close()
    assert b"".join(store.read(key)) == content


def test_a_stalled_writer_cannot_overwrite_a_published_blob(url: str, tmp_path: Path) -> None:
    # given a writer that stalls before it writes the blob, for longer than its lease
    store = open_store(url)
    upload = new_upload(store)
    key, names = blob_key("sha256", sha256(b"second").hexdigest(), upload), ObjectNames(upload)

    class Stalls(Bucket):
        def put(self, name: str, *arguments: Any, **options: Any) -> str:
            if name == names.blob and not store.published_as(upload):
                other = _open_when_free(store, upload)
                other.write(b"second")
                store.publish(upload, key)
                other.close()
            return super().put(name, *arguments, **options)

    bucket = Stalls(Address.parse(url))
    lease = Lease(bucket, names.state, Snapshot.read(bucket, names.state))
    writer = S3Writer(bucket, names, lease, FreeSpace(tmp_path, 0), lambda: None, is_new=True)
    writer.write(b"first")

    # when it continues
    with pytest.raises(Unavailable):
        writer.publish(blob_key("sha256", sha256(b"first").hexdigest(), upload))
    with suppress(StorageError):
        writer.close()

    # then it has changed nothing
    assert b"".join(store.read(key)) == b"second"


@pytest.mark.parametrize("size", [5, PART + 5])
@pytest.mark.parametrize("late_size", [5, PART + 5])
@pytest.mark.parametrize("first", ["published", "read"])
def test_invariant_4_a_late_writer_of_an_upload_that_was_created_again_does_not_change_the_blob(
    url: str, size: int, late_size: int, first: str
) -> None:
    # given a blob, and a delayed request that creates its upload again
    store, content, late = open_store(url), os.urandom(size), os.urandom(late_size)
    upload = new_upload(store)
    append(store, upload, content, at=0)
    key = publish(store, upload, content)
    store.discard(upload, published=key)
    store.create_upload(upload)

    # when a request that found the upload before it was a blob writes other content to it
    writer = store.open_upload(upload, at=0)
    writer.write(late)
    assert late_size < PART or first == "published" or _cannot_read(store, upload)
    with pytest.raises(NotStored):
        publish(store, upload, late)
    with suppress(StorageError):
        writer.close()

    # then the blob and its tag are unchanged, and discarding that upload leaves nothing else
    assert b"".join(store.read(key)) == content
    store.discard(upload, published=key)
    client, bucket = sdk(url)
    [left] = client.list_objects(bucket, recursive=True)
    assert client.get_object_tags(bucket, left.object_name or "") == {"digest": ":".join(_digest(content))}
    assert client._list_multipart_uploads(bucket).uploads == []  # noqa: SLF001


def _cannot_read(store: BlobStore, upload: UploadId) -> bool:
    with pytest.raises(NotStored):
        list(store.read_upload(upload))
    return True


def _digest(content: bytes) -> tuple[str, str]:
    return "sha256", sha256(content).hexdigest()


def test_the_same_content_may_be_published_again_after_an_attempt_that_was_not_recorded(
    url: str, tmp_path: Path
) -> None:
    # given an attempt to publish that wrote the object, and then lost the connection to S3
    store, content = open_store(url), b"a small layer"
    upload = new_upload(store)
    names = ObjectNames(upload)

    class LosesTheConnection(Bucket):
        has_written = False

        def put(self, name: str, *arguments: Any, **options: Any) -> str:
            if self.has_written:
                raise Unavailable("no connection")
            self.has_written = name == names.blob
            return super().put(name, *arguments, **options)

    bucket = LosesTheConnection(Address.parse(url))
    lease = Lease(bucket, names.state, Snapshot.read(bucket, names.state))
    writer = S3Writer(bucket, names, lease, FreeSpace(tmp_path, 0), lambda: None, is_new=True)
    writer.write(content)
    with pytest.raises(Unavailable):
        writer.publish(blob_key(*_digest(content), upload))
    with suppress(StorageError):
        writer.close()

    # when the client sends the content again, then it is published
    again = _open_when_free(store, upload)
    again.write(content)
    key = publish(store, upload, content)
    again.close()
    assert b"".join(store.read(key)) == content


def test_an_upload_cannot_be_opened_while_it_is_discarded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # given another node that opens an upload in the middle of its removal
    store, other, remove = open_store(url), open_store(url), Bucket.abort_multiparts
    upload = new_upload(store)
    append(store, upload, b"content", at=0)
    errors: list[Busy] = []

    def interrupted(bucket: Bucket, name: str) -> None:
        with pytest.raises(Busy) as caught:
            other.open_upload(upload, at=None)
        errors.append(caught.value)
        remove(bucket, name)

    # when it is discarded
    monkeypatch.setattr(Bucket, "abort_multiparts", interrupted)
    store.discard(upload)

    # then the other node gets Busy, and nothing is left
    assert errors
    client, name = sdk(url)
    assert list(client.list_objects(name, recursive=True)) == []


def test_a_failed_discard_can_be_repeated_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(url)
    upload = new_upload(store)
    append(store, upload, b"content", at=0)

    def fails(bucket: Bucket, name: str) -> None:
        raise Unavailable(f"no response about {name} in {bucket.name}")

    with monkeypatch.context() as failing:
        failing.setattr(Bucket, "abort_multiparts", fails)
        with pytest.raises(Unavailable):
            store.discard(upload)
    store.discard(upload)
    with pytest.raises(NotStored):
        store.upload_size(upload)


def test_an_upload_that_could_not_start_its_renewal_is_released(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a process that cannot start more threads
    store = open_store(url)
    upload = new_upload(store)

    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", fails)
        with pytest.raises(Unavailable):
            store.open_upload(upload, at=0)

    # when it can again, then the upload is opened and its lease renewed
    writer = store.open_upload(upload, at=0)
    time.sleep(LEASE.total_seconds() + 2)
    with pytest.raises(Busy):
        open_store(url).open_upload(upload, at=None)
    writer.close()


def test_an_empty_range_sends_no_request(url: str) -> None:
    bucket = Bucket(Address.parse(url))
    bucket.put("object", b"content")
    with pytest.raises(ValueError, match="empty range"):
        bucket.read("object", 3, 3)


def _connections(server: S3Server) -> int:
    """Number of open connections to a server."""
    lines = Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    ends = [line.split()[2:4] for line in lines]
    return sum(int(remote.partition(":")[2], 16) == server.port and state == "01" for remote, state in ends)


def test_many_idle_readers_release_their_connections(url: str, server: S3Server) -> None:
    # given many readers of one blob, at different offsets
    store, content, size = open_store(url), os.urandom(24_000_000), 20_000_000
    upload = new_upload(store)
    append(store, upload, content, at=0)
    key = publish(store, upload, content)
    others = _connections(server)  # of earlier tests
    starts = range(0, 100_000, 1000)
    readers = [store.read(key, start=start, stop=start + size) for start in starts]
    read = [next(reader) for reader in readers]

    # when they are idle, then a limited number of them hold a connection
    wait_until(lambda: _connections(server) <= others + MAX_OPEN)

    # and when they continue, they get the rest; a few idle readers still have their connections
    for start, reader, first in list(zip(starts, readers, read, strict=True))[::10]:
        assert first + b"".join(reader) == content[start : start + size]
    few = [store.read(key) for _ in range(FEW)]
    read = [next(reader) for reader in few]
    time.sleep(3)
    assert _connections(server) >= FEW
    for reader, first in zip(few, read, strict=True):
        assert first + b"".join(reader) == content


def _is_suspended(reader: ResumableReader) -> bool:
    reader.suspend_if_idle()
    return not reader.is_open


def test_a_suspended_reader_gets_an_error_after_the_blob_was_deleted(url: str) -> None:
    store, content = open_store(url), os.urandom(24_000_000)
    upload = new_upload(store)
    append(store, upload, content, at=0)
    key = publish(store, upload, content)
    readers = [
        ResumableReader(Bucket(Address.parse(url)), ObjectNames(upload).blob, 0, None) for _ in range(3)
    ]
    wait_until(lambda: all(_is_suspended(reader) for reader in readers))
    store.delete(key)
    for reader in readers:
        with pytest.raises(NotStored):
            next(reader)


def test_a_discarded_upload_leaves_nothing(url: str) -> None:
    # given an upload with parts, a tail and a multipart upload left by a crash
    store = open_store(url)
    upload = new_upload(store)
    append(store, upload, os.urandom(PART + 5), at=0)
    bucket = Bucket(Address.parse(url))
    bucket.begin_multipart(ObjectNames(upload).blob)

    # when it is discarded, twice
    store.discard(upload)
    store.discard(upload)

    # then the bucket is empty and has no multipart upload
    client, name = sdk(url)
    assert list(client.list_objects(name, recursive=True)) == []
    assert client._list_multipart_uploads(name).uploads == []  # noqa: SLF001


@pytest.mark.parametrize("before", [0, 5, PART + 5])
@pytest.mark.parametrize("size", [0, 5, PART + 5])
@pytest.mark.parametrize("published", [True, False])
def test_an_upload_discarded_by_its_writer_leaves_only_the_blob(
    node: Callable[[], BlobStore], url: str, before: int, size: int, *, published: bool
) -> None:
    # given an upload that another node may have written to
    upload, content = new_upload(node()), os.urandom(before + size)
    if before:
        append(node(), upload, content[:before], at=0)

    # when it is published or not, and discarded by the request that has it open
    store = node()
    writer = store.open_upload(upload, at=before)
    writer.write(content[before:])
    key = publish(store, upload, content) if published else None
    store.discard(upload, published=key, held=True)
    writer.close()

    # then nothing of the upload is left
    assert key is None or b"".join(store.read(key)) == content
    client, name = sdk(url)
    assert len(list(client.list_objects(name, recursive=True))) == published
    assert client._list_multipart_uploads(name).uploads == []  # noqa: SLF001
    with pytest.raises(NotStored):
        store.upload_size(upload)


def test_a_small_blob_takes_six_requests(url: str, caplog: pytest.LogCaptureFixture) -> None:
    # given an upload that had no writer before
    store, content = open_store(url), b"a small layer"
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    upload = new_upload(store)

    # when it is written, published and discarded
    writer = store.open_upload(upload, at=0)
    writer.write(content)
    key = blob_key("sha256", sha256(content).hexdigest(), upload)
    store.publish(upload, key)
    store.discard(upload, published=key)
    writer.close()

    # then the state was created, read, leased, sealed and deleted, and the blob was written
    requests = [record.getMessage() for record in caplog.records if "HTTP/1.1" in record.getMessage()]
    assert [line.split('"')[1].split()[0] for line in requests] == [
        "PUT",
        "GET",
        "PUT",
        "PUT",
        "PUT",
        "DELETE",
    ]


def test_discard_is_idempotent_and_does_not_delete_the_blob(url: str) -> None:
    store = open_store(url)
    upload = new_upload(store)
    append(store, upload, b"content", at=0)
    key = publish(store, upload, b"content")
    for _ in range(3):
        store.discard(upload)
    assert store.size(key) == 7


def test_invariant_7_a_missing_bucket_is_unavailable_and_not_absent(server: S3Server) -> None:
    store = open_store(server.url())
    upload = UploadId(uuid4().hex)
    key = blob_key("sha256", "ab" * 32, upload)
    for call in (
        lambda: store.size(key),
        lambda: store.read(key),
        lambda: store.read(key, start=5, stop=5),
        lambda: store.delete(key),
        lambda: store.create_upload(upload),
        lambda: store.upload_size(upload),
        lambda: store.published_as(upload),
        lambda: store.discard(upload),
    ):
        with pytest.raises(Unavailable):
            call()


def test_invariant_7_keys_of_a_missing_bucket_or_a_stopped_server_are_not_taken_for_deleted(
    server: S3Server, tmp_path: Path
) -> None:
    keys = [blob_key("sha256", f"{number:064x}", uuid4().hex) for number in range(3)]
    missing = open_store(server.url())
    assert isinstance(missing, DeletesMany)
    with running_minio(tmp_path / "minio") as other:
        stopped = open_store(other.url())
        stopped.check()
    assert isinstance(stopped, DeletesMany)
    for store in (missing, stopped):
        errors = store.delete_many(keys)
        assert set(errors) == set(keys)
        assert {type(error) for error in errors.values()} == {Unavailable}


def test_more_keys_than_one_request_takes_are_deleted(server: S3Server) -> None:
    store = open_store(server.url())
    store.check()
    assert isinstance(store, DeletesMany)
    last = publish(store, new_upload(store), b"content")
    keys = [blob_key("sha256", f"{number:064x}", uuid4().hex) for number in range(1500)]
    assert store.delete_many([*keys, last]) == {}
    with pytest.raises(NotStored):
        store.size(last)


def test_invariant_7_a_stopped_or_hanging_server_is_unavailable_within_its_timeout(tmp_path: Path) -> None:
    with running_minio(tmp_path / "minio") as server:
        store = open_store(server.url())
        store.check()
        upload = new_upload(store)
        freeze(server.child.pid)
        try:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                store.upload_size(upload)
            assert time.monotonic() - began < 60
        finally:
            os.kill(server.child.pid, signal.SIGCONT)
        assert store.upload_size(upload) == 0
    with pytest.raises(Unavailable):
        store.upload_size(upload)
    with pytest.raises(Unavailable):
        store.check()


def test_a_wrong_secret_is_reported_by_check(server: S3Server) -> None:
    with pytest.raises(Unavailable, match=r"AccessDenied|Forbidden|SignatureDoesNotMatch"):
        open_store(server.url().replace("secret-of-the-tests", "wrong-secret")).check()


def test_bucket_settings_that_retain_or_expire_objects_are_logged(
    minio: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = minio.url()
    client, bucket = sdk(url)
    client.make_bucket(bucket, object_lock=True)  # this enables versioning too
    client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    expiring = Rule(
        ENABLED, rule_filter=Filter(prefix="blobs/"), rule_id="old", expiration=Expiration(days=30)
    )
    client.set_bucket_lifecycle(bucket, LifecycleConfig([expiring]))
    with caplog.at_level(logging.WARNING):
        open_store(url).check()
    logged = " ".join(caplog.messages)
    assert "versioning is Enabled" in logged
    assert "object lock is on" in logged
    assert "lifecycle rule old expires objects" in logged


def test_check_deletes_the_probe_of_a_process_killed_in_its_check(url: str) -> None:
    # given the probes of a killed process and of a running one
    client, bucket = sdk(url)
    child = FORK.Process(target=_die_in_the_check, args=(url,))
    child.start()
    child.join()
    assert child.exitcode == KILLED
    [left] = client.list_objects(bucket, prefix="check/", recursive=True)
    Bucket(Address.parse(url)).put("check/of-a-live-process", this_process().encode())

    # when check runs again
    open_store(url).check()

    # then only the probe of the killed process is deleted
    names = {found.object_name for found in client.list_objects(bucket, recursive=True)}
    assert left.object_name not in names
    assert names == {"check/of-a-live-process"}


def _die_in_the_check(url: str) -> None:
    class Dying(Bucket):
        def delete(self, *names: str) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    prepare(Dying(Address.parse(url)))


def test_check_logs_nothing_for_a_bucket_with_default_settings(
    server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        store = open_store(server.url())
        store.check()
        store.check()
    assert caplog.messages == []


def test_redirects_to_presigned_urls_are_an_option(server: S3Server) -> None:
    bucket = f"b-{uuid4().hex[:12]}"
    assert not isinstance(open_store(server.url(bucket)), SignsUrls)
    store = open_store(server.url(bucket, redirect="1", public=f"http://localhost:{server.port}"))
    assert isinstance(store, SignsUrls)
    store.check()
    upload = new_upload(store)
    append(store, upload, b"0123456789", at=0)
    presigned = store.url_for(publish(store, upload, b"0123456789"), expires_in=timedelta(minutes=1))
    assert presigned.startswith(f"http://localhost:{server.port}/")
    whole = urllib3.request("GET", presigned)
    part = urllib3.request("GET", presigned, headers={"Range": "bytes=2-4"})
    assert (whole.status, whole.data) == (200, b"0123456789")
    assert whole.headers["Content-Type"] == "application/octet-stream"
    assert (part.status, part.data) == (206, b"234")


def test_an_upload_with_a_replaced_part_cannot_be_published(url: str) -> None:
    # given an upload of one part, which a writer without the lease replaces
    store, content = open_store(url), os.urandom(PART + 1)
    upload = new_upload(store)
    append(store, upload, content, at=0)
    bucket, names = Bucket(Address.parse(url)), ObjectNames(upload)
    multipart = Snapshot.read(bucket, names.state).state.multipart
    bucket.put_part(names.blob, multipart, 1, memoryview(os.urandom(PART)))

    # then it cannot be published: the client has to start another upload
    with pytest.raises(NotStored):
        publish(store, upload, content)


def _open_when_free(store: BlobStore, upload: UploadId) -> UploadWriter:
    for _ in _ticks(LEASE.total_seconds() + 30):
        with suppress(Busy):
            return store.open_upload(upload, at=None)
    raise AssertionError("the lease of the upload did not expire")


def _ticks(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
