"""Failures of disks, and races that only files have."""

import errno
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from registry_data.storage.base import Busy, InsufficientStorage, Key, NotStored, Unavailable, UploadId
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from tests.services.disks import small_disk

UPLOAD = UploadId(uuid4().hex)
KEY = blob_key("sha256", "ab" * 32, UPLOAD)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", mib=2) as folder:
        yield folder


def test_a_full_disk_is_reported_and_the_offset_remains_correct(small: Path) -> None:
    store = FilesystemStore(small / "store", reserve=0)
    store.check()
    store.create_upload(UPLOAD)
    writer = store.open_upload(UPLOAD, at=0)
    writer.write(b"x" * 1_000_000)
    (small / "other").write_bytes(b"x" * 500_000)
    with pytest.raises(InsufficientStorage):
        writer.write(b"x" * 600_000)
    assert writer.offset == store.upload_size(UPLOAD) >= 1_000_000
    writer.abandon()
    assert store.upload_size(UPLOAD) == 0
    store.open_upload(UPLOAD, at=0).close()


def test_the_reserve_of_the_disk_is_not_used(small: Path) -> None:
    # given a disk of 2 MiB with some bytes on it
    store = FilesystemStore(small / "store", reserve=1_000_000)
    store.check()
    store.create_upload(UPLOAD)
    writer = store.open_upload(UPLOAD, at=0)
    writer.write(b"x" * 500_000)

    # when more bytes than fit are announced or written
    with pytest.raises(InsufficientStorage):
        store.ensure_capacity(600_000)
    with pytest.raises(InsufficientStorage):
        writer.write(b"x" * 600_000)

    # then nothing of it was written
    assert writer.offset == store.upload_size(UPLOAD) == 500_000
    store.ensure_capacity(100_000)


def test_invariant_7_a_missing_disk_is_unavailable_and_not_absent(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    store.check()
    with pytest.raises(NotStored):
        store.size(KEY)
    shutil.rmtree(tmp_path / "store")
    for call in (
        lambda: store.size(KEY),
        lambda: store.read(KEY),
        lambda: store.upload_size(UPLOAD),
        lambda: store.published_as(UPLOAD),
        lambda: store.discard(UPLOAD),
        lambda: store.discard(UPLOAD, published=KEY),
        lambda: store.discard(UPLOAD, held=True),
    ):
        with pytest.raises(Unavailable):
            call()


def test_invariant_7_a_file_in_place_of_a_folder_is_unavailable(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    store.check()
    shard = store.path_of(KEY).parent
    shard.rmdir()
    shard.write_text("not a folder")
    with pytest.raises(Unavailable):
        store.size(KEY)


def test_another_file_at_a_key_is_never_overwritten(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    store.check()
    store.path_of(KEY).write_bytes(b"other")
    store.create_upload(UPLOAD)
    with pytest.raises(Unavailable):
        store.publish(UPLOAD, KEY)
    assert store.path_of(KEY).read_bytes() == b"other"


def test_a_discarded_upload_leaves_no_file_but_the_blob(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    store.check()
    for published in (KEY, None):
        store.create_upload(UPLOAD)
        store.publish(UPLOAD, KEY)
        assert store.published_as(UPLOAD) == KEY
        store.discard(UPLOAD, published=published)
        assert not list((tmp_path / "store" / "uploads").iterdir())
        assert store.path_of(KEY).stat().st_nlink == 1
        store.delete(KEY)


def test_an_unknown_file_beside_an_upload_is_ignored(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    store.check()
    store.create_upload(UPLOAD)
    (tmp_path / "store" / "uploads" / f"{UPLOAD}.key").symlink_to("somewhere")
    store.publish(UPLOAD, KEY)
    assert store.published_as(UPLOAD) == KEY
    store.discard(UPLOAD)
    assert store.published_as(UPLOAD) is None


def test_a_root_that_cannot_be_created_is_reported_by_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        FilesystemStore(tmp_path / "file" / "store").check()


def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    store.check()
    store.create_upload(UPLOAD)
    store.publish(UPLOAD, KEY)
    assert store.path_of(KEY).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "store" / "uploads").stat().st_mode & 0o777 == 0o700
    assert Key(str(store.path_of(KEY).relative_to(tmp_path / "store"))) == KEY


def test_an_upload_with_early_writeback_reads_back_completely(tmp_path: Path) -> None:
    # given an upload by two writers, in pieces that do not end at the boundaries of write-back
    store, content = FilesystemStore(tmp_path), os.urandom(9_000_001)
    store.check()
    upload = UploadId(uuid4().hex)
    store.create_upload(upload)

    # when it is written and published
    for start, stop in ((0, 4_999_999), (4_999_999, len(content))):
        writer = store.open_upload(upload, at=start)
        for at in range(start, stop, 700_001):
            writer.write(content[at : min(at + 700_001, stop)])
        writer.close()
    key = blob_key("sha256", sha256(content).hexdigest(), upload)
    store.publish(upload, key)

    # then every byte is there
    assert b"".join(store.read(key)) == content


def test_invariant_4_no_writer_changes_a_blob_that_was_just_published_and_discarded(tmp_path: Path) -> None:
    # given uploads that are published and discarded by their writer
    store = FilesystemStore(tmp_path / "store")
    store.check()
    ended = threading.Event()

    def write_to(upload: UploadId) -> None:
        """Try to open the upload, again and again."""
        while not ended.is_set():
            try:
                writer = store.open_upload(upload, at=None)
            except (Busy, NotStored):
                continue
            writer.write(b"tail")
            writer.close()

    for number in range(100):
        upload = UploadId(f"{number:032x}")
        key = blob_key("sha256", f"{number:064x}", upload)
        store.create_upload(upload)
        writer = store.open_upload(upload, at=0)
        ended.clear()
        others = [threading.Thread(target=write_to, args=(upload,)) for _ in range(4)]
        for other in others:
            other.start()
        writer.write(b"content")
        store.publish(upload, key)
        store.discard(upload, published=key)
        writer.close()
        time.sleep(0.001)
        ended.set()
        for other in others:
            other.join()

        # then no other thread has written to the blob
        assert b"".join(store.read(key)) == b"content"


def test_invariant_4_after_a_failed_sync_the_upload_cannot_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk whose fdatasync fails once and succeeds later, which is how Linux reports a lost write
    store = FilesystemStore(tmp_path / "store")
    store.check()
    store.create_upload(UPLOAD)

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error", descriptor)

    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", fails)
        with pytest.raises(Unavailable):
            store.publish(UPLOAD, KEY)

    # then the upload is gone: the client has to start another one
    with pytest.raises(NotStored):
        store.publish(UPLOAD, KEY)
    with pytest.raises(NotStored):
        store.size(KEY)


def test_publish_can_be_repeated_after_it_failed_for_lack_of_descriptors(tmp_path: Path) -> None:
    # given a process without free file descriptors
    store = FilesystemStore(tmp_path / "store")
    store.check()
    store.create_upload(UPLOAD)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[0] + 1, limits[1]))
    try:
        with pytest.raises(Unavailable):
            store.publish(UPLOAD, KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(used[0])

    # then publishing succeeds later
    store.publish(UPLOAD, KEY)
    assert store.size(KEY) == 0
