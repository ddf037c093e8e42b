"""Every storage driver lists its objects in pages, and removes those that nothing refers to."""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from registry_data.storage.base import BlobStore, Kind, NotStored, StoredObject, Unavailable, UploadId
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import parse_key
from registry_data.storage.s3.state import blob_object
from registry_data.storage.s3.store import S3Store
from tests.contracts.test_blob_store import new_upload, stored


def listed(store: BlobStore, *, limit: int = 1000) -> Iterator[StoredObject]:
    cursor: str | None = ""
    while cursor is not None:
        page = store.list_objects(cursor, limit=limit)
        assert len(page.objects) <= limit
        yield from page.objects
        cursor = page.next


def add_foreign(store: BlobStore, name: str) -> None:
    if isinstance(store, S3Store):
        store._bucket.put(name, b"foreign")  # noqa: SLF001
    else:
        assert isinstance(store, FilesystemStore)
        path = store._root / name  # noqa: SLF001
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"foreign")


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_a_listing_in_pages_has_every_object_once(store: BlobStore, limit: int) -> None:
    assert list(listed(store)) == []
    keys = [stored(store, b"content %d" % number) for number in range(7)]
    open_upload = new_upload(store, b"not finished")
    for name in ("blobs/sha256/readme", "uploads/note.txt", "a file"):
        add_foreign(store, name)

    found = list(listed(store, limit=limit))
    names = [each.name for each in found if each.kind is not Kind.UNFINISHED]
    assert len(names) == len(set(names))
    content = {each.upload: each.size for each in found if each.kind is Kind.CONTENT}
    assert content == {parse_key(key)[1]: 9 for key in keys}
    assert {each.upload for each in found if each.kind is Kind.UPLOAD} == {open_upload}
    foreign = {each.name: each.size for each in found if each.kind is Kind.FOREIGN}
    assert foreign == {"blobs/sha256/readme": 7, "uploads/note.txt": 7, "a file": 7}


def test_objects_that_are_removed_and_added_during_a_listing_do_not_hide_others(store: BlobStore) -> None:
    keys = [stored(store, b"content %d" % number) for number in range(6)]
    page = store.list_objects("", limit=2)
    seen = [each.upload for each in page.objects]
    store.remove_object(page.objects[-1].kind, page.objects[-1].name)
    stored(store, b"another")
    cursor = page.next
    while cursor is not None:
        page = store.list_objects(cursor, limit=2)
        seen += [each.upload for each in page.objects]
        cursor = page.next
    assert {parse_key(key)[1] for key in keys} <= set(seen)


def test_listed_objects_can_be_removed_and_others_stay(store: BlobStore) -> None:
    gone, kept = stored(store, b"gone"), stored(store, b"kept")
    upload = new_upload(store, os.urandom(9_000_000))
    for each in list(listed(store)):
        if each.upload in (parse_key(gone)[1], upload):
            for _ in range(2):
                store.remove_object(each.kind, each.name)
    with pytest.raises(NotStored):
        store.size(gone)
    with pytest.raises(NotStored):
        store.upload_size(upload)
    assert b"".join(store.read(kept)) == b"kept"
    assert {each.upload for each in listed(store)} == {parse_key(kept)[1]}


def test_an_upload_is_removed_without_content_that_has_its_id(store: BlobStore) -> None:
    # given content, and the upload that it came with, which a late request has created again
    key = stored(store, b"kept")
    upload = UploadId(parse_key(key)[1])
    store.create_upload(upload)
    for each in list(listed(store)):
        if each.kind is Kind.UPLOAD:
            store.remove_object(each.kind, each.name)
    assert b"".join(store.read(key)) == b"kept"
    with pytest.raises(NotStored):
        store.upload_size(upload)


def test_the_parts_of_a_forgotten_multipart_upload_are_removed(store: BlobStore) -> None:
    if not isinstance(store, S3Store):
        return
    # given a multipart upload whose state was deleted
    bucket = store._bucket  # noqa: SLF001
    upload = UploadId(uuid4().hex)
    name = blob_object(upload)
    multipart = bucket.begin_multipart(name)
    bucket.put_part(name, multipart, 1, memoryview(b"x" * 1000))
    found = [each for each in listed(store) if each.kind is Kind.UNFINISHED]
    assert {each.upload for each in found} == {upload}

    store.remove_object(Kind.UNFINISHED, name)
    with pytest.raises(NotStored):
        bucket.parts(name, multipart, first=1)


@pytest.mark.parametrize("name", ["uploads/../x", "blobs/x", "x", "uploads/" + "0" * 31])
def test_other_names_cannot_be_removed(store: BlobStore, name: str) -> None:
    add_foreign(store, name.replace("..", "up"))
    for kind in Kind:
        with pytest.raises(ValueError, match="not a"):
            store.remove_object(kind, name)


def test_a_missing_folder_or_bucket_is_not_an_empty_listing(store: BlobStore) -> None:
    if isinstance(store, FilesystemStore):
        (store._root / "uploads").rename(store._root / "elsewhere")  # noqa: SLF001
    else:
        assert isinstance(store, S3Store)
        store._bucket.client.remove_bucket(store._bucket.name)  # noqa: SLF001
    with pytest.raises(Unavailable):
        store.list_objects("", limit=10)
