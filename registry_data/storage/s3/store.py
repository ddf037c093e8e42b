"""Blobs and uploads in an S3 bucket (docs/storage.md; decision 21). Any number of nodes may use the same one.

What a blob is called in the bucket comes from its key's generation alone, so that an upload goes straight to
where it stays. All that is known of an upload is in its state object (`state`), whose writers take turns
(`lease`); bytes on their way are in `upload`.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from registry_data.storage.base import Busy, Key, NotStored, StorageError, Unavailable, UploadId, WrongOffset
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import check_key, parse_key
from registry_data.storage.s3.address import Address
from registry_data.storage.s3.bucket import Bucket, Changed
from registry_data.storage.s3.check import prepare
from registry_data.storage.s3.lease import Lease, Renewal, Snapshot
from registry_data.storage.s3.reading import Readers, ResumableReader
from registry_data.storage.s3.spool import translated
from registry_data.storage.s3.state import ObjectNames, State, blob_object, part_size
from registry_data.storage.s3.upload import S3Writer


class _Process:
    """What must not be shared over a fork: connections, threads, open uploads."""

    def __init__(self, address: Address) -> None:
        self.pid = os.getpid()
        self.bucket = Bucket(address)
        self.renewal = Renewal()
        self.readers = Readers()
        self.writers: dict[UploadId, S3Writer] = {}
        self.is_checked = False


class S3Store:
    """The driver."""

    def __init__(self, address: Address, *, reserve: int | None = None) -> None:
        """Nothing is asked of S3 yet. `reserve` is what stays free of the spool's disk, in bytes."""
        self._address = address
        self._room = FreeSpace(address.spool or Path(tempfile.gettempdir()), reserve)
        self._process_or_parent = _Process(address)

    def check(self) -> None:
        """The first time make the bucket, try it and report what is odd; later see that it is there."""
        if self._process.is_checked:
            self._bucket.require()
        else:
            prepare(self._bucket)
            self._process.is_checked = True

    def ensure_capacity(self, size: int) -> None:
        """Ask the disk that parts pass over; how much room the bucket has, only S3 knows."""
        with translated():
            self._room.require(min(size, part_size(0)))

    def create_upload(self, upload: UploadId) -> None:
        """Write the first state, or leave the one that is there."""
        with suppress(Changed):
            self._bucket.put(ObjectNames(upload).state, State().dump(), only_new=True)

    def upload_size(self, upload: UploadId) -> int:
        """Ask the state."""
        return self._snapshot(upload).state.size

    def open_upload(self, upload: UploadId, *, at: int | None) -> S3Writer:
        """Take the upload's lease."""
        snapshot = self._free(upload)
        if at is not None and at != snapshot.state.size:
            raise WrongOffset(snapshot.state.size)
        lease = Lease(self._bucket, ObjectNames(upload).state, snapshot)
        process = self._process

        def forget() -> None:
            if process.writers.get(upload) is writer:
                del process.writers[upload]

        is_first = not snapshot.state.stamp
        writer = S3Writer(process.bucket, ObjectNames(upload), lease, self._room, forget, is_first=is_first)
        process.writers[upload] = writer
        try:
            process.renewal.add(lease)
        except Unavailable:
            writer.close()
            raise
        return writer

    def read_upload(self, upload: UploadId) -> Iterator[bytes]:
        """Read what is in parts or in the tail; more than one part has to be finished for that."""
        state = self._snapshot(upload).state
        if upload not in self._process.writers and not state.parts and state.sealed is None:
            tail = ObjectNames(upload).tail(state.tail_slot)
            return self._bucket.read(tail, 0, None, etag=state.tail_etag) if state.tail else iter(())
        with self._writer(upload) as writer:
            return writer.contents()

    def publish(self, upload: UploadId, key: Key) -> None:
        """Finish the multipart upload to where the key leads."""
        _, generation = parse_key(key)
        if generation != upload:
            raise ValueError(f"the key {key} is not one of the upload {upload}")
        with self._writer(upload) as writer:
            writer.publish(key)

    def published_as(self, upload: UploadId) -> Key | None:
        """Ask the state."""
        try:
            key = self._snapshot(upload).state.key
        except NotStored:
            return None
        return check_key(Key(key)) if key else None

    def discard(self, upload: UploadId, *, published: Key | None = None, held: bool = False) -> None:
        """Remove what was sent and not published, and the state last: it says what that is."""
        places = ObjectNames(upload)
        writer = self._process.writers.get(upload) if published or held else None
        if writer is not None:
            if not writer.let_go():
                self._remove(places, is_blob=bool(published))
            self._bucket.delete(places.state)
            return
        try:
            # Whoever comes from now on is too late to leave anything behind.
            lease = Lease(self._bucket, places.state, self._free(upload))
        except NotStored:
            return
        try:
            self._remove(places, is_blob=bool(lease.state.key))
        except StorageError:
            with suppress(StorageError):
                lease.release(lease.state)
            raise
        self._bucket.delete(places.state)

    def _remove(self, places: ObjectNames, *, is_blob: bool) -> None:
        self._bucket.abort_all(places.blob)
        if not is_blob:
            self._bucket.delete(places.blob)
        self._bucket.delete(places.tail(0), places.tail(1))

    def size(self, key: Key) -> int:
        """Ask for the object."""
        return self._bucket.size(_object(key))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Begin the answer now, read it as it comes."""
        if stop is not None and start >= stop:
            self.size(key)
            return iter(())
        process = self._process
        reader = ResumableReader(process.bucket, _object(key), start, stop)
        process.readers.add(reader)
        return reader

    def delete(self, key: Key) -> None:
        """Remove the object."""
        self._bucket.delete(_object(key))

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
        """The state of an upload that has no writer."""
        snapshot = self._snapshot(upload)
        # One of this process is alive, however old its lease looks.
        if snapshot.is_held or upload in self._process.writers:
            raise Busy("another writer has the upload")
        return snapshot

    @contextmanager
    def _writer(self, upload: UploadId) -> Iterator[S3Writer]:
        """The upload's open writer in this process, or one for the moment."""
        if here := self._process.writers.get(upload):
            yield here
            return
        writer = self.open_upload(upload, at=None)
        try:
            yield writer
        finally:
            writer.close()


class SigningS3Store(S3Store):
    """The driver where clients may read from the store themselves."""

    def url_for(self, key: Key, *, expires_in: timedelta) -> str:
        """Sign an address, without asking S3."""
        return self._bucket.url_for(_object(key), expires_in=expires_in)


def _object(key: Key) -> str:
    return blob_object(parse_key(key)[1])
