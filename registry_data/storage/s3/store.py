"""Storage driver for an S3 bucket, shared by any number of nodes (docs/storage.md, ADR 21).

The name of a blob's object depends only on its key's generation, so an upload is written to its final object.
`state` describes the state object of an upload, `lease` excludes concurrent writers, `upload` writes bytes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from registry_data.storage.base import (
    Busy,
    Key,
    Kind,
    NotStored,
    Page,
    StorageError,
    Unavailable,
    UploadId,
    WrongOffset,
)
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import check_generation, check_key, parse_key
from registry_data.storage.s3.address import Address
from registry_data.storage.s3.bucket import Bucket, Changed
from registry_data.storage.s3.check import prepare
from registry_data.storage.s3.lease import Lease, LeaseRenewal, Snapshot
from registry_data.storage.s3.listing import page_of_bucket, upload_of
from registry_data.storage.s3.reading import ReaderPool, ResumableReader
from registry_data.storage.s3.spool import translate_errors
from registry_data.storage.s3.state import ObjectNames, State, blob_object, part_size
from registry_data.storage.s3.upload import S3Writer


class _Process:
    """State that a fork must not share: connections, threads, open uploads."""

    def __init__(self, address: Address) -> None:
        self.pid = os.getpid()
        self.bucket = Bucket(address)
        self.renewal = LeaseRenewal()
        self.readers = ReaderPool()
        self.writers: dict[UploadId, S3Writer] = {}
        self.is_checked = False


class S3Store:
    """The driver for buckets that only the server reads."""

    def __init__(self, address: Address, *, reserve: int | None = None) -> None:
        """Sends no request. `reserve` is the free space to keep on the spool's disk, in bytes."""
        self._address = address
        self._free_space = FreeSpace(address.spool, reserve)
        self._process_or_parent = _Process(address)

    def check(self) -> None:
        """At the first call create and test the bucket and log odd settings; later check that it exists."""
        if self._process.is_checked:
            self.check_exists()
        else:
            prepare(self._bucket)
            self._process.is_checked = True

    def check_exists(self) -> None:
        """One request for the bucket itself."""
        self._bucket.require_exists()

    def ensure_capacity(self, size: int) -> None:
        """Check the disk of the spool. The free space of a bucket cannot be queried."""
        with translate_errors():
            self._free_space.ensure(min(size, part_size(0)))

    def create_upload(self, upload: UploadId) -> None:
        """Write the initial state, unless there is one."""
        with suppress(Changed):
            self._bucket.put(ObjectNames(upload).state, State().dump(), only_new=True)

    def upload_size(self, upload: UploadId) -> int:
        """The size in the state."""
        return self._snapshot(upload).state.size

    def open_upload(self, upload: UploadId, *, at: int | None) -> S3Writer:
        """Acquire the upload's lease."""
        snapshot = self._free(upload)
        if at is not None and at != snapshot.state.size:
            raise WrongOffset(snapshot.state.size)
        lease = Lease(self._bucket, ObjectNames(upload).state, snapshot)
        process = self._process

        def forget() -> None:
            if process.writers.get(upload) is writer:
                del process.writers[upload]

        is_new = not snapshot.state.write_id
        writer = S3Writer(process.bucket, ObjectNames(upload), lease, self._free_space, forget, is_new=is_new)
        process.writers[upload] = writer
        try:
            process.renewal.add(lease)
        except Unavailable:
            writer.close()
            raise
        return writer

    def read_upload(self, upload: UploadId) -> Iterator[bytes]:
        """Read the tail, or complete the multipart upload and read its object.

        Raises:
            Busy: another process has the upload open, and it has parts.
        """
        state = self._snapshot(upload).state
        if upload not in self._process.writers and not state.parts and state.sealed is None:
            tail = ObjectNames(upload).tail(state.tail_slot)
            return self._bucket.read(tail, 0, None, etag=state.tail_etag) if state.tail else iter(())
        with self._writer(upload) as writer:
            return writer.contents()

    def publish(self, upload: UploadId, key: Key) -> None:
        """Complete the multipart upload, whose target is the key's object."""
        check_generation(upload, key)
        with self._writer(upload) as writer:
            writer.publish(key)

    def published_as(self, upload: UploadId) -> Key | None:
        """The key in the state."""
        try:
            key = self._snapshot(upload).state.key
        except NotStored:
            return None
        return check_key(Key(key)) if key else None

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        """Delete unpublished objects, and the state last: an interrupted call can be repeated from it."""
        writer = self._process.writers.get(upload) if published or held else None
        if writer is None:
            self._discard_free(upload, is_blob=bool(published))
            return
        names = ObjectNames(upload)
        if not writer.release_unsaved():
            self._remove(names, is_blob=bool(published))
        self._bucket.delete(names.state)

    def _discard_free(self, upload: UploadId, *, is_blob: bool) -> None:
        """Discard an upload without a writer. `is_blob`: its object stays, whatever the state says."""
        names = ObjectNames(upload)
        try:
            # With the lease, no other writer can add objects that this call would miss.
            lease = Lease(self._bucket, names.state, self._free(upload))
        except NotStored:
            return
        try:
            self._remove(names, is_blob=is_blob or bool(lease.state.key))
        except StorageError:
            with suppress(StorageError):
                lease.release(lease.state)
            raise
        self._bucket.delete(names.state)

    def _remove(self, names: ObjectNames, *, is_blob: bool) -> None:
        self._bucket.abort_multiparts(names.blob)
        if not is_blob:
            self._bucket.delete(names.blob)
        self._bucket.delete(names.tail(0), names.tail(1))

    def size(self, key: Key) -> int:
        """The object's size."""
        return self._bucket.size(_object(key))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Send the request now; the iteration reads the body."""
        if stop is not None and start >= stop:
            self.size(key)
            return iter(())
        process = self._process
        reader = ResumableReader(process.bucket, _object(key), start, stop)
        process.readers.add(reader)
        return reader

    def delete(self, key: Key) -> None:
        """Delete the object."""
        self._bucket.delete(_object(key))

    def delete_many(self, keys: Sequence[Key]) -> Mapping[Key, StorageError]:
        """Delete up to 1000 objects with one request."""
        names = {_object(key): key for key in keys}
        errors = self._bucket.delete_many([*names])
        return {names[name]: error for name, error in errors.items()}

    def list_objects(self, cursor: str, *, limit: int) -> Page:
        """List the bucket, then its multipart uploads."""
        return page_of_bucket(self._bucket, cursor, limit=limit)

    def remove_object(self, kind: Kind, name: str) -> None:
        """Delete an object, with the parts and tails of its upload if it is the state of one, or abort parts.

        The object that the upload was to become is content, which the caller judges by itself.
        """
        upload = UploadId(upload_of(kind, name))
        if kind is Kind.UNFINISHED:
            self._bucket.abort_multiparts(name)
            return
        if kind is Kind.UPLOAD:
            self._discard_free(upload, is_blob=True)
        self._bucket.delete(name)

    @property
    def _process(self) -> _Process:
        if self._process_or_parent.pid != os.getpid():
            self._process_or_parent = _Process(self._address)
        return self._process_or_parent

    @property
    def _bucket(self) -> Bucket:
        return self._process.bucket

    def _snapshot(self, upload: UploadId) -> Snapshot:
        return Snapshot.read(self._bucket, ObjectNames(upload).state)

    def _free(self, upload: UploadId) -> Snapshot:
        """The state of an upload without a writer, or Busy."""
        snapshot = self._snapshot(upload)
        # A writer of this process is alive even if its lease looks expired.
        if snapshot.is_leased or upload in self._process.writers:
            raise Busy("another writer has the upload open")
        return snapshot

    @contextmanager
    def _writer(self, upload: UploadId) -> Iterator[S3Writer]:
        """The upload's open writer of this process, or a temporary one."""
        if existing := self._process.writers.get(upload):
            yield existing
            return
        writer = self.open_upload(upload, at=None)
        try:
            yield writer
        finally:
            writer.close()


class SigningS3Store(S3Store):
    """The driver for buckets that clients read directly."""

    def url_for(self, key: Key, *, expires_in: timedelta) -> str:
        """Sign a URL, without a request to S3."""
        return self._bucket.url_for(_object(key), expires_in=expires_in)


def _object(key: Key) -> str:
    return blob_object(parse_key(key)[1])
