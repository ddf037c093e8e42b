"""Every storage driver implements the contract of registry_data/storage/base.py."""

import multiprocessing
import os
import signal
import threading
from functools import partial
from hashlib import sha256, sha512
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry_data.storage.base import (
    BlobStore,
    Busy,
    DeletesMany,
    HasPaths,
    Key,
    NotStored,
    UploadId,
    WrongOffset,
)
from registry_data.storage.keys import blob_key, parse_key


def new_upload(store: BlobStore, content: bytes = b"") -> UploadId:
    upload = UploadId(uuid4().hex)
    store.create_upload(upload)
    if content:
        writer = store.open_upload(upload, at=0)
        writer.write(content)
        writer.close()
    return upload


def key_for(content: bytes, upload: UploadId) -> Key:
    return blob_key("sha256", sha256(content).hexdigest(), upload)


def stored(store: BlobStore, content: bytes) -> Key:
    upload = new_upload(store, content)
    key = key_for(content, upload)
    store.publish(upload, key)
    store.discard(upload)
    return key


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(3_000_001)], ids=["empty", "one byte", "3 MB"])
def test_published_content_reads_back(store: BlobStore, content: bytes) -> None:
    key = stored(store, content)
    assert store.size(key) == len(content)
    assert b"".join(store.read(key)) == content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(content=st.binary(max_size=300), start=st.integers(0, 300), length=st.integers(0, 300))
def test_a_range_reads_like_a_slice(store: BlobStore, content: bytes, start: int, length: int) -> None:
    key = stored(store, content)
    stop = min(start + length, len(content))
    assert b"".join(store.read(key, start=start, stop=stop)) == content[start:stop]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(pieces=st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=8))
def test_closed_writers_append_and_abandoned_ones_change_nothing(
    store: BlobStore, pieces: list[tuple[bytes, bool]]
) -> None:
    upload, expected = new_upload(store), b""
    for piece, keep in pieces:
        writer = store.open_upload(upload, at=len(expected))
        writer.write(piece)
        assert writer.offset == len(expected) + len(piece)
        if keep:
            writer.close()
            expected += piece
        else:
            writer.abandon()
        assert store.upload_size(upload) == len(expected)
    assert b"".join(store.read_upload(upload)) == expected


def test_an_unpublished_key_does_not_exist(store: BlobStore) -> None:
    upload = new_upload(store, b"half")
    key = key_for(b"half", upload)
    for call in (lambda: store.size(key), lambda: store.read(key)):
        with pytest.raises(NotStored):
            call()
    assert store.published_as(upload) is None


def test_publish_is_idempotent_until_the_upload_is_discarded(store: BlobStore) -> None:
    upload = new_upload(store, b"content")
    key = key_for(b"content", upload)
    store.publish(upload, key)
    store.publish(upload, key)
    assert store.published_as(upload) == key
    assert store.upload_size(upload) == 7
    store.discard(upload)
    assert store.published_as(upload) is None
    assert b"".join(store.read(key)) == b"content"


def test_a_published_upload_is_discarded_with_its_key(store: BlobStore) -> None:
    upload = new_upload(store, b"content")
    key = key_for(b"content", upload)
    store.publish(upload, key)
    store.discard(upload, published=key)
    assert store.published_as(upload) is None
    with pytest.raises(NotStored):
        store.upload_size(upload)
    assert b"".join(store.read(key)) == b"content"


def test_an_upload_that_was_created_again_is_discarded_without_its_key(store: BlobStore) -> None:
    key = stored(store, b"content")
    upload = UploadId(parse_key(key)[1])
    store.create_upload(upload)
    store.discard(upload, published=key)
    with pytest.raises(NotStored):
        store.upload_size(upload)
    assert b"".join(store.read(key)) == b"content"


def test_a_writer_may_discard_its_open_upload(store: BlobStore) -> None:
    for before in (b"", b"content"):
        upload = new_upload(store, before)
        writer = store.open_upload(upload, at=None)
        writer.write(b"more")
        store.discard(upload, held=True)
        writer.close()
        for call in (store.upload_size, store.read_upload, partial(store.open_upload, at=None)):
            with pytest.raises(NotStored):
                call(upload)


def test_publishing_under_another_digest_replaces_the_first_key(store: BlobStore) -> None:
    # given an upload that was published but not discarded
    upload = new_upload(store, b"content")
    first = key_for(b"content", upload)
    store.publish(upload, first)

    # when it is published under another algorithm and discarded
    second = blob_key("sha512", sha512(b"content").hexdigest(), upload)
    store.publish(upload, second)
    assert store.published_as(upload) == second
    store.discard(upload)

    # then only the second key exists, until it is deleted
    assert b"".join(store.read(second)) == b"content"
    store.delete(second)
    for key in (first, second):
        with pytest.raises(NotStored):
            store.size(key)


def test_a_key_of_another_generation_is_rejected_and_changes_nothing(store: BlobStore) -> None:
    upload, other = new_upload(store, b"content"), UploadId(uuid4().hex)
    with pytest.raises(ValueError, match="does not belong to the upload"):
        store.publish(upload, key_for(b"content", other))
    assert store.published_as(upload) is None
    assert store.upload_size(upload) == len(b"content")


@pytest.mark.parametrize("size", [5, 9_000_000], ids=["small", "with parts"])
def test_a_process_reads_the_upload_that_it_has_open_and_continues_it(store: BlobStore, size: int) -> None:
    content, end = os.urandom(size), b"end"
    upload = new_upload(store)
    writer = store.open_upload(upload, at=0)
    writer.write(content)
    assert b"".join(store.read_upload(upload)) == content
    writer.write(end)
    writer.close()
    assert b"".join(store.read_upload(upload)) == content + end


