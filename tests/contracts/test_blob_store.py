"""What every storage driver promises (registry_data/storage/base.py)."""

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

from registry_data.storage.base import BlobStore, Busy, HasPaths, Key, NotStored, UploadId, WrongOffset
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
def test_what_is_published_reads_back(store: BlobStore, content: bytes) -> None:
    key = stored(store, content)
    assert store.size(key) == len(content)
    assert b"".join(store.read(key)) == content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(content=st.binary(max_size=300), start=st.integers(0, 300), length=st.integers(0, 300))
def test_any_part_reads_as_a_slice(store: BlobStore, content: bytes, start: int, length: int) -> None:
    key = stored(store, content)
    stop = min(start + length, len(content))
    assert b"".join(store.read(key, start=start, stop=stop)) == content[start:stop]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(pieces=st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=8))
def test_appends_add_up_and_abandoned_ones_leave_no_trace(
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


def test_nothing_is_visible_before_it_is_published(store: BlobStore) -> None:
    upload = new_upload(store, b"half")
    key = key_for(b"half", upload)
    for ask in (lambda: store.size(key), lambda: store.read(key)):
        with pytest.raises(NotStored):
            ask()
    assert store.published_as(upload) is None


def test_publishing_can_be_repeated_until_the_upload_is_discarded(store: BlobStore) -> None:
    upload = new_upload(store, b"content")
    key = key_for(b"content", upload)
    store.publish(upload, key)
    store.publish(upload, key)
    assert store.published_as(upload) == key
    assert store.upload_size(upload) == 7
    store.discard(upload)
    assert store.published_as(upload) is None
    assert b"".join(store.read(key)) == b"content"


def test_who_has_just_published_an_upload_may_discard_it_by_its_key(store: BlobStore) -> None:
    upload = new_upload(store, b"content")
    key = key_for(b"content", upload)
    store.publish(upload, key)
    store.discard(upload, published=key)
    assert store.published_as(upload) is None
    with pytest.raises(NotStored):
        store.upload_size(upload)
    assert b"".join(store.read(key)) == b"content"


def test_who_holds_an_upload_may_discard_it(store: BlobStore) -> None:
    for before in (b"", b"content"):
        upload = new_upload(store, before)
        writer = store.open_upload(upload, at=None)
        writer.write(b"more")
        store.discard(upload, held=True)
        writer.close()
        for ask in (store.upload_size, store.read_upload, partial(store.open_upload, at=None)):
            with pytest.raises(NotStored):
                ask(upload)


def test_of_two_tries_under_different_digests_the_last_one_counts(store: BlobStore) -> None:
    # given a try that ended between publishing and whatever was to come after it
    upload = new_upload(store, b"content")
    first = key_for(b"content", upload)
    store.publish(upload, first)

    # when another algorithm is asked for, and the upload is forgotten
    second = blob_key("sha512", sha512(b"content").hexdigest(), upload)
    store.publish(upload, second)
    assert store.published_as(upload) == second
    store.discard(upload)

    # then the content is there, until its one key is deleted
    assert b"".join(store.read(second)) == b"content"
    store.delete(second)
    for key in (first, second):
        with pytest.raises(NotStored):
            store.size(key)


def test_what_is_not_there_is_absent_and_can_be_removed_again(store: BlobStore) -> None:
    upload = UploadId(uuid4().hex)
    key = key_for(b"never", upload)
    store.discard(upload)
    store.delete(key)
    for ask in (
        lambda: store.upload_size(upload),
        lambda: store.open_upload(upload, at=0),
        lambda: store.read_upload(upload),
        lambda: store.publish(upload, key),
        lambda: store.size(key),
        lambda: store.read(key),
    ):
        with pytest.raises(NotStored):
            ask()


def test_creating_an_upload_again_keeps_its_bytes(store: BlobStore) -> None:
    upload = new_upload(store, b"kept")
    store.create_upload(upload)
    assert store.upload_size(upload) == 4


@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_wrong_offset_says_the_right_one(store: BlobStore, at: int) -> None:
    upload = new_upload(store, b"1234")
    with pytest.raises(WrongOffset) as caught:
        store.open_upload(upload, at=at)
    assert caught.value.actual == 4
    store.open_upload(upload, at=4).close()
    store.open_upload(upload, at=None).close()


def test_a_second_writer_is_refused_until_the_first_one_ends(store: BlobStore) -> None:
    upload = new_upload(store)
    first = store.open_upload(upload, at=0)
    seen: list[object] = []

    def second() -> None:
        try:
            store.open_upload(upload, at=None).close()
        except Busy as error:
            seen.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert len(seen) == 1
    first.close()
    first.close()
    store.open_upload(upload, at=0).close()


def _hold(store: BlobStore, upload: UploadId, ready: "multiprocessing.synchronize.Event") -> None:
    writer = store.open_upload(upload, at=4)
    writer.write(b"a" * 100_000)
    ready.set()
    signal.pause()


def test_a_killed_writer_leaves_what_was_kept_and_gives_the_upload_back(store: BlobStore) -> None:
    # given another process that writes
    context = multiprocessing.get_context("fork")
    upload, ready = new_upload(store, b"kept"), context.Event()
    process = context.Process(target=_hold, args=(store, upload, ready))
    process.start()
    assert ready.wait(10)
    with pytest.raises(Busy):
        store.open_upload(upload, at=None)

    # when it is killed
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    # then what was kept before is there, on a disk all it wrote, and the upload can go on
    size = store.upload_size(upload)
    assert size == 100_004 or (size >= 4 and not isinstance(store, HasPaths))
    assert b"".join(store.read_upload(upload)) == (b"kept" + b"a" * 100_000)[:size]
    store.open_upload(upload, at=size).close()


def test_a_reader_survives_the_deletion(store: BlobStore) -> None:
    content = os.urandom(3_000_000)
    key = stored(store, content)
    reader = store.read(key)
    first = next(reader)
    store.delete(key)
    store.delete(key)
    assert first + b"".join(reader) == content
    with pytest.raises(NotStored):
        store.size(key)


def test_two_uploads_of_the_same_content_have_keys_of_their_own(store: BlobStore) -> None:
    first, second = stored(store, b"same"), stored(store, b"same")
    store.delete(first)
    assert b"".join(store.read(second)) == b"same"


@pytest.mark.parametrize("key", ["", "blobs/x", "../../etc/passwd", "blobs/sha256/ab/../../x", "/etc/passwd"])
def test_a_key_can_name_nothing_else(store: BlobStore, key: str) -> None:
    for ask in (store.size, store.read, store.delete):
        with pytest.raises(ValueError, match="not a storage key"):
            ask(Key(key))


@pytest.mark.parametrize("upload", ["", "../x", "A" * 32, "a" * 31])
def test_an_upload_id_can_name_nothing_else(store: BlobStore, upload: str) -> None:
    with pytest.raises(ValueError, match="not an upload id"):
        store.create_upload(UploadId(upload))


@given(st.binary(max_size=20), st.uuids())
def test_a_key_tells_digest_and_generation(content: bytes, generation: object) -> None:
    key = key_for(content, UploadId(generation.hex))  # type: ignore[attr-defined]
    assert parse_key(key) == (f"sha256:{sha256(content).hexdigest()}", generation.hex)  # type: ignore[attr-defined]
