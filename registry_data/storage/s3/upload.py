"""Writer of an S3 upload: bytes are collected in the spool, and whole parts are sent to S3.

The target of the multipart upload is the blob's object, so publishing copies nothing. S3 cannot read parts of
an incomplete multipart upload: to read an upload with parts, the multipart upload is completed first (the
upload is "sealed"). To append to a sealed upload, another multipart upload is created, into whose parts the
server copies the bytes. Both are rare.

The blob's object is only written with a condition: there is none yet, or it is the sealed one. A request that
was delayed may create the state again after the upload became a blob; without the condition, a late writer
that finds this state would replace the blob.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from minio.datatypes import Part

from registry_data.storage.base import Key, NotStored, Unavailable
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import parse_key
from registry_data.storage.s3.bucket import Bucket, Changed
from registry_data.storage.s3.lease import Lease
from registry_data.storage.s3.spool import Spool
from registry_data.storage.s3.state import ObjectNames, State, part_size, parts_checksum, where_part_begins


class S3Writer:
    """See UploadWriter. Everything written is in S3 after `close`.

    A crash before that loses bytes that fill no part, and parts sent since the last renewal of the lease.
    """

    def __init__(
        self,
        bucket: Bucket,
        names: ObjectNames,
        lease: Lease,
        free_space: FreeSpace,
        on_end: Callable[[], None],
        *,
        is_new: bool,
    ) -> None:
        """`is_new`: the upload had no writer before, so S3 has only its state."""
        self._bucket, self._names, self._lease = bucket, names, lease
        self._free_space, self._on_end = free_space, on_end
        self._initial = lease.state
        self._spool: Spool | None = None  # the bytes after the parts, once they are needed
        self._multipart, self._parts, self._parts_checksum = (
            self._initial.multipart,
            self._initial.parts,
            self._initial.parts_checksum,
        )
        self._replaces = self._initial.replaces or None
        self._changed = False
        self._sent = not is_new  # whether S3 may have objects or parts besides the state
        self._ended = False
        self.offset, self.is_published = self._initial.size, bool(self._initial.key)

    def write(self, piece: bytes) -> None:
        """Append to the spool, and send it when it fills a part."""
        if self._lease.has_ended:
            raise Changed("this writer has lost the lease of the upload")
        left = memoryview(piece)
        while left:
            spool = self._spooled()
            if spool.size >= part_size(self._parts):
                self._send_part(spool)
            taken = left[: part_size(self._parts) - spool.size]
            spool.append(taken)
            self._changed = True
            self.offset += len(taken)
            left = left[len(taken) :]

    def close(self) -> None:
        """Save the bytes that fill no part in a separate object, then the state."""
        if self._ended:
            return
        try:
            self._lease.release(self._saved())
        except Changed:
            if self._changed:  # otherwise nothing is lost: the upload was discarded or taken over
                raise
        finally:
            self._end()

    def abandon(self) -> None:
        """Restore the initial state. Parts sent since then are no longer part of the upload."""
        if self._ended:
            return
        truncated = replace(self._lease.state, sealed=self._initial.size)
        before = truncated if self._is_sealed else self._initial
        try:
            with suppress(Changed):  # another writer has taken it over
                self._lease.release(before)
            self.offset = self._initial.size
        finally:
            self._end()

    def release_unsaved(self) -> bool:
        """End without saving: the upload is about to be discarded.

        Returns whether S3 has nothing of the upload except its state.
        """
        self._end()
        return not self._sent

    def contents(self) -> Iterator[bytes]:
        """All bytes written so far."""
        if not self.offset:
            return iter(())  # S3 may still have abandoned parts
        if self._is_in_spool:
            return self._spooled().pieces()
        self._seal()
        return self._bucket.read(self._names.blob, 0, self.offset)

    def publish(self, key: Key) -> None:
        """Turn the upload into the blob, with its digest as a tag."""
        digest, _ = parse_key(key)
        if self._is_sealed:
            self._seal()
            if self._bucket.size(self._names.blob) != self.offset:
                self._spooled()  # the object is longer than the upload: start again from its first bytes
        if self._is_in_spool:
            self._put_whole(digest)
            self._save_sealed(key)
            return
        self._seal(key)
        self._bucket.tag(self._names.blob, {"digest": digest})

    def _put_whole(self, digest: str) -> None:
        """Write the spool as the blob, unless an interrupted attempt has done so before."""
        blob, view = self._names.blob, self._spooled().view()
        if self._replaces is not None:
            self._confirm_lease()
        try:
            self._bucket.put(
                blob, view, tags={"digest": digest}, if_match=self._replaces, only_new=self._replaces is None
            )
        except Changed as error:
            if self._bucket.size(blob) != self.offset or self._bucket.tags(blob) != {"digest": digest}:
                self._confirm_lease()
                raise self._damaged() from error

    def _confirm_lease(self) -> None:
        """Raise `Changed` if this writer stalled and another one has taken the upload over."""
        self._lease.save(self._lease.state)

    @property
    def _is_sealed(self) -> bool:
        """Whether the upload consists of the first bytes of a complete object."""
        return self._lease.state.sealed is not None and self._spool is None

    @property
    def _is_in_spool(self) -> bool:
        """Whether the upload has no parts. Most blobs of an image are that small."""
        return not self._is_sealed and self._parts == 0

    def _spooled(self) -> Spool:
        """The spool, filled with the bytes after the last part."""
        if self._spool is None:
            state = self._lease.state
            if state.key:
                raise Unavailable("the upload was published: it cannot be appended to")
            spool = Spool(self._free_space)
            try:
                if state.sealed is not None:
                    self._reopen(spool, state.sealed)
                elif state.tail:
                    self._fill(spool, self._names.tail(state.tail_slot), 0, state.tail, state.tail_etag)
            except BaseException:
                spool.close()
                raise
            self._spool = spool
        return self._spool

    def _fill(self, spool: Spool, name: str, start: int, stop: int, etag: str | None) -> None:
        try:
            for piece in self._bucket.read(name, start, stop, etag=etag):
                spool.append(memoryview(piece))
        except Changed as error:
            raise self._damaged() from error
        if spool.size != stop - start:
            raise self._damaged()

    def _reopen(self, spool: Spool, size: int) -> None:
        """Create another multipart upload from the first `size` bytes of the complete object."""
        if self._multipart:
            self._complete()  # the writer that sealed it may have failed before
        self._replaces = self._bucket.etag(self._names.blob)
        self._multipart, self._parts, self._parts_checksum = "", 0, ""
        while (start := where_part_begins(self._parts)) + (length := part_size(self._parts)) <= size:
            self._multipart = self._multipart or self._bucket.begin_multipart(self._names.blob)
            number = self._parts + 1
            etag = self._bucket.copy_part(
                self._names.blob, self._multipart, number, start=start, stop=start + length
            )
            self._parts, self._parts_checksum = number, parts_checksum(self._parts_checksum, etag)
        if start < size:
            self._fill(spool, self._names.blob, start, size, None)

    def _send_part(self, spool: Spool) -> None:
        self._sent = True
        multipart = self._multipart or self._bucket.begin_multipart(self._names.blob)
        number = self._parts + 1
        etag = self._bucket.put_part(self._names.blob, multipart, number, spool.view())
        self._multipart, self._parts, self._parts_checksum = (
            multipart,
            number,
            parts_checksum(self._parts_checksum, etag),
        )
        spool.clear()
        self._changed = True
        self._lease.note(self._with_parts())

    def _with_parts(self) -> State:
        return replace(
            self._lease.state,
            multipart=self._multipart,
            parts=self._parts,
            parts_checksum=self._parts_checksum,
            tail=0,
            sealed=None,
            replaces=self._replaces or "",
        )

    def _saved(self) -> State:
        """The state after all written bytes have been saved to S3."""
        if self._spool is None or not self._changed:
            return self._lease.state
        if not self._spool.size:
            return self._with_parts()
        # In the other slot: until the new state is saved, the old state and its tail are valid.
        slot = 1 - self._lease.state.tail_slot
        self._sent = True
        etag = self._bucket.put(self._names.tail(slot), self._spool.view())
        return replace(self._with_parts(), tail=self._spool.size, tail_etag=etag, tail_slot=slot)

    def _seal(self, key: Key | None = None) -> None:
        """Complete the multipart upload. The state records it first, so that a crash is recoverable."""
        if not self._is_sealed:
            spool = self._spooled()
            if spool.size:
                self._send_part(spool)
        self._save_sealed(key)
        if self._multipart:
            self._complete()
        if self._bucket.size(self._names.blob) < self.offset:
            raise self._damaged()

    def _complete(self) -> None:
        if not (parts := self._multipart_parts()):
            return  # completed before
        checksum = ""
        for part in parts:
            checksum = parts_checksum(checksum, part.etag)
        if checksum != self._parts_checksum:
            raise self._damaged()
        try:
            self._bucket.complete_multipart(self._names.blob, self._multipart, parts, if_match=self._replaces)
        except (NotStored, Changed) as error:
            if self._multipart_parts():  # otherwise an attempt whose response was lost has completed it
                raise self._damaged() from error

    def _multipart_parts(self) -> list[Part]:
        """The parts of the multipart upload that belong to the upload; none if it was completed."""
        try:
            return self._bucket.parts(self._names.blob, self._multipart, first=self._parts)
        except NotStored:
            return []

    def _save_sealed(self, key: Key | None) -> None:
        state = self._lease.state if self._spool is None else self._with_parts()
        self._lease.save(replace(state, sealed=self.offset, tail=0, key=key or state.key))
        self._changed = False
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _damaged(self) -> NotStored:
        """A writer without the lease has replaced a part, or the upload is a blob: start another upload."""
        return NotStored(f"the upload {self._names.upload} was damaged by a concurrent writer: start another")

    def _end(self) -> None:
        self._ended = self._lease.has_ended = True
        if self._spool is not None:
            self._spool.close()
        self._on_end()
