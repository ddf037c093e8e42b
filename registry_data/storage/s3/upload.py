"""An upload that is written to: bytes fill a part in the spool, whole parts go to S3.

The multipart upload's target is the blob itself, so publishing copies nothing. Parts of an unfinished one
cannot be read, though: whoever wants to read an upload that has parts has it finished first ("sealed"), and
whoever appends to a sealed one begins another with the parts copied on the server. Both are rare.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from registry_data.storage.base import Key, NotStored, Unavailable
from registry_data.storage.free_space import FreeSpace
from registry_data.storage.keys import parse_key
from registry_data.storage.s3.bucket import Bucket, Changed
from registry_data.storage.s3.lease import Lease
from registry_data.storage.s3.spool import Spool
from registry_data.storage.s3.state import ObjectNames, State, part_size, parts_checksum, where_part_begins


class S3Writer:
    """See UploadWriter. What it took is in S3 after `close`.

    A crash before that loses what fills no part, and what came since the lease was renewed last.
    """

    def __init__(
        self,
        bucket: Bucket,
        places: ObjectNames,
        lease: Lease,
        room: FreeSpace,
        on_end: Callable[[], None],
        *,
        is_first: bool,
    ) -> None:
        """`is_first` says that the upload had no writer before, so that S3 has nothing of it yet."""
        self._bucket, self._places, self._lease = bucket, places, lease
        self._room, self._on_end = room, on_end
        self._began = lease.state
        self._spool: Spool | None = None  # holds what is behind the parts, once that is needed
        self._multipart, self._parts, self._chain = (
            self._began.multipart,
            self._began.parts,
            self._began.chain,
        )
        self._changed = False
        self._sent = not is_first  # whether S3 may hold more of the upload than its state
        self._ended = False
        self.offset, self.is_published = self._began.size, bool(self._began.key)

    def write(self, piece: bytes) -> None:
        """Append to the spool, and send it whenever it is a part."""
        if self._lease.is_over:
            raise Changed("the upload is no longer this writer's")
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
        """Save what fills no part in an object of its own, then the state."""
        if self._ended:
            return
        try:
            self._lease.release(self._kept())
        except Changed:
            if self._changed:  # else there is nothing to lose: the upload was discarded, or is another's
                raise
        finally:
            self._end()

    def abandon(self) -> None:
        """Go back to the state at the beginning: parts sent since count no more."""
        if self._ended:
            return
        cut_back = replace(self._lease.state, sealed=self._began.size)
        before = cut_back if self._is_sealed else self._began
        try:
            with suppress(Changed):  # then it is another's to change
                self._lease.release(before)
            self.offset = self._began.size
        finally:
            self._end()

    def let_go(self) -> bool:
        """End without saving anything: the upload is about to be discarded.

        Returns whether S3 has nothing else of it than its state.
        """
        self._end()
        return not self._sent

    def contents(self) -> Iterator[bytes]:
        """All bytes so far."""
        if not self.offset:
            return iter(())  # there may be more in S3: parts that were sent and do not count
        if self._is_in_spool:
            return self._spooled().pieces()
        self._seal()
        return self._bucket.read(self._places.blob, 0, self.offset)

    def publish(self, key: Key) -> None:
        """Make the upload the blob, with its digest as a tag."""
        digest, _ = parse_key(key)
        if self._is_sealed:
            self._seal()
            if self._bucket.size(self._places.blob) != self.offset:
                self._spooled()  # the finished object has more than the upload: take its beginning
        if self._is_in_spool:
            self._put_whole({"digest": digest})
            self._note_sealed(key)
            return
        self._seal(key)
        self._bucket.tag(self._places.blob, {"digest": digest})

    def _put_whole(self, tags: Mapping[str, str]) -> None:
        """Make the blob of what is in the spool, over nothing but what a try left that died.

        A writer that stalled and has lost its lease must not write over what another one published.
        """
        blob, view = self._places.blob, self._spooled().view()
        try:
            self._bucket.put(blob, view, tags=tags, only_new=True)
        except Changed:
            found = self._bucket.etag(blob)
            self._lease.save(self._lease.state)  # ours until now, so that nobody else's is there
            self._bucket.put(blob, view, tags=tags, if_match=found)

    @property
    def _is_sealed(self) -> bool:
        """Whether the upload is (the beginning of) a finished object."""
        return self._lease.state.sealed is not None and self._spool is None

    @property
    def _is_in_spool(self) -> bool:
        """Whether all of the upload fills no part: most blobs of an image are so small."""
        return not self._is_sealed and self._parts == 0

    def _spooled(self) -> Spool:
        """The spool, with what is behind the last part."""
        if self._spool is None:
            state = self._lease.state
            if state.key:
                raise Unavailable("the upload was published: nothing can be appended to it")
            spool = Spool(self._room)
            try:
                if state.sealed is not None:
                    self._reopen(spool, state.sealed)
                elif state.tail:
                    self._fill(spool, self._places.tail(state.tail_slot), 0, state.tail, state.tail_etag)
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
        """Begin another multipart upload with the first bytes of the finished object."""
        if self._multipart:
            self._complete()  # whoever sealed it may have died, or failed, before that
        self._multipart, self._parts, self._chain = "", 0, ""
        while (start := where_part_begins(self._parts)) + (length := part_size(self._parts)) <= size:
            self._multipart = self._multipart or self._bucket.begin(self._places.blob)
            number = self._parts + 1
            etag = self._bucket.copy_part(
                self._places.blob, self._multipart, number, start=start, stop=start + length
            )
            self._parts, self._chain = number, parts_checksum(self._chain, etag)
        if start < size:
            self._fill(spool, self._places.blob, start, size, None)

    def _send_part(self, spool: Spool) -> None:
        self._sent = True
        multipart = self._multipart or self._bucket.begin(self._places.blob)
        number = self._parts + 1
        etag = self._bucket.put_part(self._places.blob, multipart, number, spool.view())
        self._multipart, self._parts, self._chain = multipart, number, parts_checksum(self._chain, etag)
        spool.clear()
        self._changed = True
        self._lease.note(self._with_parts())

    def _with_parts(self) -> State:
        return replace(
            self._lease.state,
            multipart=self._multipart,
            parts=self._parts,
            chain=self._chain,
            tail=0,
            sealed=None,
        )

    def _kept(self) -> State:
        """The state in which everything written is in S3."""
        if self._spool is None or not self._changed:
            return self._lease.state
        if not self._spool.size:
            return self._with_parts()
        # Not over the tail that the saved state names: until the new state is saved, that one counts.
        slot = 1 - self._lease.state.tail_slot
        self._sent = True
        etag = self._bucket.put(self._places.tail(slot), self._spool.view())
        return replace(self._with_parts(), tail=self._spool.size, tail_etag=etag, tail_slot=slot)

    def _seal(self, key: Key | None = None) -> None:
        """Finish the multipart upload. The state says so first: a crash in between is a delay."""
        if not self._is_sealed:
            spool = self._spooled()
            if spool.size:
                self._send_part(spool)
        self._note_sealed(key)
        if self._multipart:
            self._complete()
        if self._bucket.size(self._places.blob) < self.offset:
            raise self._damaged()

    def _complete(self) -> None:
        try:
            parts = self._bucket.parts(self._places.blob, self._multipart, first=self._parts)
        except NotStored:
            return  # finished before
        chain = ""
        for part in parts:
            chain = parts_checksum(chain, part.etag)
        if chain != self._chain:
            raise self._damaged()
        with suppress(NotStored):  # finished by a try whose answer came too late
            self._bucket.complete(self._places.blob, self._multipart, parts)

    def _note_sealed(self, key: Key | None) -> None:
        state = self._lease.state if self._spool is None else self._with_parts()
        self._lease.save(replace(state, sealed=self.offset, tail=0, key=key or state.key))
        self._changed = False
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _damaged(self) -> NotStored:
        """A writer that was thought dead wrote after another had taken over. The client has to begin anew."""
        return NotStored(f"the upload {self._places.upload} cannot be gone on with")

    def _end(self) -> None:
        self._ended = self._lease.is_over = True
        if self._spool is not None:
            self._spool.close()
        self._on_end()