def _read(store: BlobStore, upload: UploadId, results: "multiprocessing.SimpleQueue[bytes | None]") -> None:
    try:
        results.put(b"".join(store.read_upload(upload)))
    except Busy:
        results.put(None)


@pytest.mark.parametrize("size", [5, 9_000_000], ids=["small", "with parts"])
def test_another_process_reads_the_saved_bytes_of_an_open_upload_or_gets_busy(
    store: BlobStore, size: int
) -> None:
    context = multiprocessing.get_context("fork")
    content, results = os.urandom(size), context.SimpleQueue()
    upload = new_upload(store, content)
    writer = store.open_upload(upload, at=size)
    process = context.Process(target=_read, args=(store, upload, results))
    process.start()
    assert results.get() in (content, None)
    process.join()
    writer.close()


def test_missing_keys_and_uploads_are_not_stored_and_deleting_them_succeeds(store: BlobStore) -> None:
    upload = UploadId(uuid4().hex)
    key = key_for(b"never", upload)
    store.discard(upload)
    store.delete(key)
    for call in (
        lambda: store.upload_size(upload),
        lambda: store.open_upload(upload, at=0),
        lambda: store.read_upload(upload),
        lambda: store.publish(upload, key),
        lambda: store.size(key),
        lambda: store.read(key),
    ):
        with pytest.raises(NotStored):
            call()


def test_creating_an_existing_upload_does_not_change_its_bytes(store: BlobStore) -> None:
    upload = new_upload(store, b"saved")
    store.create_upload(upload)
    assert store.upload_size(upload) == 5


@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_wrong_offset_error_has_the_actual_one(store: BlobStore, at: int) -> None:
    upload = new_upload(store, b"1234")
    with pytest.raises(WrongOffset) as caught:
        store.open_upload(upload, at=at)
    assert caught.value.actual == 4
    store.open_upload(upload, at=4).close()
    store.open_upload(upload, at=None).close()


def test_a_second_writer_is_busy_until_the_first_ends(store: BlobStore) -> None:
    upload = new_upload(store)
    first = store.open_upload(upload, at=0)
    errors: list[Busy] = []

    def second() -> None:
        try:
            store.open_upload(upload, at=None).close()
        except Busy as error:
            errors.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert len(errors) == 1
    first.close()
    first.close()
    store.open_upload(upload, at=0).close()


def _write_and_wait(store: BlobStore, upload: UploadId, ready: "multiprocessing.synchronize.Event") -> None:
    writer = store.open_upload(upload, at=5)
    writer.write(b"a" * 100_000)
    ready.set()
    signal.pause()


def test_after_a_kill_of_its_writer_an_upload_has_the_saved_bytes_and_can_be_continued(
    store: BlobStore,
) -> None:
    # given another process that has the upload open
    context = multiprocessing.get_context("fork")
    upload, ready = new_upload(store, b"saved"), context.Event()
    process = context.Process(target=_write_and_wait, args=(store, upload, ready))
    process.start()
    assert ready.wait(10)
    with pytest.raises(Busy):
        store.open_upload(upload, at=None)

    # when it is killed
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    # then the saved bytes (in a file all written bytes) can be read, and the upload can be continued
    size = store.upload_size(upload)
    assert size == 100_005 or (size >= 5 and not isinstance(store, HasPaths))
    assert b"".join(store.read_upload(upload)) == (b"saved" + b"a" * 100_000)[:size]
    store.open_upload(upload, at=size).close()


def test_a_reader_continues_after_the_key_was_deleted(store: BlobStore) -> None:
    content = os.urandom(3_000_000)
    key = stored(store, content)
    reader = store.read(key)
    first = next(reader)
    store.delete(key)
    store.delete(key)
    assert first + b"".join(reader) == content
    with pytest.raises(NotStored):
        store.size(key)


def test_two_uploads_of_the_same_content_have_different_keys(store: BlobStore) -> None:
    first, second = stored(store, b"same"), stored(store, b"same")
    store.delete(first)
    assert b"".join(store.read(second)) == b"same"


def test_many_keys_are_deleted_with_one_call_where_the_driver_can(store: BlobStore) -> None:
    # given stored keys, one that is gone already, and one that stays
    keys = [stored(store, b"content %d" % number) for number in range(5)]
    kept = stored(store, b"content 0")
    store.delete(keys[2])

    # when they are deleted, twice
    for _ in range(2):
        if isinstance(store, DeletesMany):
            assert store.delete_many(keys) == {}
        else:
            for key in keys:
                store.delete(key)

    # then they are gone, and the other one is not
    for key in keys:
        with pytest.raises(NotStored):
            store.size(key)
    assert b"".join(store.read(kept)) == b"content 0"


@pytest.mark.parametrize("key", ["", "blobs/x", "../../etc/passwd", "blobs/sha256/ab/../../x", "/etc/passwd"])
def test_a_malformed_key_is_rejected(store: BlobStore, key: str) -> None:
    for call in (store.size, store.read, store.delete):
        with pytest.raises(ValueError, match="not a storage key"):
            call(Key(key))


@pytest.mark.parametrize("upload", ["", "../x", "A" * 32, "a" * 31])
def test_a_malformed_upload_id_is_rejected(store: BlobStore, upload: str) -> None:
    with pytest.raises(ValueError, match="not an upload id"):
        store.create_upload(UploadId(upload))


@given(st.binary(max_size=20), st.uuids())
def test_a_key_contains_digest_and_generation(content: bytes, generation: object) -> None:
    key = key_for(content, UploadId(generation.hex))  # type: ignore[attr-defined]
    assert parse_key(key) == (f"sha256:{sha256(content).hexdigest()}", generation.hex)  # type: ignore[attr-defined]
